// A receipt: a holder's signed statement that the bytes of a list of blocks are on its disk. It stands until the device that asked
// releases it. The list itself is kept by both sides; the receipt carries its digest.
//
// Payload, DAG-CBOR map, version 1. Signature kind "receipt".
//   field     type   limits
//   v         int    1
//   group     bytes  32
//   owner     bytes  32, the owner's public key
//   device    text   peer id of the device that asked
//   holder    text   peer id of the holder; must be the signer
//   nonce     bytes  16, random: the receipt's name in a release
//   ids       bytes  32, digest of the ids (digestOfIds)
//   count     int    1 … 4,096
//   bytes     int    sum of the blocks' lengths
//   issuedAt  int    ms since 1970, the holder's clock
// Release payload, kind "release": {v, device, holder, nonces ≤ 256, ids ≤ 4,096}. No ids: the named receipts end; else only these ids are let
// go of, out of the named receipts, so that a replay cannot touch a newer one.
import { randomBytes } from 'node:crypto';
import { Blake3Hasher } from '@napi-rs/blake-hash';
import * as v from 'valibot';
import { DezentError } from '../errors.ts';
import { blockIdFromBytes, blockIdToBytes, type BlockId } from '../store/block.ts';
import { blockIdBytes, bytesOf, count, decodeRecord, encodeRecord, type RecordFormat } from './record-codec.ts';
import {
  HASH_BYTES,
  idBytes,
  idText,
  peerIdOf,
  PUBLIC_KEY_BYTES,
  peerIdSchema,
  sign,
  verify,
  type Envelope,
  type SigningKey,
} from './signature.ts';

/** A push session is one receipt: 4,096 blocks of 1 MiB are 4 GiB, and its list is 144 KiB. */
export const RECEIPT_MAX_IDS = 4096;
export const RECEIPT_NONCE_BYTES = 16;
/** A release names at most this many receipts: with 4,096 ids it stays under 192 KiB. */
export const RELEASE_MAX_NONCES = 256;
const MAX_RECEIPT_BYTES = 1024;
const MAX_RELEASE_BYTES: number = 192 * 1024;

export interface Receipt {
  /** Owner id text. */
  owner: string;
  /** Peer id of the device that asked. */
  device: string;
  /** Peer id of the holder. */
  holder: string;
  /** 16 random bytes. */
  nonce: Uint8Array;
  /** {@link digestOfIds} of the blocks. */
  ids: Uint8Array;
  count: number;
  /** Sum of the lengths. */
  bytes: number;
  /** ms since 1970. */
  issuedAt: number;
}

/** What a device lets go of: the named receipts, or, where ids are named, these blocks out of the named receipts. */
export interface Release {
  device: string;
  holder: string;
  nonces: Uint8Array[];
  ids: BlockId[];
}

const receiptSchema = v.strictObject({
  v: v.literal(1),
  group: bytesOf(HASH_BYTES),
  owner: bytesOf(PUBLIC_KEY_BYTES),
  device: peerIdSchema,
  holder: peerIdSchema,
  nonce: bytesOf(RECEIPT_NONCE_BYTES),
  ids: bytesOf(HASH_BYTES),
  count: v.pipe(count, v.minValue(1), v.maxValue(RECEIPT_MAX_IDS)),
  bytes: count,
  issuedAt: count,
});
const releaseSchema = v.strictObject({
  v: v.literal(1),
  device: peerIdSchema,
  holder: peerIdSchema,
  nonces: v.pipe(v.array(bytesOf(RECEIPT_NONCE_BYTES)), v.maxLength(RELEASE_MAX_NONCES)),
  ids: v.pipe(v.array(blockIdBytes), v.maxLength(RECEIPT_MAX_IDS)),
});
const receiptFormat: RecordFormat<v.InferOutput<typeof receiptSchema>> = {
  name: 'receipt',
  version: 1,
  maxBytes: MAX_RECEIPT_BYTES,
  schema: receiptSchema,
};
const releaseFormat: RecordFormat<v.InferOutput<typeof releaseSchema>> = {
  name: 'release',
  version: 1,
  maxBytes: MAX_RELEASE_BYTES,
  schema: releaseSchema,
};

/** blake3 over the ids' bytes in ascending order of their text, so the order they were sent in does not matter. */
export function digestOfIds(ids: Iterable<BlockId>): Uint8Array {
  const hasher = new Blake3Hasher();
  for (const id of [...ids].sort()) hasher.update(blockIdToBytes(id));
  return new Uint8Array(hasher.digestBuffer());
}

export function newReceiptNonce(): Uint8Array {
  return new Uint8Array(randomBytes(RECEIPT_NONCE_BYTES));
}

/** Signed with the holder's device key, which must be `receipt.holder`. */
export function signReceipt(groupId: Uint8Array, receipt: Receipt, key: SigningKey): Envelope {
  const payload = encodeRecord(receiptFormat, { v: 1, ...receipt, group: groupId, owner: idBytes(receipt.owner) });
  return checkedSigner(sign('receipt', groupId, payload, key), receipt.holder);
}

/** The receipt in the envelope; throws BAD_RECORD unless its holder signed it for this group. */
export function verifyReceipt(groupId: Uint8Array, envelope: Envelope): Receipt {
  verify('receipt', groupId, envelope);
  const { group, owner, device, holder, nonce, ids, count, bytes, issuedAt } = decodeRecord(
    receiptFormat,
    envelope.payload,
  );
  if (Buffer.compare(group, groupId) !== 0) throw new DezentError('BAD_RECORD', 'the receipt is of another group');
  checkedSigner(envelope, holder);
  return { owner: idText(owner), device, holder, nonce, ids, count, bytes, issuedAt };
}

/** Signed with the key of `release.device`. */
export function signRelease(groupId: Uint8Array, release: Release, key: SigningKey): Envelope {
  const payload = encodeRecord(releaseFormat, { v: 1, ...release, ids: release.ids.map(blockIdToBytes) });
  return checkedSigner(sign('release', groupId, payload, key), release.device);
}

/** The release in the envelope; throws BAD_RECORD unless its device signed it for this group and this holder. */
export function verifyRelease(groupId: Uint8Array, envelope: Envelope, holder: string): Release {
  verify('release', groupId, envelope);
  const { v: _version, ids, ...rest } = decodeRecord(releaseFormat, envelope.payload);
  checkedSigner(envelope, rest.device);
  if (rest.holder !== holder) throw new DezentError('BAD_RECORD', `the release is for ${rest.holder}`);
  return { ...rest, ids: ids.map(blockIdFromBytes) };
}

function checkedSigner(envelope: Envelope, peerId: string): Envelope {
  if (peerIdOf(envelope.signer) !== peerId)
    throw new DezentError('BAD_RECORD', `signed by ${peerIdOf(envelope.signer)}, not by ${peerId}`);
  return envelope;
}
