// Signatures and the ids made of keys. A signature covers `dezent/<kind>/1\0 ‖ groupId ‖ payload bytes`, so nothing signed for one
// purpose or group is valid for another; payloads are kept and forwarded as received, never re-encoded.
//
// Envelope, DAG-CBOR map, version 1 (order of the encoding: by key length, then bytes):
//   field      type   limits
//   v          int    1
//   signer     bytes  32, ed25519 public key
//   payload    bytes  ≤ 960 KiB: with its envelope it fits a control frame of 1 MiB
//   signature  bytes  64, ed25519
import { createPrivateKey, createPublicKey, sign as edSign, verify as edVerify, type KeyObject } from 'node:crypto';
import { blake3 } from '@napi-rs/blake-hash';
import { base32 } from 'multiformats/bases/base32';
import { base58btc } from 'multiformats/bases/base58';
import * as v from 'valibot';
import { DezentError } from '../errors.ts';
import { bytesOf, decodeRecord, encodeRecord, type RecordFormat } from './record-codec.ts';

export const PUBLIC_KEY_BYTES = 32;
export const SIGNATURE_BYTES = 64;
export const SEED_BYTES = 32;
/** A blake3 digest: group ids, hashes of payloads. */
export const HASH_BYTES = 32;
export const MAX_PAYLOAD_BYTES: number = 960 * 1024;
export const MAX_ENVELOPE_BYTES: number = MAX_PAYLOAD_BYTES + 256;

/** RFC 8410: the DER before the 32 bytes of an ed25519 private or public key. */
const PRIVATE_DER = Buffer.from('302e020100300506032b657004220420', 'hex');
const PUBLIC_DER = Buffer.from('302a300506032b6570032100', 'hex');
/** libp2p peer id of an ed25519 key: identity multihash of protobuf {type 1 = Ed25519, 32 bytes}. */
const PEER_ID_PREFIX = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20);
/** base58 of 38 bytes that begin as above is 52 characters, always. */
const PEER_ID_TEXT = /^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/;
/** Multibase base32 of 32 bytes; the last character has 4 unused bits, which are 0. */
const ID_TEXT = /^b[a-z2-7]{51}[aq]$/;
const NO_GROUP = new Uint8Array(0);

export interface Envelope {
  payload: Uint8Array;
  /** ed25519 public key, 32 bytes. */
  signer: Uint8Array;
  /** 64 bytes. */
  signature: Uint8Array;
}

/** Signs with an ed25519 key that stays inside. */
export interface SigningKey {
  readonly publicKey: Uint8Array;
  sign(bytes: Uint8Array): Uint8Array;
}

const envelopeFormat: RecordFormat<{ v: 1; payload: Uint8Array; signer: Uint8Array; signature: Uint8Array }> = {
  name: 'envelope',
  version: 1,
  maxBytes: MAX_ENVELOPE_BYTES,
  schema: v.strictObject({
    v: v.literal(1),
    payload: v.pipe(v.instance(Uint8Array), v.maxLength(MAX_PAYLOAD_BYTES)),
    signer: bytesOf(PUBLIC_KEY_BYTES),
    signature: bytesOf(SIGNATURE_BYTES),
  }),
};

/** The private key of a 32-byte ed25519 seed, as the system's crypto keeps it. */
export function privateKeyOf(seed: Uint8Array): KeyObject {
  if (seed.length !== SEED_BYTES)
    throw new DezentError('KEYS', `an ed25519 seed has ${SEED_BYTES} bytes, not ${seed.length}`);
  return createPrivateKey({ key: Buffer.concat([PRIVATE_DER, seed]), format: 'der', type: 'pkcs8' });
}

/** The signing key of a 32-byte seed; the seed is not kept in any property. Throws KEYS for another length. */
export function signingKeyFromSeed(seed: Uint8Array): SigningKey {
  const key = privateKeyOf(seed);
  const der = createPublicKey(key).export({ format: 'der', type: 'spki' });
  return {
    publicKey: new Uint8Array(der.subarray(PUBLIC_DER.length)),
    sign: (bytes) => new Uint8Array(edSign(null, bytes, key)),
  };
}

