// How strangers become members: invites that this device hands out, the claims of guests, and joining. An invite is marked used in the same
// durable batch that changes the member list, so a crash leaves both or none.
import { DezentError } from '../errors.ts';
import {
  encodeInvite,
  guestKeyOf,
  newGuestSeed,
  verifyClaim,
  type Claim,
  type Guest,
  type VaultInfo,
} from '../protocol/invite.ts';
import { verifyOwnerRecord, type SignedOwnerRecord } from '../protocol/owner-record.ts';
import { idText, peerIdOf, publicKeyOf } from '../protocol/signature.ts';
import { checkListSigner, keepOwn, nextEntry } from './group-changes.ts';
import type { GroupCore } from './group-core.ts';
import { envelopeOf } from './group-store.ts';
import type { Group, InviteRequest, JoinRequest } from './group.ts';
import { openInviteBook, type InviteBook, type StateWrite } from './invite-book.ts';
import type { StateDb } from './state.ts';

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
  const invite = book.check(claim.guest, device);
  if (invite.vault !== (claim.vault !== undefined))
    throw new DezentError('INVITE', invite.vault ? 'the invite is for a vault' : 'the invite is not for a vault');
  const joining = claim.vault ?? readOwnerRecords(core, records.owners, device);
  const owner = Array.isArray(joining) ? (joining[0]?.owner ?? '') : '';
  const { again, write } = book.use(claim.guest, { owner, device });
  if (isListed(core, device, owner)) return 'admitted';
  if (again)
    throw new DezentError('INVITE', 'the invite has been used by this device, which was taken off the list since');
  checkListSigner(core, 'let anybody in');
  await (Array.isArray(joining) ? admitOwner(core, joining, write, device) : admitVault(core, joining, write));
  book.kept(write);
  return 'admitted';
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

function isListed(core: GroupCore, device: string, owner: string): boolean {
  const { list, owners } = core.state();
  if (owner === '') return list?.vaults.has(device) === true;
  return list?.owners.has(owner) === true && owners.get(owner)?.devices.has(device) === true;
}

async function admitOwner(
  core: GroupCore,
  records: SignedOwnerRecord[],
  write: StateWrite,
  device: string,
): Promise<void> {
  const owner = records[0]?.owner ?? '';
  const isNew = core.state().list?.owners.has(owner) !== true;
  const admit = nextEntry(core, ({ owners, removed }) => {
    owners.set(owner, { admin: false });
    removed.delete(owner);
  });
  const entries = isNew ? [admit] : [];
  const taken = core.judge(entries, records);
  const view = taken.state.owners.get(owner);
  const foundedOnce = records.every(
    ({ split }) => view !== undefined && Buffer.compare(split.recovery, view.latest.split.recovery) === 0,
  );
  if (view?.devices.has(device) !== true || !foundedOnce || taken.state.list?.owners.has(owner) !== true)
    throw new DezentError('NOT_ALLOWED', `${device} cannot join for owner ${owner}: ${taken.refused.join('; ')}`, {
      hint: 'An owner whom the group knows adds a device with the phrase and `--peer`, not as a new owner.',
    });
  await core.keep(taken, [], write);
}

async function admitVault(core: GroupCore, vault: VaultInfo, write: StateWrite): Promise<void> {
  const admit = nextEntry(core, ({ vaults, removed }) => {
    vaults.set(vault.peerId, vault);
    removed.delete(idText(publicKeyOf(vault.peerId)));
  });
  await keepOwn(core, [admit], [], write);
}
