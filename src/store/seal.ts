// Seal: frame ⇄ block. Two forms, one for data (the key travels in the extent) and one for manifests and catalog (the key follows
// from the block and the owner's epoch secret). The nonce is always 0: no key is ever used for two different frames.
//
//   data block      suite:u8 ‖ kind:u8 ‖ AES-256-GCM(key, 0, aad = suite ‖ kind, frame) ‖ tag:16
//                   key = HKDF(epoch's block key, keyed blake3(frame) ‖ suite ‖ kind)
//   manifest block  suite:u8 ‖ kind:u8 ‖ epoch:8 ‖ salt:32 ‖ AES-256-GCM(key, 0, aad = all before, frame) ‖ tag:16
//   catalog block   salt = keyed blake3(kind ‖ suite ‖ frame), key = HKDF(epoch's manifest or catalog key, salt ‖ kind ‖ suite)
import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync } from 'node:crypto';
import { DezentError } from '../errors.ts';
import { blockIdOfParts, MAX_BLOCK_BYTES, type BlockId } from './block.ts';
import { EPOCH_ID_BYTES, keyedHash, SECRET_BYTES, type ContentKeys, type EpochKeys } from './secrets.ts';

const SUITE = 1;
export const KIND_DATA = 1;
export const KIND_MANIFEST = 2;
export const KIND_CATALOG = 3;
type NamedKind = typeof KIND_MANIFEST | typeof KIND_CATALOG;

const TAG_BYTES = 16;
const IV = Buffer.alloc(12);
const DATA_HEADER_BYTES = 2;
const SALT_BYTES = 32;
const NAMED_HEADER_BYTES: number = 2 + EPOCH_ID_BYTES + SALT_BYTES;

export interface SealedBlock {
  id: BlockId;
  bytes: Buffer;
}

/** A sealed block in parts that follow each other. */
export interface SealedParts {
  id: BlockId;
  parts: Uint8Array[];
}

function encrypt(key: Uint8Array, header: Uint8Array, frame: readonly Uint8Array[]): SealedParts {
  const frameBytes = frame.reduce((sum, { length }) => sum + length, 0);
  if (header.length + frameBytes + TAG_BYTES > MAX_BLOCK_BYTES)
    throw new DezentError('INTERNAL', `a frame of ${frameBytes} bytes does not fit a block`);
  const cipher = createCipheriv('aes-256-gcm', createSecretKey(key), IV);
  cipher.setAAD(header);
  const sealed = frame.map((part) => cipher.update(part));
  cipher.final();
  const parts = [header, ...sealed, cipher.getAuthTag()];
  return { id: blockIdOfParts(parts), parts };
}

function joined({ id, parts }: SealedParts): SealedBlock {
  return { id, bytes: Buffer.concat(parts) };
}

function decrypt(key: Uint8Array, bytes: Uint8Array, headerBytes: number): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', createSecretKey(key), IV);
  decipher.setAAD(bytes.subarray(0, headerBytes));
  decipher.setAuthTag(bytes.subarray(bytes.length - TAG_BYTES));
  const frame = decipher.update(bytes.subarray(headerBytes, bytes.length - TAG_BYTES));
  try {
    decipher.final();
  } catch (error) {
    throw new DezentError(
      'BAD_BLOCK',
      'a block does not open with its key: it was altered or belongs to somebody else',
      { cause: error },
    );
  }
  return frame;
}

function checkHeader(bytes: Uint8Array, kinds: readonly number[], headerBytes: number): void {
  if (bytes.length < headerBytes + TAG_BYTES)
    throw new DezentError('BAD_BLOCK', `a sealed block has only ${bytes.length} bytes`);
  const [suite = 0, kind = 0] = bytes;
  if (suite > SUITE)
    throw new DezentError('NEWER_VERSION', `a block was sealed with suite ${suite}, this version knows ${SUITE}`);
  if (suite !== SUITE || !kinds.includes(kind))
    throw new DezentError(
      'BAD_BLOCK',
      `a block has suite ${suite} and kind ${kind}, expected kind ${kinds.join(' or ')}`,
    );
}

/** Seals a data frame; equal frames of one owner and epoch give equal blocks. The key (32 bytes) goes into the extent. */
export function sealData(frame: Uint8Array, epoch: EpochKeys): SealedBlock & { key: Buffer } {
  const { key, ...sealed } = sealDataParts([frame], epoch);
  return { ...joined(sealed), key };
}

/** The same for a frame in parts: large ones are copied once less. */
export function sealDataParts(frame: readonly Uint8Array[], epoch: EpochKeys): SealedParts & { key: Buffer } {
  const header = Uint8Array.of(SUITE, KIND_DATA);
  const info = Buffer.concat([keyedHash(epoch.frameHash, ...frame), header]);
  const key = Buffer.from(hkdfSync('sha256', epoch.blockKey, new Uint8Array(0), info, SECRET_BYTES));
  return { ...encrypt(key, header, frame), key };
}

/** The frame in a data block; BAD_BLOCK when key and bytes do not belong together. */
export function unsealData(bytes: Uint8Array, key: Uint8Array): Buffer {
  checkHeader(bytes, [KIND_DATA], DATA_HEADER_BYTES);
  return decrypt(key, bytes, DATA_HEADER_BYTES);
}

function namedKey(kind: number, salt: Uint8Array, epoch: EpochKeys): Buffer {
  const base = kind === KIND_MANIFEST ? epoch.manifest.key : epoch.catalog.key;
  const info = Buffer.concat([salt, Uint8Array.of(kind, SUITE)]);
  return Buffer.from(hkdfSync('sha256', base, new Uint8Array(0), info, SECRET_BYTES));
}

/** Seals a frame of manifests or of catalog entries; it opens with the owner's epoch secrets alone. */
export function sealNamed(kind: NamedKind, frame: Uint8Array, epoch: EpochKeys): SealedBlock {
  return joined(sealNamedParts(kind, [frame], epoch));
}

/** The same for a frame in parts. */
export function sealNamedParts(kind: NamedKind, frame: readonly Uint8Array[], epoch: EpochKeys): SealedParts {
  const saltKey = kind === KIND_MANIFEST ? epoch.manifest.saltHash : epoch.catalog.saltHash;
  const salt = keyedHash(saltKey, Uint8Array.of(kind, SUITE), ...frame);
  const header = Buffer.concat([Uint8Array.of(SUITE, kind), epoch.id, salt]);
  return encrypt(namedKey(kind, salt, epoch), header, frame);
}

/** The frame in a manifest or catalog block, whichever `kind` is asked for. */
export function unsealNamed(kind: NamedKind, bytes: Uint8Array, keys: ContentKeys): Buffer {
  checkHeader(bytes, [kind], NAMED_HEADER_BYTES);
  const epoch = keys.epoch(bytes.subarray(2, 2 + EPOCH_ID_BYTES));
  const salt = bytes.subarray(2 + EPOCH_ID_BYTES, NAMED_HEADER_BYTES);
  return decrypt(namedKey(kind, salt, epoch), bytes, NAMED_HEADER_BYTES);
}
