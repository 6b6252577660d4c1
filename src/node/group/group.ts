// The group as this node knows it: member list, owner records and heads, durable; who may do what, and who is let in.
// Everything asked of it is judged from the signed records held, so the order in which they came does not matter.
import { DezentError, isDezentError } from '../../errors.ts';
import { MAX_ENTRIES, MAX_HEADS, MAX_OWNER_RECORDS, type GroupRecords } from '../../protocol/group-records.ts';
import { recordsOf, type GroupState } from '../../protocol/group-state.ts';
import type { Head } from '../../protocol/head.ts';
import type { Guest } from '../../protocol/invite.ts';
import { verifyEntry, type SignedEntry } from '../../protocol/member-list.ts';
import { verifyOwnerRecord, type SignedOwnerRecord } from '../../protocol/owner-record.ts';
import { hashOf, type Envelope } from '../../protocol/signature.ts';
import type { OpenedSecrets } from '../../store/secrets.ts';
import { openAdmission } from './admission.ts';
import { makeAdmin, mend, removeFromList, revoke } from './group-changes.ts';
import { openGroupCore, type Change, type GroupCore, type GroupNeeds, type GroupSettings } from './group-core.ts';
import { encodingOf, envelopeOf } from './group-store.ts';
import { headKey, readHead, type HeldHead } from './head-book.ts';

/** What a peer is to this group. */
export type Role =
  | { role: 'member'; owner: string; name: string; machine: string; admin: boolean }
  | { role: 'vault'; owner: null; name: string; machine: string }
  | { role: 'guest'; right: 'read'; owner: string };

export interface Member {
  peerId: string;
  /** Owner id; null for a vault. */
  owner: string | null;
  name: string;
  /** Keyed hash of the machine's identity: equal for nodes on one machine. */
  machine: string;
  role: 'device' | 'vault';
  /** An admin device of its owner. */
  admin: boolean;
}

export interface MergeResult {
  changed: boolean;
  /** Why single records were not taken over: older than held, signer not (yet) known. For the log. */
  refused: string[];
}

export interface InviteRequest {
  /** The invited device keeps blocks but no files of an owner. */
  vault: boolean;
  /** How many owners (or vaults) may use it. */
  uses: number;
  ttlMs: number;
  /** Multiaddrs of this node, with or without /p2p/. */
  addrs: string[];
}

export interface JoinRequest {
  /** Peer id proven by Noise. */
  device: string;
  /** Encoded envelope: the guest's claim (invite.ts). */
  claim: Uint8Array;
  /** The joiner's owner record; empty for a vault. */
  records: GroupRecords;
}

export interface Group {
  /** Text (multibase base32) and bytes (32). */
  readonly groupId: string;
  readonly groupIdBytes: Uint8Array;
  /** This device's owner; empty text on a vault. */
  readonly ownerId: string;
  /** This device's peer id. */
  readonly deviceId: string;
  /** Names of stored records that could not be read on opening; peers give them again. For a warning. */
  readonly damaged: readonly string[];
  /** The role of a peer by the records held; undefined: none, it gets hello only. Revoked devices have none. */
  roleOf(peerId: string): Role | undefined;
  /** All devices and vaults, this one included, ascending by peer id. */
  members(): Member[];
  /** The own owner's secrets; throws KEYS while no owner record held can be opened by this device, NOT_ALLOWED on a vault. */
  secrets(): OpenedSecrets;
  /** What other members should have: for records and for a recovery guest. */
  records(): GroupRecords;
  /**
   * Verifies everything, keeps what is new, durably, before it returns; all of it or, when it rejects, nothing.
   * Records that are older or cannot be judged are left out and named. Throws BAD_RECORD for what is forged, malformed or too
   * much. Anybody may offer records: each stands by its signatures.
   */
  merge(records: GroupRecords, from: string): Promise<MergeResult>;
  /** Keeps the head, durably. Throws BAD_RECORD when its seq is lower than held, or equal with other bytes, or its device is no member. */
  putHead(envelope: Envelope): Promise<void>;
  heads(): Head[];
  headOf(device: string, incarnation: Uint8Array): Head | undefined;
  /** The text of a new invite. Throws NOT_ALLOWED, naming who can, unless this is an admin device of the founder or an admin owner. */
  createInvite(request: InviteRequest): Promise<string>;
  /** Checks a guest's claim made by `device` to this device. Throws INVITE (unknown, expired, used) or BAD_RECORD. */
  guestOf(claim: Uint8Array, device: string): Guest;
  /** Marks the invite used for this owner and device and appends to the member list, durably in one; the same may ask again. Throws INVITE, BAD_RECORD. */
  join(request: JoinRequest): Promise<'admitted'>;
  /**
   * Revokes a device of the own owner: a new epoch, its log frozen where it is known, this device inherits its receipts; or takes a vault off
   * the list. Throws NOT_ALLOWED naming who can, NOT_FOUND.
   */
  revoke(peerId: string): Promise<void>;
  /** Takes an owner with all devices off the member list. Throws NOT_ALLOWED, NOT_FOUND. */
  removeOwner(ownerId: string): Promise<void>;
  /** Lets an owner's admin devices sign the member list too. Throws NOT_ALLOWED, NOT_FOUND. */
  makeAdmin(ownerId: string): Promise<void>;
  /** After every change of what is held: members (list and owner records) or heads. Returns the way to stop. A listener must not throw. */
  onChange(listener: (what: Change) => void): () => void;
}

