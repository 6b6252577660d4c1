// Split: cuts content where the content says so (a keyed gear hash), so that an edit changes only the chunks around it.
// The table is derived from the owner's secret: chunk sizes tell an outsider nothing (eprint.iacr.org/2025/532). Inverse: join.
//
// Cut rule (format version 1; golden fixtures hold it): a chunk ends after byte i (0-based, i ≥ min) when the top bits of
//   h(i) = (h(i-1) << 1) + gear[byte i]  mod 2³²
// are all zero: average's log2 + 2 bits while i < average, log2 - 2 bits from there on; at max at the latest. h starts from 0 at
// min - 32, so it is full (32 bytes wide) where it first counts.
import { DezentError } from '../errors.ts';
import { openRoller } from './roll.ts';

export interface SplitSizes {
  minBytes: number;
  averageBytes: number;
  maxBytes: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;
const HASH_WINDOW_BYTES = 32;
/** No hash is below it: to take bytes in without looking for a cut. */
const NO_LIMIT = 0;

/** The two sizes in use; a file keeps the one of its first version (it is in the manifest). */
export const SPLIT_LARGE: SplitSizes = { minBytes: 256 * KIB, averageBytes: MIB, maxBytes: 3 * MIB };
export const SPLIT_SMALL: SplitSizes = { minBytes: 64 * KIB, averageBytes: 256 * KIB, maxBytes: MIB };
/** Files from this size on are split by {@link SPLIT_LARGE}: fewer blocks to announce and prove. */
export const SPLIT_LARGE_FROM_BYTES: number = 64 * MIB;

/** The sizes for a file, by the average of its earlier version if it has one, else by its size. */
export function splitSizesFor(fileBytes: number, earlierAverage?: number): SplitSizes {
  if (earlierAverage === undefined) return fileBytes < SPLIT_LARGE_FROM_BYTES ? SPLIT_SMALL : SPLIT_LARGE;
  const sizes = [SPLIT_SMALL, SPLIT_LARGE].find(({ averageBytes }) => averageBytes === earlierAverage);
  if (sizes === undefined) throw new DezentError('NEWER_VERSION', `unknown split average ${earlierAverage}`);
  return sizes;
}

/** Finds cuts in bytes that arrive piece by piece: all of each piece, in order, has to pass through it. */
export interface Cutter {
  /** The number of bytes of `piece` from `from` on that end the open chunk, or undefined when it goes on beyond the piece. */
  cut(piece: Uint8Array, from: number): number | undefined;
}

export function openCutter(gear: Uint32Array, sizes: SplitSizes, open: typeof openRoller = openRoller): Cutter {
  const roller = open(gear);
  const bits = Math.log2(sizes.averageBytes);
  /** The hash is below these when its top bits are zero. */
  const hardLimit = 2 ** (32 - (bits + 2));
  const easyLimit = 2 ** (32 - (bits - 2));
  const hashFrom = sizes.minBytes - HASH_WINDOW_BYTES;
  let length = 0;

  return {
    cut(piece, from) {
      let at = from;
      /** Index in the piece of the chunk's byte number `position`, at most the piece's end. */
      const until = (position: number): number => Math.min(piece.length, at + Math.max(0, position - length));
      const advance = (to: number): void => {
        length += to - at;
        at = to;
      };
      advance(until(hashFrom));
      const warm = until(sizes.minBytes);
      roller.roll(piece, at, warm, NO_LIMIT);
      advance(warm);
      for (const [position, limit] of [
        [sizes.averageBytes, hardLimit],
        [sizes.maxBytes, easyLimit],
      ] as const) {
        const to = until(position);
        const end = roller.roll(piece, at, to, limit);
        advance(end === -1 ? to : end);
        if (end !== -1 || length === sizes.maxBytes) {
          roller.hash = 0;
          length = 0;
          return at - from;
        }
      }
      return undefined;
    },
  };
}

/** Cuts a stream of bytes into chunks. Pieces must not be reused by their source: a chunk within one piece shares its memory. */
export function split(
  gear: Uint32Array,
  sizes: SplitSizes,
): (source: AsyncIterable<Uint8Array>) => AsyncGenerator<Uint8Array> {
  return async function* (source) {
    const cutter = openCutter(gear, sizes);
    let open: Uint8Array[] = [];
    for await (const piece of source) {
      let at = 0;
      while (at < piece.length) {
        const taken = cutter.cut(piece, at);
        open.push(piece.subarray(at, taken === undefined ? piece.length : at + taken));
        if (taken === undefined) break;
        yield join(open);
        open = [];
        at += taken;
      }
    }
    if (open.length > 0) yield join(open);
  };
}

/** The inverse of split for chunks at hand: one run of bytes. */
export function join(parts: readonly Uint8Array[]): Uint8Array {
  return parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts);
}