function signedBytes(kind: string, groupId: Uint8Array | null, payload: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`dezent/${kind}/1\0`, 'utf8'), groupId ?? NO_GROUP, payload]);
}

/** Signs the payload for this purpose and group (null: before there is one). */
export function sign(kind: string, groupId: Uint8Array | null, payload: Uint8Array, key: SigningKey): Envelope {
  return { payload, signer: key.publicKey, signature: key.sign(signedBytes(kind, groupId, payload)) };
}

/** Throws BAD_RECORD unless the signer signed exactly this payload for this purpose and group. */
export function verify(kind: string, groupId: Uint8Array | null, envelope: Envelope): void {
  const key = publicKeyObject(envelope.signer);
  if (key === undefined || !edVerify(null, signedBytes(kind, groupId, envelope.payload), key, envelope.signature))
    throw new DezentError('BAD_RECORD', `the signature of a ${kind} is not valid`);
}

function publicKeyObject(publicKey: Uint8Array): KeyObject | undefined {
  if (publicKey.length !== PUBLIC_KEY_BYTES) return undefined;
  return createPublicKey({ key: Buffer.concat([PUBLIC_DER, publicKey]), format: 'der', type: 'spki' });
}

export function encodeEnvelope({ payload, signer, signature }: Envelope): Uint8Array {
  return encodeRecord(envelopeFormat, { v: 1, payload, signer, signature });
}

/** The inverse of {@link encodeEnvelope}; checks form and size only. Throws BAD_RECORD, NEWER_VERSION. */
export function decodeEnvelope(bytes: Uint8Array): Envelope {
  const { payload, signer, signature } = decodeRecord(envelopeFormat, bytes);
  return { payload, signer, signature };
}

/** The name of a payload: its blake3 hash. */
export function hashOf(payload: Uint8Array): Uint8Array {
  return new Uint8Array(blake3(payload));
}

/** Text of a 32-byte owner key or group id: multibase base32, 53 characters from "b". */
export function idText(bytes: Uint8Array): string {
  return base32.encode(bytes);
}

/** The inverse of {@link idText}; throws BAD_RECORD for anything but the one spelling of 32 bytes. */
export function idBytes(text: string): Uint8Array {
  if (!ID_TEXT.test(text)) throw new DezentError('BAD_RECORD', `not an id: ${JSON.stringify(text.slice(0, 80))}`);
  return base32.decode(text);
}

/** The libp2p peer id ("12D3Koo…") of an ed25519 public key. */
export function peerIdOf(publicKey: Uint8Array): string {
  const bytes = new Uint8Array(PEER_ID_PREFIX.length + publicKey.length);
  bytes.set(PEER_ID_PREFIX);
  bytes.set(publicKey, PEER_ID_PREFIX.length);
  return base58btc.baseEncode(bytes);
}

/** The ed25519 public key in a peer id; throws BAD_RECORD for other kinds of key and other spellings. */
export function publicKeyOf(peerId: string): Uint8Array {
  if (!isPeerId(peerId)) throw new DezentError('BAD_RECORD', `not a peer id: ${JSON.stringify(peerId.slice(0, 80))}`);
  return new Uint8Array(base58btc.baseDecode(peerId).subarray(PEER_ID_PREFIX.length));
}

/** A peer id of an ed25519 key, in its one spelling. */
export const peerIdSchema: v.GenericSchema<string> = v.pipe(
  v.string(),
  v.maxLength(64),
  v.check(isPeerId, 'not a peer id'),
);

function isPeerId(text: string): boolean {
  return PEER_ID_TEXT.test(text) && peerIdOf(base58btc.baseDecode(text).subarray(PEER_ID_PREFIX.length)) === text;
}
