// Lists of block ids as bytes: one after the other, BLOCK_ID_BYTES each; the form on the wire and on disk.
import { DezentError } from '../errors.ts';
import { BLOCK_ID_BYTES, blockIdFromBytes, blockIdToBytes } from './block.ts';
import type { BlockId } from './block.ts';

export function joinIds(ids: readonly BlockId[]): Uint8Array {
  const bytes = new Uint8Array(ids.length * BLOCK_ID_BYTES);
  for (const [index, id] of ids.entries()) bytes.set(blockIdToBytes(id), index * BLOCK_ID_BYTES);
  return bytes;
}

/** The inverse of {@link joinIds}; throws BAD_BLOCK for a broken length or an id of another kind. */
export function splitIds(bytes: Uint8Array): BlockId[] {
  if (bytes.length % BLOCK_ID_BYTES !== 0)
    throw new DezentError('BAD_BLOCK', 'a list of block ids has a broken length');
  const ids: BlockId[] = [];
  for (let at = 0; at < bytes.length; at += BLOCK_ID_BYTES) {
    ids.push(blockIdFromBytes(bytes.subarray(at, at + BLOCK_ID_BYTES)));
  }
  return ids;
}
