// One entry of the member list. Each names the whole state, and its parents by their hash; the hash of the first is the group's id, so the list
// proves itself. What a set of entries says together, forks included, is judged in list-view.ts.
//
// Entry, DAG-CBOR map, version 1. Signature kind "member-list" with the group id, also for the first.
//   v        int    1
//   group    bytes  32; null in the first entry
//   nonce    bytes  16, random, in the first entry; null in all others
//   seq      int    1 in the first entry, then 1 + the highest of the parents
//   prev     list   ≤ 16 × 32 bytes, hashes of the parents: one, more when it merges a fork, none in the first
//   by       bytes  32, the owner in whose name it is signed. The first is signed by that owner's phrase key, the founder's;
//                   all others by an admin device of that owner
//   owners   list   1 … 512 × {owner: 32 bytes, admin: bool}, ascending
//   vaults   list   ≤ 128 × {peerId, x25519: 32 bytes or null, name ≤ 128 bytes, machine: 26 characters}, ascending
//   removed  list   ≤ 1,024 owner ids (32 bytes) and vaults' public keys (32 bytes), ascending
import { randomBytes } from 'node:crypto';
import * as v from 'valibot';
import { DezentError } from '../errors.ts';
import { machineSchema, nameSchema } from './owner-record.ts';
import { bytesOf, decodeRecord, encodeRecord, seq, type RecordFormat } from './record-codec.ts';
import { BOX_KEY_BYTES } from './sealed-box.ts';
import {
  HASH_BYTES,
  hashOf,
  idBytes,
  idText,
  peerIdSchema,
  PUBLIC_KEY_BYTES,
  publicKeyOf,
  sign,
  verify,
  type Envelope,
  type SigningKey,
} from './signature.ts';

export const MAX_OWNERS = 512;
export const MAX_VAULTS = 128;
export const MAX_REMOVED = 1024;
export const MAX_PARENTS = 16;
/** All lists at their limits, with short names. */
const MAX_ENTRY_BYTES: number = 128 * 1024;
const NONCE_BYTES = 16;

/** A machine that keeps blocks for the group and belongs to no owner. */
export interface VaultInfo {
  peerId: string;
  /** X25519 public key, 32 bytes. */
  x25519?: Uint8Array;
  name: string;
  machine: string;
}

/** The state that an entry names. Ids are texts: of owners (idText), of vaults their key as idText in `removed`, their peer id elsewhere. */
export interface ListState {
  owners: Map<string, { admin: boolean }>;
  vaults: Map<string, VaultInfo>;
  removed: Set<string>;
}

/** An entry whose signature holds; whether its signer had the right is judged with all others. */
export interface SignedEntry extends ListState {
  seq: number;
  /** Hashes of the parents, as hex. */
  prev: string[];
  /** Owner id. */
  by: string;
  envelope: Envelope;
  /** {@link hashOf} of the payload, as hex. */
  hash: string;
}

/** A vault as it is encoded; absent is null. */
export type EncodedVault = Omit<VaultInfo, 'x25519'> & { x25519: Uint8Array | null };

export const vaultSchema: v.GenericSchema<EncodedVault> = v.strictObject({
  peerId: peerIdSchema,
  x25519: v.nullable(bytesOf(BOX_KEY_BYTES)),
  name: nameSchema,
  machine: machineSchema,
});
const entrySchema = v.strictObject({
  v: v.literal(1),
  group: v.nullable(bytesOf(HASH_BYTES)),
  nonce: v.nullable(bytesOf(NONCE_BYTES)),
  seq,
  prev: v.pipe(v.array(bytesOf(HASH_BYTES)), v.maxLength(MAX_PARENTS)),
  by: bytesOf(PUBLIC_KEY_BYTES),
  owners: v.pipe(
    v.array(v.strictObject({ owner: bytesOf(PUBLIC_KEY_BYTES), admin: v.boolean() })),
    v.minLength(1),
    v.maxLength(MAX_OWNERS),
  ),
  vaults: v.pipe(v.array(vaultSchema), v.maxLength(MAX_VAULTS)),
  removed: v.pipe(v.array(bytesOf(PUBLIC_KEY_BYTES)), v.maxLength(MAX_REMOVED)),
});
type EncodedEntry = v.InferOutput<typeof entrySchema>;
const entryFormat: RecordFormat<EncodedEntry> = {
  name: 'member list entry',
  version: 1,
  maxBytes: MAX_ENTRY_BYTES,
  schema: entrySchema,
};