/** Opens the group on this device's state. Empty at first: `init` merges the records that it founded or was given. Throws IO. */
export async function openGroup(needs: GroupNeeds, settings: GroupSettings): Promise<Group> {
  const core = await openGroupCore(needs, settings);
  const admission = await openAdmission(needs.db, core);
  let roles = rolesOf(core.state());
  core.onChange((what) => {
    if (what === 'members') roles = rolesOf(core.state());
  });

  return {
    groupId: settings.groupId,
    groupIdBytes: core.groupId,
    ownerId: core.ownerId,
    deviceId: core.deviceId,
    damaged: core.damaged,
    roleOf: (peerId) => roles.get(peerId) ?? readGuest(core, peerId),
    members: () => membersOf(roles),
    secrets: core.secrets,
    records: () => recordsToGive(core),
    merge: (records) => core.serially(() => merge(core, records)),
    putHead: (envelope) => core.serially(() => putHead(core, envelope)),
    heads: () => [...core.heads().values()].map(({ head }) => head),
    headOf: (device, incarnation) => core.heads().get(headKey(device, incarnation))?.head,
    createInvite: admission.createInvite,
    guestOf: admission.guestOf,
    join: (request) => core.serially(() => admission.join(request)),
    revoke: (peerId) => core.serially(() => revoke(core, peerId)),
    removeOwner: (ownerId) => core.serially(() => removeFromList(core, ownerId)),
    makeAdmin: (ownerId) => core.serially(() => makeAdmin(core, ownerId)),
    onChange: core.onChange,
  };
}

/** Every listed device and vault. One that two owners list belongs to the one whose id comes first, everywhere. */
function rolesOf({ list, owners }: GroupState): Map<string, Exclude<Role, { role: 'guest' }>> {
  const roles = new Map<string, Exclude<Role, { role: 'guest' }>>();
  for (const { peerId, name, machine } of list?.vaults.values() ?? [])
    roles.set(peerId, { role: 'vault', owner: null, name, machine });
  for (const owner of [...(list?.owners.keys() ?? [])].sort().reverse()) {
    const view = owners.get(owner);
    for (const { peerId, name, machine } of view?.devices.values() ?? [])
      roles.set(peerId, { role: 'member', owner, name, machine, admin: view?.admins.has(peerId) === true });
  }
  return roles;
}

function membersOf(roles: ReadonlyMap<string, Exclude<Role, { role: 'guest' }>>): Member[] {
  const members = [...roles].map(([peerId, role]): Member => {
    const { owner, name, machine } = role;
    return role.role === 'member'
      ? { peerId, owner, name, machine, role: 'device', admin: role.admin }
      : { peerId, owner, name, machine, role: 'vault', admin: false };
  });
  return members.sort((a, b) => (a.peerId < b.peerId ? -1 : 1));
}

