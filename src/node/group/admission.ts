// How strangers become members: invites that this device hands out, the claims of guests, and joining. An invite is marked used in the same
// durable batch that changes the member list, so a crash leaves both or none.
import { DezentError } from '../../errors.ts';
import {
  encodeInvite,
  guestKeyOf,
  newGuestSeed,
  verifyClaim,
  type Claim,
  type Guest,
  type VaultInfo,
} from '../../protocol/invite.ts';
import type { GroupState } from '../../protocol/group-state.ts';
import type { SignedEntry } from '../../protocol/member-list.ts';
import { verifyOwnerRecord, type SignedOwnerRecord } from '../../protocol/owner-record.ts';
import { idText, peerIdOf, publicKeyOf } from '../../protocol/signature.ts';
import { checkListSigner, nextEntry } from './group-changes.ts';
import type { GroupCore } from './group-core.ts';
import { envelopeOf } from './group-store.ts';
import type { Group, InviteRequest, JoinRequest } from './group.ts';
import { openInviteBook, type InviteBook, type InviteUser } from './invite-book.ts';
import type { StateDb } from '../home/state.ts';

/** An owner's record and, after a fork, its rivals: more than a joiner can have. */
const MAX_JOIN_RECORDS = 16;

/** The parts of {@link Group} of the same names; `join` runs inside the core's turn. */
export type Admission = Pick<Group, 'createInvite' | 'guestOf' | 'join'>;

export async function openAdmission(db: StateDb, core: GroupCore): Promise<Admission> {
  const book = await openInviteBook(db, core.now);
  return {
    createInvite: (request) => createInvite(core, book, request),
    guestOf: (claim, device) => guestOf(core, book, readClaim(core, claim, device)),
    join: (request) => join(core, book, request),
  };
}

async function createInvite(core: GroupCore, book: InviteBook, request: InviteRequest): Promise<string> {
  const { vault, uses, ttlMs, addrs } = request;
  checkListSigner(core, 'invite');
  const guestSeed = newGuestSeed();
  await book.add(peerIdOf(guestKeyOf(guestSeed).publicKey), { vault, uses, ttlMs });
  return encodeInvite({ groupId: core.groupId, guestSeed, peerId: core.deviceId, addrs, vault });
}

type ProvenClaim = Claim & { guest: string };

/** The claim, if this device makes it to this device. */
function readClaim(core: GroupCore, encoded: Uint8Array, device: string): ProvenClaim {
  const claim = verifyClaim(core.groupId, envelopeOf(encoded));
  if (claim.device !== device || claim.to !== core.deviceId)
    throw new DezentError('BAD_RECORD', 'the claim was made by another device, or to another one');
  return claim;
}

function guestOf(core: GroupCore, book: InviteBook, claim: ProvenClaim): Guest {
  const { right, guest, device, vault } = claim;
  if (right === 'join') {
    book.check(guest, device);
    return vault === undefined ? { right } : { right, vault };
  }
  const { list, owners } = core.state();
  for (const [owner, { recoveryGuests, guests }] of owners) {
    if (list?.owners.has(owner) !== true) continue;
    if (right === 'recover' && recoveryGuests.has(guest)) return { right, owner };
    const mayRead = guests.some((one) => one.peerId === guest && one.right === 'read' && one.until > core.now());
    if (right === 'read' && mayRead) return { right, owner };
  }
  throw new DezentError('INVITE', `no owner of this group knows this key with the right to ${right}`, {
    hint: 'Check the recovery phrase and the group; or ask for a new link.',
  });
}

