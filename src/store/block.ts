// A block: at most 4 MiB of ciphertext, named by the hash of its bytes, so that anyone can verify it without a key.
import { blake3, Blake3Hasher } from '@napi-rs/blake-hash';
import { base32 } from 'multiformats/bases/base32';
import { DezentError } from '../errors.ts';

/** 4 MiB: the largest chunk is 3 MiB (split.ts); raw frame, header, tag and padding add under 3 %. */
export const MAX_BLOCK_BYTES: number = 4 * 1024 * 1024;

/** CIDv1 (0x01), raw (0x55), blake3 (0x1e), 32 bytes (0x20): multiformats.io/cid. */
const CID_PREFIX = Uint8Array.of(0x01, 0x55, 0x1e, 0x20);
const DIGEST_BYTES = 32;
export const BLOCK_ID_BYTES: number = CID_PREFIX.length + DIGEST_BYTES;
/** The 36 bytes leave two bits of the 7th and of the last character at 0: nothing else is canonical. */
const BLOCK_ID_TEXT: RegExp = /^bafkr4i[a-h][a-z2-7]{50}[aeimquy4]$/;

declare const blockIdBrand: unique symbol;
/** The text of a CIDv1, raw, blake3 in base32 ("bafkr4i…", 59 characters): equal ids are equal strings. */
export type BlockId = string & { readonly [blockIdBrand]: true };

/** The id of these bytes. */
export function blockIdOf(bytes: Uint8Array): BlockId {
  return blockIdFromDigest(blake3(bytes));
}

let hasher: Blake3Hasher | undefined;

/** The id of bytes that lie in several places. */
export function blockIdOfParts(parts: readonly Uint8Array[]): BlockId {
  hasher ??= new Blake3Hasher();
  hasher.reset();
  for (const part of parts) hasher.update(part);
  return blockIdFromDigest(hasher.digestBuffer());
}

/** The id with this 32-byte blake3 digest. */
export function blockIdFromDigest(digest: Uint8Array): BlockId {
  const bytes = new Uint8Array(BLOCK_ID_BYTES);
  bytes.set(CID_PREFIX);
  bytes.set(digest, CID_PREFIX.length);
  return base32.encode(bytes) as BlockId;
}

/** The id written in this text; throws BAD_BLOCK for anything but the one canonical spelling. */
export function parseBlockId(text: string): BlockId {
  if (!BLOCK_ID_TEXT.test(text)) {
    throw new DezentError('BAD_BLOCK', `not a block id: ${JSON.stringify(text.slice(0, 80))}`);
  }
  return text as BlockId;
}

/** The 36 bytes of the CID; the form on the wire and on disk. */
export function blockIdToBytes(id: BlockId): Uint8Array {
  return base32.decode(id);
}

/** True for the 36 bytes of an id. */
export function isBlockIdBytes(bytes: Uint8Array): boolean {
  return bytes.length === BLOCK_ID_BYTES && CID_PREFIX.every((byte, index) => bytes[index] === byte);
}

/** The inverse of {@link blockIdToBytes}; throws BAD_BLOCK for a wrong length, version, codec or hash. */
export function blockIdFromBytes(bytes: Uint8Array): BlockId {
  if (!isBlockIdBytes(bytes))
    throw new DezentError('BAD_BLOCK', `not a block id: ${bytes.length} bytes of another kind`);
  return base32.encode(bytes) as BlockId;
}

/** Throws BAD_BLOCK unless the bytes are what the id names and not larger than a block may be. */
export function checkBlock(id: BlockId, bytes: Uint8Array): void {
  if (bytes.length > MAX_BLOCK_BYTES)
    throw new DezentError('BAD_BLOCK', `block ${id} has ${bytes.length} bytes, more than ${MAX_BLOCK_BYTES}`);
  if (blockIdOf(bytes) !== id)
    throw new DezentError('BAD_BLOCK', `the bytes given for block ${id} are not what it names`);
}
