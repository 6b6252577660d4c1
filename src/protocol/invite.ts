// Invites, and the claims by which a guest proves its one narrow right. An invite is text to copy or scan: it carries the 16-byte seed of a guest
// key that the inviter knows by its public half; it is secret until used, and far too long to guess.
//
// Invite = "dezent-invite-1-" ‖ base32 (RFC 4648, lower case, no padding) of: DAG-CBOR map ‖ first 4 bytes of its blake3 hash
//   v      int    1
//   group  bytes  32
//   seed   bytes  16; guest key = ed25519 from HKDF-SHA256(seed, "dezent/1/invite/guest")
//   peer   text   peer id of the inviter
//   addrs  list   ≤ 8 multiaddrs as text, ≤ 256 bytes each
//   vault  bool
// Claim, signature kind "claim", signer = the guest's key. DAG-CBOR map, version 1:
//   v       int   1
//   right   text  "join" | "recover" | "read"
//   device  text  peer id of who claims; Noise proves it, so a claim cannot be replayed by another
//   to      text  peer id of who is asked
//   vault   map   null, or (join only) {peerId = device, x25519: 32 bytes or null, name, machine}
import { randomBytes } from 'node:crypto';
import { base32 } from 'multiformats/bases/base32';
import * as v from 'valibot';
import { DezentError } from '../errors.ts';
import { derive } from '../store/secrets.ts';
import { vaultSchema, type VaultInfo } from './member-list.ts';
import { bytesOf, decodeRecord, encodeRecord, type RecordFormat } from './record-codec.ts';
import {
  HASH_BYTES,
  hashOf,
  peerIdOf,
  peerIdSchema,
  sign,
  signingKeyFromSeed,
  verify,
  type Envelope,
  type SigningKey,
} from './signature.ts';

export type { VaultInfo };

export const GUEST_SEED_BYTES = 16;
/** A machine's addresses on a LAN, a VPN and the Internet; more make the text unwieldy. */
export const INVITE_MAX_ADDRS = 8;
const MAX_ADDR_BYTES = 256;
const MAX_INVITE_BYTES = 2560;
const MAX_CLAIM_BYTES = 1024;
const CHECKSUM_BYTES = 4;
const PREFIX = 'dezent-invite-';
const VERSION = 1;

export type GuestRight = 'join' | 'recover' | 'read';

/** What an invite text says. The guest's seed is in the text only. */
export interface Invite {
  groupId: Uint8Array;
  /** Signs the claim to join. */
  guest: SigningKey;
  /** The inviter's peer id and addresses. */
  peerId: string;
  addrs: string[];
  vault: boolean;
}

/** Signed by the guest's key, for one device and one inviter. */
export interface Claim {
  right: GuestRight;
  /** Peer ids: who claims, and to whom. */
  device: string;
  to: string;
  /** With right "join" and a vault invite. */
  vault?: VaultInfo;
}

/** A guest whose claim holds. */
export type Guest =
  | { right: 'join'; vault?: VaultInfo }
  | { right: 'recover'; owner: string }
  | { right: 'read'; owner: string };

const inviteSchema = v.strictObject({
  v: v.literal(VERSION),
  group: bytesOf(HASH_BYTES),
  seed: bytesOf(GUEST_SEED_BYTES),
  peer: peerIdSchema,
  addrs: v.pipe(
    v.array(v.pipe(v.string(), v.maxBytes(MAX_ADDR_BYTES), v.startsWith('/'))),
    v.maxLength(INVITE_MAX_ADDRS),
  ),
  vault: v.boolean(),
});
const claimSchema = v.strictObject({
  v: v.literal(1),
  right: v.picklist(['join', 'recover', 'read']),
  device: peerIdSchema,
  to: peerIdSchema,
  vault: v.nullable(vaultSchema),
});
const inviteFormat: RecordFormat<v.InferOutput<typeof inviteSchema>> = {
  name: 'invite',
  version: VERSION,
  maxBytes: MAX_INVITE_BYTES,
  schema: inviteSchema,
};
const claimFormat: RecordFormat<v.InferOutput<typeof claimSchema>> = {
  name: 'claim',
  version: 1,
  maxBytes: MAX_CLAIM_BYTES,
  schema: claimSchema,
};