function readGuest(core: GroupCore, peerId: string): Role | undefined {
  const { list, owners } = core.state();
  for (const [owner, { guests }] of owners) {
    const guest = guests.find((one) => one.peerId === peerId && one.right === 'read' && one.until > core.now());
    if (guest !== undefined && list?.owners.has(owner) === true) return { role: 'guest', right: 'read', owner };
  }
  return undefined;
}

/** What is trusted now; what only fell out of trust is held on to but not passed on. */
function recordsToGive(core: GroupCore): GroupRecords {
  const state = core.state();
  const trusted = state.list?.trusted ?? [];
  const named = new Set(trusted.flatMap(({ owners, removed }) => [...owners.keys(), ...removed]));
  const records = recordsOf(state).filter(({ owner }) => named.has(owner));
  return {
    entries: trusted.map(({ envelope }) => encodingOf(envelope)),
    owners: records.map(({ envelope }) => encodingOf(envelope)),
    heads: [...core.heads().values()].map(({ envelope }) => encodingOf(envelope)),
  };
}

/** Looks at what is not held yet; a bundle with anything forged or malformed in it is refused whole. */
async function merge(core: GroupCore, records: GroupRecords): Promise<MergeResult> {
  const { entries, ownerRecords, heads, newer } = verifyNew(core, records);
  if (entries.length + ownerRecords.length + heads.length === 0) return { changed: false, refused: newer };
  const { changed, refused } = await core.keep(core.judge(entries, ownerRecords), heads);
  const unmerged = changed && entries.length + ownerRecords.length > 0 ? await mend(core) : [];
  return { changed, refused: [...newer, ...refused, ...unmerged] };
}

interface Verified {
  entries: SignedEntry[];
  ownerRecords: SignedOwnerRecord[];
  heads: HeldHead[];
  /** Records of a newer version: left for those that know it, so that the rest still gets here. */
  newer: string[];
}

function verifyNew(core: GroupCore, records: GroupRecords): Verified {
  const state = core.state();
  const heldPayloads = new Set([
    ...state.entries.keys(),
    ...recordsOf(state).map(({ hash }) => toHex(hash)),
    ...[...core.heads().values()].map(({ envelope }) => toHex(hashOf(envelope.payload))),
  ]);
  const unknown = (encoded: readonly Uint8Array[], most: number, what: string): Envelope[] => {
    if (encoded.length > most + heldPayloads.size) throw tooMany(what, most);
    const envelopes = encoded.map(envelopeOf).filter(({ payload }) => !heldPayloads.has(toHex(hashOf(payload))));
    if (envelopes.length > most) throw tooMany(what, most);
    return envelopes;
  };
  const newer: string[] = [];
  const known = <T>(envelopes: readonly Envelope[], verify: (envelope: Envelope) => T): T[] =>
    envelopes.flatMap((envelope) => {
      try {
        return [verify(envelope)];
      } catch (error) {
        if (!isDezentError(error, 'NEWER_VERSION')) throw error;
        newer.push(error.message);
        return [];
      }
    });
  const { groupId } = core;
  return {
    entries: known(unknown(records.entries, MAX_ENTRIES, 'member list entries'), (one) => verifyEntry(groupId, one)),
    ownerRecords: known(unknown(records.owners, MAX_OWNER_RECORDS, 'owner records'), (one) =>
      verifyOwnerRecord(groupId, one),
    ),
    heads: known(unknown(records.heads, MAX_HEADS, 'heads'), (one) => readHead(groupId, one)),
    newer,
  };
}

function tooMany(what: string, most: number): DezentError {
  return new DezentError('BAD_RECORD', `more than ${most} new ${what} in one exchange`);
}

async function putHead(core: GroupCore, envelope: Envelope): Promise<void> {
  const { refused } = await core.keep(core.judge([], []), [readHead(core.groupId, envelope)]);
  const [why] = refused;
  if (why !== undefined) throw new DezentError('BAD_RECORD', why);
}

function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
