// An owner's record: the devices, and the secrets sealed to them. Signed by the phrase's key or by an admin device. Which devices are admins is
// part of a statement that only the phrase can sign, so a record proves itself: whoever has just joined needs no older ones to judge it.
//
// Statement ("fixed"), signature kind "owner-fixed", signer = owner. DAG-CBOR map, version 1:
//   v         int    1
//   group     bytes  32
//   owner     bytes  32
//   term      int    1 … 2⁴⁸, one more each time the phrase is used: no admin device can outrun the phrase
//   nonce     bytes  16, random: two statements of one term differ
//   recovery  bytes  32, X25519
//   guest     text   peer id of the recovery guest
//   admins    list   ≤ 64 peer ids
// Record, signature kind "owner-record", signer = owner or one of `admins`. DAG-CBOR map, version 1:
//   v         int    1
//   group     bytes  32
//   owner     bytes  32
//   seq       int    1 … 2⁴⁸
//   prev      list   ≤ 16 × 32 bytes, hashes of the records it follows: one, more when it merges a fork
//   fixed     bytes  ≤ 8 KiB, the statement's envelope
//   devices   list   ≤ 64 × {peerId, x25519: 32 bytes, name ≤ 128 bytes, machine: 26 characters, proof: 64 bytes}
//   revoked   list   ≤ 256 × {peerId, by: peer id or null, heads: ≤ 64 × {incarnation: 8 bytes, seq}}
//   guests    list   ≤ 256 × {peerId, right: "join" | "recover" | "read", until: ms}
//   split     map    {recovery: 80 bytes, sealed: ≤ 64 × [x25519 32, 80 bytes]}
//   epochs    list   1 … 256 × {id: 8 bytes, recovery, sealed}, oldest first
// Proof: the device's signature, kind "device", over DAG-CBOR {owner, x25519}: nobody lists a device that does not want it.
// Sealed bytes: sealed-box.ts, info = `dezent/seal/1\0 ‖ group ‖ owner`, aad = "split" or the epoch's id.
import { encode } from '@ipld/dag-cbor';
import * as v from 'valibot';
import { DezentError } from '../errors.ts';
import { INCARNATION_BYTES } from '../store/catalog.ts';
import { EPOCH_ID_BYTES, SECRET_BYTES } from '../store/secrets.ts';
import { bytesOf, count, decodeRecord, encodeRecord, nameOf, seq, type RecordFormat } from './record-codec.ts';
import { BOX_KEY_BYTES, SEALED_OVERHEAD_BYTES } from './sealed-box.ts';
import {
  decodeEnvelope,
  encodeEnvelope,
  HASH_BYTES,
  hashOf,
  idBytes,
  idText,
  peerIdOf,
  peerIdSchema,
  PUBLIC_KEY_BYTES,
  publicKeyOf,
  sign,
  SIGNATURE_BYTES,
  verify,
  type Envelope,
  type SigningKey,
} from './signature.ts';

/** A person's machines; each costs 116 bytes in every epoch. */
export const MAX_DEVICES = 64;
export const MAX_REVOKED = 256;
export const MAX_GUESTS = 256;
export const MAX_EPOCHS = 256;
/** Incarnations of one device; a new one means that it was restored from an image. */
export const MAX_INCARNATIONS = 64;
/** Forks that one record may merge. */
export const MAX_PREV = 16;
/** Half a hello. Ten devices and a hundred epochs fit. */
const MAX_RECORD_BYTES: number = 128 * 1024;
const MAX_FIXED_BYTES: number = 8 * 1024;
const MAX_NAME_BYTES = 128;
export const FIXED_NONCE_BYTES = 16;

export interface Device {
  peerId: string;
  /** X25519 public key. */
  x25519: Uint8Array;
  name: string;
  /** machine-id.ts. */
  machine: string;
  /** {@link proveDevice}. */
  proof: Uint8Array;
}

export interface Revoked {
  peerId: string;
  /** The device that inherits its receipts. */
  by: string | null;
  /** Where its logs end for everybody: the seq of the last head of each incarnation that counts. */
  heads: { incarnation: Uint8Array; seq: number }[];
}

export interface OwnerGuest {
  peerId: string;
  right: 'join' | 'recover' | 'read';
  /** ms since 1970. */
  until: number;
}