/** A new guest's seed, never short enough to guess. */
export function newGuestSeed(): Uint8Array {
  return new Uint8Array(randomBytes(GUEST_SEED_BYTES));
}

export function guestKeyOf(guestSeed: Uint8Array): SigningKey {
  return signingKeyFromSeed(derive(guestSeed, 'invite/guest'));
}

/** The text to hand over. Addresses beyond {@link INVITE_MAX_ADDRS} are left out. */
export function encodeInvite(invite: Omit<Invite, 'guest'> & { guestSeed: Uint8Array }): string {
  const { groupId, guestSeed, peerId, addrs, vault } = invite;
  const short = addrs.slice(0, INVITE_MAX_ADDRS);
  const bytes = encodeRecord(inviteFormat, {
    v: VERSION,
    group: groupId,
    seed: guestSeed,
    peer: peerId,
    addrs: short,
    vault,
  });
  return `${PREFIX}${VERSION}-${base32.baseEncode(Buffer.concat([bytes, hashOf(bytes).subarray(0, CHECKSUM_BYTES)]))}`;
}

/** The inverse of {@link encodeInvite}; white space and case do not matter. Throws INVITE when it is cut or mistyped, NEWER_VERSION. */
export function decodeInvite(text: string): Invite {
  const plain = text.replaceAll(/\s/gu, '').toLowerCase();
  const [, version, body] = /^dezent-invite-([0-9]{1,4})-([a-z2-7]+)$/.exec(plain) ?? [];
  if (version !== undefined && Number(version) > VERSION)
    throw new DezentError('NEWER_VERSION', `the invite has version ${version}, this program knows ${VERSION}`);
  if (body === undefined || plain.length > 2 * MAX_INVITE_BYTES) throw notAnInvite();
  const { group, seed, peer, addrs, vault } = decodeRecordOfInvite(body);
  return { groupId: group, guest: guestKeyOf(seed), peerId: peer, addrs, vault };
}

function decodeRecordOfInvite(body: string): v.InferOutput<typeof inviteSchema> {
  try {
    const bytes = base32.baseDecode(body);
    const record = bytes.subarray(0, -CHECKSUM_BYTES);
    const checksum = bytes.subarray(-CHECKSUM_BYTES);
    if (Buffer.compare(hashOf(record).subarray(0, CHECKSUM_BYTES), checksum) !== 0) throw notAnInvite();
    return decodeRecord(inviteFormat, record);
  } catch (error) {
    if (error instanceof DezentError && error.code === 'NEWER_VERSION') throw error;
    throw notAnInvite(error);
  }
}

function notAnInvite(cause?: unknown): DezentError {
  const hint = 'Copy the whole text from "dezent-invite-" to its end, or ask for a new one (`dezent invite`).';
  return new DezentError('INVITE', 'this is not a whole invite', { hint, cause });
}

export function signClaim(groupId: Uint8Array, claim: Claim, guest: SigningKey): Envelope {
  const { right, device, to, vault } = claim;
  const info = vault === undefined ? null : { ...vault, x25519: vault.x25519 ?? null };
  return sign('claim', groupId, encodeRecord(claimFormat, { v: 1, right, device, to, vault: info }), guest);
}

/** The claim and the peer id of the guest's key; whether that guest has the right is the group's to say. Throws BAD_RECORD, NEWER_VERSION. */
export function verifyClaim(groupId: Uint8Array, envelope: Envelope): Claim & { guest: string } {
  verify('claim', groupId, envelope);
  const { right, device, to, vault } = decodeRecord(claimFormat, envelope.payload);
  const isOwn = vault === null || (right === 'join' && vault.peerId === device);
  if (!isOwn) throw new DezentError('BAD_RECORD', 'a claim names another machine as vault');
  const claim = { right, device, to, guest: peerIdOf(envelope.signer) };
  if (vault === null) return claim;
  const { x25519, ...info } = vault;
  return { ...claim, vault: { ...info, ...(x25519 && { x25519 }) } };
}
