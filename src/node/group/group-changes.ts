// Changes to the group that this device signs: entries of the member list, records of its owner, and merging their forks.
// Everything here runs inside the core's turn and is durable when it returns.
import type { GroupCore } from './group-core.ts';
import { DezentError, isDezentError } from '../../errors.ts';
import type { GroupState } from '../../protocol/group-state.ts';
import type { ListView } from '../../protocol/list-view.ts';
import { MAX_PARENTS, signEntry, type ListState, type SignedEntry } from '../../protocol/member-list.ts';
import { needsMending, nextOwnerRecord, type OwnerChange } from '../../protocol/owner-changes.ts';
import { epochKey, type Device, type SignedOwnerRecord } from '../../protocol/owner-record.ts';
import { judgeOwner } from '../../protocol/owner-view.ts';
import { idText, publicKeyOf } from '../../protocol/signature.ts';

/** Devices that may sign the member list: admin devices of the founder and of owners marked admin. */
export function listSigners({ list, owners }: GroupState): Device[] {
  const admins = [...(list?.owners ?? [])].filter(([, { admin }]) => admin).map(([owner]) => owners.get(owner));
  return admins.flatMap((view) => [...(view?.devices.values() ?? [])].filter(({ peerId }) => view?.admins.has(peerId)));
}

/** Throws NOT_ALLOWED, naming who can, unless this device may sign the member list. */
export function checkListSigner(core: GroupCore, what: string): void {
  const signers = listSigners(core.state());
  if (!signers.some(({ peerId }) => peerId === core.deviceId)) throw notAllowed(what, signers);
}

function notAllowed(what: string, able: readonly Device[]): DezentError {
  const names = able.map(({ name, peerId }) => `${name} (${peerId})`).join(', ');
  return new DezentError(
    'NOT_ALLOWED',
    `this device may not ${what}; these can: ${names === '' ? 'none known here' : names}`,
    {
      hint: 'Do it on one of the named devices.',
    },
  );
}

/** Signs the entry that follows all tips, with the change made to what they say together. Whoever a tip lists and it does not, it removes. */
export function nextEntry(core: GroupCore, change: (state: ListState) => void): SignedEntry {
  const list = listOf(core);
  const parents = list.tips.slice(0, MAX_PARENTS);
  const next: ListState = {
    owners: new Map(list.owners),
    vaults: new Map(list.vaults),
    removed: new Set(list.removed),
  };
  change(next);
  const listed = new Set([...next.owners.keys(), ...[...next.vaults.keys()].map(keyText)]);
  for (const { owners, vaults, removed } of parents)
    for (const id of [...owners.keys(), ...[...vaults.keys()].map(keyText), ...removed])
      if (!listed.has(id)) next.removed.add(id);
  return signEntry(core.groupId, parents, next, { by: core.ownerId, key: core.keys.device });
}

/** The id under which a vault is removed. */
function keyText(peerId: string): string {
  return idText(publicKeyOf(peerId));
}

function listOf(core: GroupCore): ListView {
  const { list } = core.state();
  if (list === undefined) throw new DezentError('NOT_FOUND', 'the member list of this group is not known here yet');
  return list;
}

/** Signs the next record of the own owner. Throws NOT_ALLOWED, naming who can, unless this is an admin device. */
async function nextOwnRecord(core: GroupCore, change: OwnerChange, what: string): Promise<SignedOwnerRecord> {
  const view = core.ownView();
  const admins = [...(view?.devices.values() ?? [])].filter(({ peerId }) => view?.admins.has(peerId));
  if (view === undefined || !view.admins.has(core.deviceId)) throw notAllowed(what, admins);
  const base = { groupId: core.groupId, view, opened: core.secrets() };
  return nextOwnerRecord(base, change, { admin: core.keys.device });
}

/** Keeps what was made here, or nothing: throws BAD_RECORD with the reason when it would not stand. */
async function keepOwn(
  core: GroupCore,
  entries: readonly SignedEntry[],
  records: readonly SignedOwnerRecord[],
): Promise<void> {
  const taken = core.judge(entries, records);
  if (taken.refused.length > 0) throw new DezentError('BAD_RECORD', taken.refused.join('; '));
  await core.keep(taken, []);
}

/**
 * Revokes a device of the own owner (new epoch; its log is frozen where this device knows it), or takes a vault off the list.
 * When this device may sign the member list it first endorses what the revoked one has signed there, so that this stays valid.
 */