async function join(
  core: GroupCore,
  book: InviteBook,
  { device, claim: encoded, records }: JoinRequest,
): Promise<'admitted'> {
  const claim = readClaim(core, encoded, device);
  if (claim.right !== 'join') throw new DezentError('BAD_RECORD', 'the claim is not one to join');
  const { vault } = book.check(claim.guest, device);
  if (vault !== (claim.vault !== undefined))
    throw new DezentError('INVITE', vault ? 'the invite is for a vault' : 'the invite is not for a vault');
  const ownerRecords = claim.vault === undefined ? readOwnerRecords(core, records.owners, device) : [];
  const owner = ownerRecords[0]?.owner ?? '';
  checkFoundedOnce(core, owner, ownerRecords);
  const { previous, write } = book.use(claim.guest, { owner, device });
  if (isListed(core.state(), device, owner)) return 'admitted';
  const replaced = previous === undefined ? undefined : replaceableOwner(core, previous, owner);
  checkListSigner(core, 'let anybody in');
  const entry = claim.vault === undefined ? entryWithOwner(core, owner, replaced) : entryWithVault(core, claim.vault);
  const taken = core.judge(entry === undefined ? [] : [entry], ownerRecords);
  if (!isListed(taken.state, device, owner))
    throw new DezentError('NOT_ALLOWED', `${device} cannot join: ${taken.refused.join('; ')}`);
  await core.keep(taken, [], write);
  book.kept(write);
  return 'admitted';
}

/** An owner's split secret is made once: a second founding would make contents unverifiable. */
function checkFoundedOnce(core: GroupCore, owner: string, records: readonly SignedOwnerRecord[]): void {
  const held = core.state().owners.get(owner)?.latest.split.recovery;
  if (held === undefined || records.every(({ split }) => Buffer.compare(split.recovery, held) === 0)) return;
  throw new DezentError('NOT_ALLOWED', `the group knows owner ${owner} already`, {
    hint: 'Add a device to an owner with the phrase and `--peer`, not as a new owner.',
  });
}

/** Whom the same device has come in as with this invite, if nothing else is known of that owner: the new one takes its place. */
function replaceableOwner(core: GroupCore, previous: InviteUser, owner: string): string {
  const view = core.state().owners.get(previous.owner);
  const isListedAlone = isListed(core.state(), previous.device, previous.owner) && view?.devices.size === 1;
  if (previous.owner !== owner && isListedAlone) return previous.owner;
  throw new DezentError('INVITE', 'this device has used the invite, and was taken off the list or has moved on since');
}

function readOwnerRecords(core: GroupCore, encoded: readonly Uint8Array[], device: string): SignedOwnerRecord[] {
  if (encoded.length === 0 || encoded.length > MAX_JOIN_RECORDS)
    throw new DezentError('BAD_RECORD', `a joiner shows 1 to ${MAX_JOIN_RECORDS} owner records, not ${encoded.length}`);
  const records = encoded.map((bytes) => verifyOwnerRecord(core.groupId, envelopeOf(bytes)));
  const right =
    records.every(({ owner }) => owner === records[0]?.owner) &&
    records.some(({ devices }) => devices.some(({ peerId }) => peerId === device));
  if (!right) throw new DezentError('BAD_RECORD', `the owner record shown does not list ${device}`);
  return records;
}

function isListed({ list, owners }: GroupState, device: string, owner: string): boolean {
  if (owner === '') return list?.vaults.has(device) === true;
  return list?.owners.has(owner) === true && owners.get(owner)?.devices.has(device) === true;
}

/** Undefined where the owner is on the list already. */
function entryWithOwner(core: GroupCore, owner: string, replaced: string | undefined): SignedEntry | undefined {
  if (core.state().list?.owners.has(owner) === true) return undefined;
  return nextEntry(core, ({ owners, removed }) => {
    if (replaced !== undefined) owners.delete(replaced);
    owners.set(owner, { admin: false });
    removed.delete(owner);
  });
}

function entryWithVault(core: GroupCore, vault: VaultInfo): SignedEntry {
  return nextEntry(core, ({ vaults, removed }) => {
    vaults.set(vault.peerId, vault);
    removed.delete(idText(publicKeyOf(vault.peerId)));
  });
}