/** The first entry of a new group, and with it the group's id. `founder` is the phrase's signing key. */
export function foundList(founder: SigningKey): { groupId: Uint8Array; entry: SignedEntry } {
  const payload = encodeRecord(entryFormat, {
    v: 1,
    group: null,
    nonce: new Uint8Array(randomBytes(NONCE_BYTES)),
    seq: 1,
    prev: [],
    by: founder.publicKey,
    owners: [{ owner: founder.publicKey, admin: true }],
    vaults: [],
    removed: [],
  });
  const groupId = hashOf(payload);
  return { groupId, entry: verifyEntry(groupId, sign('member-list', groupId, payload, founder)) };
}

/** Signs the entry that follows `parents` (1 … 16 of them) and names `state`; `key` is an admin device's of the owner `by`. */
export function signEntry(
  groupId: Uint8Array,
  parents: readonly SignedEntry[],
  { owners, vaults, removed }: ListState,
  { by, key }: { by: string; key: SigningKey },
): SignedEntry {
  const payload = encodeRecord(entryFormat, {
    v: 1,
    group: groupId,
    nonce: null,
    seq: Math.max(...parents.map((parent) => parent.seq)) + 1,
    prev: parents.map(({ hash }) => new Uint8Array(Buffer.from(hash, 'hex'))).sort(Buffer.compare),
    by: idBytes(by),
    owners: [...owners]
      .map(([owner, { admin }]) => ({ owner: idBytes(owner), admin }))
      .sort((a, b) => Buffer.compare(a.owner, b.owner)),
    vaults: [...vaults.values()]
      .map((vault) => ({ ...vault, x25519: vault.x25519 ?? null }))
      .sort((a, b) => compareText(a.peerId, b.peerId)),
    removed: [...removed].map(idBytes).sort(Buffer.compare),
  });
  return verifyEntry(groupId, sign('member-list', groupId, payload, key));
}

/** The entry in the envelope; throws BAD_RECORD unless it is well formed, of this group, and signed by whoever it says; NEWER_VERSION. */
export function verifyEntry(groupId: Uint8Array, envelope: Envelope): SignedEntry {
  const encoded = decodeRecord(entryFormat, envelope.payload);
  const hash = hashOf(envelope.payload);
  checkForm(groupId, encoded, hash);
  verify('member-list', groupId, envelope);
  if (encoded.group === null && Buffer.compare(envelope.signer, encoded.by) !== 0)
    throw new DezentError('BAD_RECORD', 'the first entry of a member list is not signed by its founder');
  return {
    seq: encoded.seq,
    prev: encoded.prev.map(toHex),
    by: idText(encoded.by),
    owners: new Map(encoded.owners.map(({ owner, admin }) => [idText(owner), { admin }])),
    vaults: new Map(
      encoded.vaults.map(({ x25519, ...vault }) => [vault.peerId, { ...vault, ...(x25519 && { x25519 }) }]),
    ),
    removed: new Set(encoded.removed.map(idText)),
    envelope,
    hash: toHex(hash),
  };
}

function checkForm(groupId: Uint8Array, entry: EncodedEntry, hash: Uint8Array): void {
  const isFirst = entry.group === null;
  const named = entry.group ?? hash;
  if (Buffer.compare(named, groupId) !== 0)
    throw new DezentError('BAD_RECORD', 'a member list entry is of another group');
  const place = isFirst
    ? entry.seq === 1 && entry.prev.length === 0 && entry.nonce !== null && entry.owners.length === 1
    : entry.seq > 1 && entry.prev.length > 0 && entry.nonce === null;
  const removed = new Set(entry.removed.map(toHex));
  const listed = [...entry.owners.map(({ owner }) => owner), ...entry.vaults.map(({ peerId }) => publicKeyOf(peerId))];
  const right =
    place &&
    isAscending(entry.prev, Buffer.compare) &&
    isAscending(entry.removed, Buffer.compare) &&
    isAscending(
      entry.owners.map(({ owner }) => owner),
      Buffer.compare,
    ) &&
    isAscending(
      entry.vaults.map(({ peerId }) => peerId),
      compareText,
    ) &&
    listed.every((key) => !removed.has(toHex(key))) &&
    !removed.has(toHex(entry.by));
  if (!right) throw new DezentError('BAD_RECORD', 'a member list entry contradicts itself or is out of order');
}

function isAscending<T>(items: readonly T[], compare: (a: T, b: T) => number): boolean {
  return items.every((item, index) => index === 0 || compare(items[index - 1] as T, item) < 0);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
