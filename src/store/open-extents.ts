// The thread's work on a large file to restore: block → verified, unsealed, expanded, written at its place; the hashes of the plain bytes
// go back, so that the main thread can check the whole.
import { writeSync } from 'node:fs';
import { DezentError } from '../errors.ts';
import { openBlockReads, type BlockSource } from './block-reads.ts';
import { expand } from './compress.ts';
import { freeMemory } from './free-memory.ts';
import type { Extent } from './manifest.ts';
import { unsealData } from './seal.ts';
import { keyedHash } from './secrets.ts';
import type { ThreadTools } from './seal-windows.ts';
import type { Given } from './thread-jobs.ts';

export interface OpenPiece extends Omit<Extent, 'block'> {
  source: BlockSource;
  /** Where it belongs in the file. */
  position: number;
}

export interface OpenInput {
  fd: number;
  pieces: readonly OpenPiece[];
}

export interface OpenOutput {
  /** 32 bytes for each piece. */
  plainHashes: Uint8Array<ArrayBuffer>;
  /** Pieces whose blocks are not where they were said to be. */
  missing: number[];
}

const HASH_BYTES = 32;

/** Throws BAD_BLOCK, BAD_MANIFEST, and what the system says when the file cannot be written. */
export function openExtents({ fd, pieces }: OpenInput, { keys, window }: ThreadTools): Given {
  const output: OpenOutput = { plainHashes: new Uint8Array(pieces.length * HASH_BYTES), missing: [] };
  const reads = openBlockReads(window());
  try {
    for (const [at, piece] of pieces.entries()) {
      const sealed = reads.read(piece.source);
      if (sealed === undefined) output.missing.push(at);
      else output.plainHashes.set(writePiece(fd, piece, sealed, keys.plainHash), at * HASH_BYTES);
    }
  } finally {
    reads.close();
  }
  return { value: output, transfer: [output.plainHashes.buffer] };
}

function writePiece(fd: number, piece: OpenPiece, sealed: Uint8Array, hashKey: Buffer): Uint8Array {
  const { source, offset, length, key, position } = piece;
  const frame = unsealData(sealed, key);
  const whole = expand(frame);
  if (offset + length > whole.length)
    throw new DezentError('BAD_MANIFEST', `an extent points beyond block ${source.id}`);
  const plain = whole.subarray(offset, offset + length);
  for (let done = 0; done < length;) done += writeSync(fd, plain, done, length - done, position + done);
  const hash = keyedHash(hashKey, plain);
  freeMemory(whole);
  freeMemory(frame);
  return hash;
}
