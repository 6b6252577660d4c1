// Compress: plain bytes ⇄ frame. A frame says how it is coded and is zero-padded to a Padmé size, so that lengths tell little.
//
//   frame = codec:u8 (0 raw, 1 zstd) ‖ plainLength:u32be ‖ payloadLength:u32be ‖ payload ‖ zeros up to padme(9 + payloadLength)
//
// Padmé (petsymposium.org/popets/2019/popets-2019-0056.pdf): at most 12 % more, 1.7 % on average at our sizes.
import { promisify } from 'node:util';
import { constants, zstdCompress, zstdCompressSync, zstdDecompressSync, type ZstdOptions } from 'node:zlib';
import { DezentError } from '../errors.ts';
import { MAX_BLOCK_BYTES } from './block.ts';
import { freeMemory } from './free-memory.ts';

const zstd = promisify(zstdCompress);

const CODEC_RAW = 0;
const CODEC_ZSTD = 1;
export const FRAME_HEADER_BYTES = 9;
/** Compressed is kept when it is at most this share of the plain bytes: less would not pay for expanding it. */
const WORTH_SHARE = 0.97;
const ZSTD_LEVEL = 1;
/** Below this nothing is gained by trying. */
const TRY_FROM_BYTES = 64;
/** What one frame may expand to: the largest block, so a bomb of 1 : 32,000 stops here. */
export const MAX_PLAIN_BYTES: number = MAX_BLOCK_BYTES;

/** The Padmé size for a length in bytes. */
export function padme(length: number): number {
  if (length < 2) return length;
  const exponent = Math.floor(Math.log2(length));
  const lastBits = exponent - (Math.floor(Math.log2(exponent)) + 1);
  if (lastBits <= 0) return length;
  const unit = 2 ** lastBits;
  return Math.ceil(length / unit) * unit;
}

/** The most that a frame is padded with: an eighth of the unit that padme() rounds the largest block to. */
const ZEROS: Buffer = Buffer.alloc(MAX_BLOCK_BYTES / 32);

function partsOf(codec: number, plainLength: number, payload: Uint8Array): Uint8Array[] {
  const used = FRAME_HEADER_BYTES + payload.length;
  const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
  header[0] = codec;
  header.writeUInt32BE(plainLength, 1);
  header.writeUInt32BE(payload.length, 5);
  return [header, payload, ZEROS.subarray(0, padme(used) - used)];
}

/** What zlib appends when it is told twice that this is the end: a zstd frame of nothing. */
const EMPTY_ZSTD: Buffer = Buffer.from('28b52ffd2000010000', 'hex');

/** With the default chunkSize zlib grows its output in steps and copies it: up to 1.7× slower. */
const zstdOptions = (length: number): ZstdOptions => ({
  chunkSize: length + Math.ceil(length / 128) + 1024 + EMPTY_ZSTD.length,
  params: { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL },
});

function partsOfSmaller(plain: Uint8Array, packed: Uint8Array): Uint8Array[] {
  const worth = packed.length <= plain.length * WORTH_SHARE;
  return worth ? partsOf(CODEC_ZSTD, plain.length, packed) : partsOf(CODEC_RAW, plain.length, plain);
}

/**
 * The frame of these bytes (at most {@link MAX_PLAIN_BYTES}); compresses on the thread pool. zlib's stream would give zstd all bytes first and the
 * end later, which packs small ones up to a fifth worse: so the bytes are the end, and what the second end adds is left out.
 */
export async function compress(plain: Uint8Array): Promise<Buffer> {
  if (plain.length < TRY_FROM_BYTES) return Buffer.concat(partsOf(CODEC_RAW, plain.length, plain));
  const ends = { flush: constants.ZSTD_e_end, finishFlush: constants.ZSTD_e_continue };
  const packed = await zstd(plain, { ...zstdOptions(plain.length), ...ends });
  const end = packed.length - EMPTY_ZSTD.length;
  if (!packed.subarray(end).equals(EMPTY_ZSTD)) return compressNow(plain);
  return Buffer.concat(partsOfSmaller(plain, packed.subarray(0, end)));
}

/** The same frame, made on this thread. */
export function compressNow(plain: Uint8Array): Buffer {
  return Buffer.concat(framePartsNow(plain));
}

/** The same frame as parts that follow each other; one may be `plain` itself. */
export function framePartsNow(plain: Uint8Array): Uint8Array[] {
  if (plain.length < TRY_FROM_BYTES) return partsOf(CODEC_RAW, plain.length, plain);
  const packed = zstdCompressSync(plain, zstdOptions(plain.length));
  const parts = partsOfSmaller(plain, packed);
  if (!parts.includes(packed)) freeMemory(packed);
  return parts;
}

function bad(why: string, cause?: unknown): DezentError {
  return new DezentError('BAD_BLOCK', `a frame cannot be expanded: ${why}`, { cause });
}

/** The inverse of {@link compress}. Throws BAD_BLOCK for anything else than a whole frame; sizes are checked before allocation. */
export function expand(frame: Uint8Array): Uint8Array {
  const view = Buffer.from(frame.buffer, frame.byteOffset, frame.length);
  if (view.length < FRAME_HEADER_BYTES) throw bad(`only ${view.length} bytes`);
  const codec = view[0];
  const plainLength = view.readUInt32BE(1);
  const payloadLength = view.readUInt32BE(5);
  if (plainLength > MAX_PLAIN_BYTES) throw bad(`it would have ${plainLength} bytes, more than ${MAX_PLAIN_BYTES}`);
  if (padme(FRAME_HEADER_BYTES + payloadLength) !== view.length)
    throw bad(`its payload length ${payloadLength} does not fit ${view.length} bytes`);
  const payload = view.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + payloadLength);
  if (codec === CODEC_RAW && payloadLength === plainLength) return payload;
  if (codec !== CODEC_ZSTD) throw bad(`unknown codec ${codec} or wrong length`);
  let plain: Uint8Array;
  try {
    plain = zstdDecompressSync(payload, {
      maxOutputLength: Math.max(1, plainLength),
      // One byte over: a chunk that is just full makes zlib allocate another one.
      chunkSize: Math.max(64, plainLength + 1),
    });
  } catch (error) {
    throw bad('zstd refused it', error);
  }
  if (plain.length !== plainLength) throw bad(`it has ${plain.length} bytes and says ${plainLength}`);
  return plain;
}