/** One secret, for the recovery key and for devices (by their X25519 key). */
export interface SealedSecret {
  recovery: Uint8Array;
  sealed: [to: Uint8Array, bytes: Uint8Array][];
}

export interface SealedEpoch extends SealedSecret {
  id: Uint8Array;
}

/** What only the phrase can say. */
export interface Fixed {
  term: number;
  nonce: Uint8Array;
  recovery: Uint8Array;
  guest: string;
  admins: string[];
}

export interface OwnerRecord {
  owner: string;
  seq: number;
  prev: Uint8Array[];
  fixed: Fixed;
  /** The statement as it was signed. */
  fixedEnvelope: Uint8Array;
  devices: Device[];
  revoked: Revoked[];
  guests: OwnerGuest[];
  split: SealedSecret;
  epochs: SealedEpoch[];
}

/** A record whose signatures hold. */
export interface SignedOwnerRecord extends OwnerRecord {
  envelope: Envelope;
  /** {@link hashOf} of the payload. */
  hash: Uint8Array;
  /** "phrase", or the admin device's peer id. */
  signedBy: string;
}

export const nameSchema: v.GenericSchema<string> = nameOf(MAX_NAME_BYTES);
export const machineSchema: v.GenericSchema<string> = v.pipe(v.string(), v.regex(/^[a-z2-7]{26}$/));
const sealedBytes = bytesOf(SECRET_BYTES + SEALED_OVERHEAD_BYTES);
const sealedFields = {
  recovery: sealedBytes,
  sealed: v.pipe(v.array(v.strictTuple([bytesOf(BOX_KEY_BYTES), sealedBytes])), v.maxLength(MAX_DEVICES)),
};
const fixedSchema = v.strictObject({
  v: v.literal(1),
  group: bytesOf(HASH_BYTES),
  owner: bytesOf(PUBLIC_KEY_BYTES),
  term: seq,
  nonce: bytesOf(FIXED_NONCE_BYTES),
  recovery: bytesOf(BOX_KEY_BYTES),
  guest: peerIdSchema,
  admins: v.pipe(v.array(peerIdSchema), v.maxLength(MAX_DEVICES)),
});
const frozenSchema = v.pipe(
  v.array(v.strictObject({ incarnation: bytesOf(INCARNATION_BYTES), seq })),
  v.maxLength(MAX_INCARNATIONS),
);
const recordSchema = v.strictObject({
  v: v.literal(1),
  group: bytesOf(HASH_BYTES),
  owner: bytesOf(PUBLIC_KEY_BYTES),
  seq,
  prev: v.pipe(v.array(bytesOf(HASH_BYTES)), v.maxLength(MAX_PREV)),
  fixed: v.pipe(v.instance(Uint8Array), v.maxLength(MAX_FIXED_BYTES)),
  devices: v.pipe(
    v.array(
      v.strictObject({
        peerId: peerIdSchema,
        x25519: bytesOf(BOX_KEY_BYTES),
        name: nameSchema,
        machine: machineSchema,
        proof: bytesOf(SIGNATURE_BYTES),
      }),
    ),
    v.maxLength(MAX_DEVICES),
  ),
  revoked: v.pipe(
    v.array(v.strictObject({ peerId: peerIdSchema, by: v.nullable(peerIdSchema), heads: frozenSchema })),
    v.maxLength(MAX_REVOKED),
  ),
  guests: v.pipe(
    v.array(v.strictObject({ peerId: peerIdSchema, right: v.picklist(['join', 'recover', 'read']), until: count })),
    v.maxLength(MAX_GUESTS),
  ),
  split: v.strictObject(sealedFields),
  epochs: v.pipe(
    v.array(v.strictObject({ id: bytesOf(EPOCH_ID_BYTES), ...sealedFields })),
    v.minLength(1),
    v.maxLength(MAX_EPOCHS),
  ),
});
const fixedFormat: RecordFormat<v.InferOutput<typeof fixedSchema>> = {
  name: 'owner statement',
  version: 1,
  maxBytes: MAX_FIXED_BYTES,
  schema: fixedSchema,
};
const recordFormat: RecordFormat<v.InferOutput<typeof recordSchema>> = {
  name: 'owner record',
  version: 1,
  maxBytes: MAX_RECORD_BYTES,
  schema: recordSchema,
};

