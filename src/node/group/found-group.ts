// What `init` and `recover` sign before there is a node: a new group, a new owner for somebody else's group, or an owner's next device.
// Pure but for randomness; the caller writes the key files, then has the records merged by the group (group.ts).
import { DezentError } from '../../errors.ts';
import { take, EMPTY_STATE } from '../../protocol/group-state.ts';
import type { GroupRecords } from '../../protocol/group-records.ts';
import type { VaultInfo } from '../../protocol/invite.ts';
import { foundList, verifyEntry } from '../../protocol/member-list.ts';
import { foundOwnerRecord, nextOwnerRecord, openSecrets } from '../../protocol/owner-changes.ts';
import { newPhrase, ownerKeysOf, type OwnerKeys } from '../../protocol/owner-keys.ts';
import { proveDevice, verifyOwnerRecord, type Device } from '../../protocol/owner-record.ts';
import type { OwnerView } from '../../protocol/owner-view.ts';
import { decodeEnvelope, encodeEnvelope, idText, peerIdOf } from '../../protocol/signature.ts';
import type { DeviceKeys } from '../home/key-files.ts';

/** This device, before it is listed. */
export interface NewDevice {
  keys: DeviceKeys;
  name: string;
  /** machineIdOf with everything but the group known. */
  machineOf(groupId: Uint8Array): Promise<string>;
}

export interface Founded {
  groupId: Uint8Array;
  ownerId: string;
  /** To merge, and to show in hello. */
  records: GroupRecords;
}

async function deviceOf(groupId: Uint8Array, owner: string, { keys, name, machineOf }: NewDevice): Promise<Device> {
  const x25519 = keys.box.publicKey;
  const proof = proveDevice(groupId, owner, x25519, keys.device);
  return { peerId: peerIdOf(keys.device.publicKey), x25519, name, machine: await machineOf(groupId), proof };
}

/** A new owner in a new group. The phrase is to be shown once and never stored. Throws BAD_PHRASE when one is given that is none. */
export async function foundGroup(device: NewDevice, givenPhrase?: string): Promise<Founded & { phrase: string }> {
  const phrase = givenPhrase ?? newPhrase();
  const keys = ownerKeysOf(phrase);
  const { groupId, entry } = foundList(keys.signing);
  const { owners } = await recordsOfNewOwner(groupId, keys, device);
  const entries = [encodeEnvelope(entry.envelope)];
  return { groupId, ownerId: keys.ownerId, phrase, records: { entries, owners, heads: [] } };
}

/** A new owner for the group of an invite: the record to show with the claim. With a phrase, the owner of that phrase. Throws BAD_PHRASE. */
export async function ownerForInvite(
  groupId: Uint8Array,
  device: NewDevice,
  givenPhrase?: string,
): Promise<Founded & { phrase: string }> {
  const phrase = givenPhrase ?? newPhrase();
  const keys = ownerKeysOf(phrase);
  return { groupId, ownerId: keys.ownerId, phrase, records: await recordsOfNewOwner(groupId, keys, device) };
}

async function recordsOfNewOwner(groupId: Uint8Array, keys: OwnerKeys, device: NewDevice): Promise<GroupRecords> {
  const record = await foundOwnerRecord(groupId, keys, await deviceOf(groupId, keys.ownerId, device));
  return { entries: [], owners: [encodeEnvelope(record.envelope)], heads: [] };
}

/** What a vault claims to be, with a vault invite. */
export async function vaultForInvite(groupId: Uint8Array, { keys, name, machineOf }: NewDevice): Promise<VaultInfo> {
  return {
    peerId: peerIdOf(keys.device.publicKey),
    x25519: keys.box.publicKey,
    name,
    machine: await machineOf(groupId),
  };
}

export interface Recovered {
  groupId: Uint8Array;
  /** As members gave them to the recovery guest; nothing in them is trusted unverified. */
  records: GroupRecords;
}

/**
 * The next device of the phrase's owner, in the group that members gave the records of: a record signed by the phrase that lists it, with all
 * secrets sealed to it. An admin device may invite and revoke; make it one where the others are lost. Throws BAD_PHRASE, BAD_RECORD, NOT_FOUND
 * when the owner is not in the group, NOT_ALLOWED when this device was revoked.
 */
export async function nextDevice(
  phrase: string,
  recovered: Recovered,
  device: NewDevice,
  { admin = false }: { admin?: boolean } = {},
): Promise<Founded> {
  const { groupId, records } = recovered;
  const keys = ownerKeysOf(phrase);
  const view = ownViewIn(recovered, keys.ownerId);
  const listed = await deviceOf(groupId, keys.ownerId, device);
  if (view.revoked.has(listed.peerId))
    throw new DezentError('NOT_ALLOWED', `the device ${listed.peerId} was revoked`, {
      hint: 'Start with a new, empty --home.',
    });
  const opened = await openSecrets(groupId, view, keys.recovery);
  const newAdmins = admin || view.admins.size === 0 ? [listed.peerId] : [];
  const record = await nextOwnerRecord({ groupId, view, opened }, { add: [listed] }, { phrase: keys, newAdmins });
  const owners = [...records.owners, encodeEnvelope(record.envelope)];
  return { groupId, ownerId: keys.ownerId, records: { ...records, owners } };
}

function ownViewIn({ groupId, records }: Recovered, owner: string): OwnerView {
  const entries = records.entries.map((bytes) => verifyEntry(groupId, decodeEnvelope(bytes)));
  const ownerRecords = records.owners.map((bytes) => verifyOwnerRecord(groupId, decodeEnvelope(bytes)));
  const { list, owners } = take(EMPTY_STATE, entries, ownerRecords).state;
  const view = owners.get(owner);
  if (view === undefined || list?.owners.has(owner) !== true)
    throw new DezentError('NOT_FOUND', `the owner of this phrase (${owner}) is not in the group ${idText(groupId)}`, {
      hint: 'Check the phrase, or ask for an invite (`dezent invite`).',
    });
  return view;
}