export async function revoke(core: GroupCore, peerId: string): Promise<void> {
  if (peerId === core.deviceId)
    throw new DezentError('NOT_ALLOWED', 'a device cannot revoke itself; do it on another one');
  if (core.state().list?.vaults.has(peerId) === true) return removeFromList(core, keyText(peerId));
  if (core.ownView()?.devices.has(peerId) !== true)
    throw new DezentError('NOT_FOUND', `${peerId} is no device of this owner`);
  const ends = [...core.heads().values()].filter(({ head }) => head.device === peerId);
  const heads = ends.map(({ head: { incarnation, seq } }) => ({ incarnation, seq }));
  const record = await nextOwnRecord(core, { revoke: [{ peerId, by: core.deviceId, heads }] }, 'revoke a device');
  const maySign = listSigners(core.state()).some((device) => device.peerId === core.deviceId);
  await keepOwn(core, maySign ? [nextEntry(core, () => undefined)] : [], [record]);
}

/** Takes an owner (or a vault, by its key) off the list. */
export async function removeFromList(core: GroupCore, id: string): Promise<void> {
  checkListSigner(core, 'remove anybody from the group');
  const isVault = (peerId: string): boolean => keyText(peerId) === id;
  const { owners, vaults } = listOf(core);
  if (!owners.has(id) && ![...vaults.keys()].some(isVault))
    throw new DezentError('NOT_FOUND', `${id} is not on the member list`);
  if (id === listOf(core).founder || id === core.ownerId)
    throw new DezentError('NOT_ALLOWED', 'neither the founder nor the own owner can be removed');
  const entry = nextEntry(core, (state) => {
    state.owners.delete(id);
    for (const peerId of state.vaults.keys()) if (isVault(peerId)) state.vaults.delete(peerId);
    state.removed.add(id);
  });
  await keepOwn(core, [entry], []);
}

/** Marks an owner as admin: its admin devices may then sign the list too. */
export async function makeAdmin(core: GroupCore, owner: string): Promise<void> {
  checkListSigner(core, 'make an owner admin');
  if (!listOf(core).owners.has(owner)) throw new DezentError('NOT_FOUND', `${owner} is not on the member list`);
  await keepOwn(core, [nextEntry(core, ({ owners }) => void owners.set(owner, { admin: true }))], []);
}

/** Merges forks of the list and of the own owner's record where this device may. Returns why something could not be merged. */
export async function mend(core: GroupCore): Promise<string[]> {
  return [
    ...(await orReason(() => mendList(core), 'the member list')),
    ...(await orReason(() => mendOwner(core), 'the owner record')),
  ];
}

/** A fork that cannot be merged is no reason to refuse what brought it: merged or not, it is judged the same everywhere. */
async function orReason(work: () => Promise<void>, what: string): Promise<string[]> {
  try {
    await work();
    return [];
  } catch (error) {
    if (!isDezentError(error, 'BAD_RECORD') && !isDezentError(error, 'KEYS')) throw error;
    return [`a fork of ${what} cannot be merged here: ${error.message}`];
  }
}

async function mendList(core: GroupCore): Promise<void> {
  const { list } = core.state();
  const maySign = listSigners(core.state()).some(({ peerId }) => peerId === core.deviceId);
  // Tips that say the same need no merge; else two signers would merge each other's merges for ever.
  if (list === undefined || !maySign || list.tips.every((tip) => textOf(tip) === textOf(list))) return;
  await keepOwn(core, [nextEntry(core, () => undefined)], []);
}

async function mendOwner(core: GroupCore): Promise<void> {
  const view = core.ownView();
  if (view === undefined || !view.admins.has(core.deviceId) || !needsMending(view, core.secrets())) return;
  // Epochs that the winner lacks: made in the other branch, perhaps to shut out a device that still reads the winner's.
  const winners = new Set(view.latest.epochs.map(epochKey));
  const newEpoch = view.epochs.some((epoch) => !winners.has(epochKey(epoch)));
  const record = await nextOwnRecord(core, { newEpoch }, 'merge records');
  if (judgeOwner([...view.records, record]).records.length > 1)
    throw new DezentError('BAD_RECORD', 'it takes the recovery phrase to override a revoked device');
  await keepOwn(core, [], [record]);
}

function textOf({ owners, vaults, removed }: ListState): string {
  const marks = [...owners].map(([owner, { admin }]) => `${owner} ${admin}`);
  return JSON.stringify([marks.sort(), [...vaults.keys()].sort(), [...removed].sort()]);
}