/** The statement, signed with the phrase's key and encoded: `fixedEnvelope` of the records that rest on it. */
export function signFixed(groupId: Uint8Array, fixed: Fixed, phraseKey: SigningKey): Uint8Array {
  const payload = encodeRecord(fixedFormat, { v: 1, group: groupId, owner: phraseKey.publicKey, ...fixed });
  return encodeEnvelope(sign('owner-fixed', groupId, payload, phraseKey));
}

/** Signs with the phrase's key or an admin device's. Throws BAD_RECORD for a record that others would refuse. */
export function signOwnerRecord(groupId: Uint8Array, record: OwnerRecord, key: SigningKey): SignedOwnerRecord {
  const { owner, fixedEnvelope, fixed: _stated, ...rest } = record;
  const payload = encodeRecord(recordFormat, {
    v: 1,
    group: groupId,
    ...rest,
    owner: idBytes(owner),
    fixed: fixedEnvelope,
  });
  return verifyOwnerRecord(groupId, sign('owner-record', groupId, payload, key));
}

/** The record in the envelope; throws BAD_RECORD unless the phrase or one of its admin devices signed it for this group, NEWER_VERSION. */
export function verifyOwnerRecord(groupId: Uint8Array, envelope: Envelope): SignedOwnerRecord {
  const {
    v: _version,
    group,
    owner: ownerKey,
    fixed: fixedEnvelope,
    ...rest
  } = decodeRecord(recordFormat, envelope.payload);
  if (Buffer.compare(group, groupId) !== 0) throw new DezentError('BAD_RECORD', 'the owner record is of another group');
  verify('owner-record', groupId, envelope);
  const owner = idText(ownerKey);
  const fixed = verifyFixed(groupId, owner, fixedEnvelope);
  const signer = peerIdOf(envelope.signer);
  const signedBy = idText(envelope.signer) === owner ? 'phrase' : signer;
  if (signedBy !== 'phrase' && !fixed.admins.includes(signer))
    throw new DezentError('BAD_RECORD', `${signer} is no admin device of owner ${owner}`);
  const record = { owner, ...rest, fixed, fixedEnvelope, envelope, hash: hashOf(envelope.payload), signedBy };
  checkLists(record);
  for (const device of record.devices) verifyDevice(groupId, owner, device);
  return record;
}

/** The device's own word that it belongs to this owner and has this X25519 key. */
export function proveDevice(groupId: Uint8Array, owner: string, x25519: Uint8Array, key: SigningKey): Uint8Array {
  return sign('device', groupId, encode({ owner: idBytes(owner), x25519 }), key).signature;
}

function verifyDevice(groupId: Uint8Array, owner: string, { peerId, x25519, proof }: Device): void {
  const payload = encode({ owner: idBytes(owner), x25519 });
  verify('device', groupId, { payload, signer: publicKeyOf(peerId), signature: proof });
}

function verifyFixed(groupId: Uint8Array, owner: string, bytes: Uint8Array): Fixed {
  const envelope = decodeEnvelope(bytes);
  verify('owner-fixed', groupId, envelope);
  const { v: _version, group, owner: stated, ...fixed } = decodeRecord(fixedFormat, envelope.payload);
  const right = Buffer.compare(group, groupId) === 0 && idText(envelope.signer) === owner && idText(stated) === owner;
  if (!right) throw new DezentError('BAD_RECORD', `the statement in a record of owner ${owner} is another's`);
  return fixed;
}

/** Names stand once, nobody is both listed and revoked, and nobody revokes itself (else a thief could void the record that revokes it). */
function checkLists({ devices, revoked, epochs, signedBy, owner }: SignedOwnerRecord): void {
  const listed = [...devices, ...revoked].map(({ peerId }) => peerId);
  const epochIds = epochs.map(epochKey);
  const once = new Set(listed).size === listed.length && new Set(epochIds).size === epochIds.length;
  if (!once) throw new DezentError('BAD_RECORD', `a record of owner ${owner} names a device or an epoch twice`);
  if (revoked.some(({ peerId }) => peerId === signedBy))
    throw new DezentError('BAD_RECORD', `${signedBy} revokes itself; another device or the phrase must do that`);
}

/** What names an epoch for good: its id and what is sealed to the recovery key, so that no later record can spoil it. */
export function epochKey({ id, recovery }: SealedEpoch): string {
  return Buffer.concat([id, recovery]).toString('base64');
}
