// init: makes a home: keys, group records, config. Alone it founds a group; with an invite it joins one as a new owner (or vault); with a
// phrase it is the next device of that phrase's owner. Nothing counts until identity.json, the last file, is there.
import { mkdir, rename } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { DezentError, isDezentError } from '../errors.ts';
import type { GroupRecords } from '../protocol/group-records.ts';
import { NO_RECORDS } from '../protocol/hello.ts';
import { decodeInvite, type Invite } from '../protocol/invite.ts';
import { ownerKeysOf } from '../protocol/owner-keys.ts';
import type { PeerAddrs } from '../protocol/records.ts';
import { idText, peerIdOf } from '../protocol/signature.ts';
import { openConfig } from './home/config.ts';
import type { InitOptions, InitValue } from './control/control-api.ts';
import { checkFolder } from './files/folder.ts';
import { foundGroup, nextDevice, ownerForInvite, vaultForInvite, type NewDevice } from './group/found-group.ts';
import { openGroup } from './group/group.ts';
import { joinByInvite, presentRecords, recoverFrom, type Caller } from './swarm/hello-client.ts';
import { hasIdentity, homePlaces, writeIdentity } from './home/home.ts';
import { createKeys, openKeys, type DeviceKeys } from './home/key-files.ts';
import { machineIdOf } from './home/machine-id.ts';
import { rememberPeers } from './swarm/peer-book.ts';
import { openState } from './home/state.ts';

/** Dials and hellos of one init, all addresses tried. */
const JOIN_MS = 60_000;
const MAX_NAME_CHARS = 64;

/** What a device knows once it belongs to a group. */
interface Belonging {
  groupId: Uint8Array;
  /** Empty on a vault. */
  ownerId: string;
  records: GroupRecords[];
  peers: PeerAddrs[];
  phrase?: string;
}

const peerAddrsOf = (invite: Invite): string[] =>
  invite.addrs.map((addr) => (addr.includes('/p2p/') ? addr : `${addr}/p2p/${invite.peerId}`));

async function joinAsNextDevice(
  phrase: string,
  peers: readonly string[],
  device: NewDevice,
  caller: Caller,
): Promise<Belonging> {
  const { recoveryGuest } = ownerKeysOf(phrase);
  const given = await recoverFrom(peers, recoveryGuest, caller);
  const founded = await nextDevice(phrase, { groupId: given.groupId, records: given.records }, device);
  const welcome = await presentRecords(peers, founded, caller);
  return {
    groupId: given.groupId,
    ownerId: founded.ownerId,
    records: [founded.records, welcome.records],
    peers: [...given.peers, ...welcome.peers],
  };
}

async function joinAsOwner(invite: Invite, device: NewDevice, caller: Caller, phrase?: string): Promise<Belonging> {
  const owner = await ownerForInvite(invite.groupId, device, phrase);
  const welcome = await joinByInvite(invite, owner.records, caller);
  const records = [{ ...welcome.records, owners: [...welcome.records.owners, ...owner.records.owners] }];
  return {
    groupId: invite.groupId,
    ownerId: owner.ownerId,
    records,
    peers: welcome.peers,
    ...(phrase === undefined && { phrase: owner.phrase }),
  };
}

async function joinByCode(options: InitOptions, code: string, device: NewDevice, caller: Caller): Promise<Belonging> {
  const invite = decodeInvite(code);
  if (invite.vault) {
    const welcome = await joinByInvite(invite, NO_RECORDS, {
      ...caller,
      vault: await vaultForInvite(invite.groupId, device),
    });
    return { groupId: invite.groupId, ownerId: '', records: [welcome.records], peers: welcome.peers };
  }
  if (options.phrase === undefined) return joinAsOwner(invite, device, caller);
  try {
    return await joinAsNextDevice(options.phrase, peerAddrsOf(invite), device, caller);
  } catch (error) {
    // The owner of this phrase is not in the group yet: the invite lets it in.
    if (!isDezentError(error, 'NOT_FOUND') && !isDezentError(error, 'NOT_ALLOWED')) throw error;
    return joinAsOwner(invite, device, caller, options.phrase);
  }
}

async function belong(options: InitOptions, device: NewDevice, caller: Caller): Promise<Belonging> {
  if (options.invite !== undefined) return joinByCode(options, options.invite, device, caller);
  if (options.phrase !== undefined) return joinAsNextDevice(options.phrase, options.peers, device, caller);
  const { groupId, ownerId, records, phrase } = await foundGroup(device);
  return { groupId, ownerId, records: [records], peers: [], phrase };
}

/** Keys of an init that did not finish are used again: an inviter knows the device by them. */
async function keysFor(home: string): Promise<DeviceKeys> {
  return existsSync(join(home, 'keys')) ? openKeys(home) : createKeys(home);
}

async function keepRecords(
  home: string,
  keys: DeviceKeys,
  { groupId, ownerId, records, peers }: Belonging,
): Promise<void> {
  const { state } = homePlaces(home);
  // An init that did not finish: nothing was stored with it, but nothing is deleted on a guess either.
  if (existsSync(state)) await rename(state, `${state}.unfinished-${Date.now()}`);
  const db = await openState(state);
  try {
    const group = await openGroup({ db: db.sublevel('group'), keys }, { groupId: idText(groupId), ownerId });
    for (const bundle of records) await group.merge(bundle, 'init');
    const role = group.roleOf(group.deviceId);
    if (role === undefined || role.role === 'guest' || (role.owner ?? '') !== ownerId)
      throw new DezentError('BAD_RECORD', 'the records given do not list this device for its owner');
    await rememberPeers(db.sublevel('swarm'), peers);
  } finally {
    await db.close();
  }
}

async function keepConfig(options: InitOptions): Promise<void> {
  const config = openConfig(options.home);
  await config.set('listen.port', options.port);
  if (options.listen.length > 0) await config.set('listen.addresses', options.listen);
  if (options.copiesTarget >= config.get('copies.min')) await config.set('copies.target', options.copiesTarget);
  await config.set('copies.min', options.copiesMin);
  await config.set('copies.target', options.copiesTarget);
}

/**
 * Makes the home. Throws FOLDER, UNSAFE when the home has a device already, BAD_PHRASE, INVITE, UNREACHABLE, NOT_ALLOWED: then nothing counts
 * and it can be run again.
 */
export async function initHome(options: InitOptions): Promise<InitValue> {
  const { home, port } = options;
  if (hasIdentity(home))
    throw new DezentError('UNSAFE', `${home} holds a device already`, {
      hint: 'Use it (dezent run), or choose another --home.',
    });
  const folder = await checkFolder(options.folder, home);
  await mkdir(home, { recursive: true, mode: 0o700 });
  const keys = await keysFor(home);
  const name = (options.name ?? hostname()).slice(0, MAX_NAME_CHARS);
  const override = options.machine === undefined ? {} : { override: options.machine };
  const device: NewDevice = { keys, name, machineOf: (groupId) => machineIdOf({ groupId, home, ...override }) };
  const belonging = await belong(options, device, {
    deviceSeed: keys.device.seed,
    signal: AbortSignal.timeout(JOIN_MS),
  });
  await keepRecords(home, keys, belonging);
  await keepConfig(options);
  const { ownerId, phrase } = belonging;
  const groupId = idText(belonging.groupId);
  const deviceId = peerIdOf(keys.device.publicKey);
  await writeIdentity(home, {
    v: 1,
    groupId,
    ownerId,
    deviceId,
    name,
    machine: await device.machineOf(belonging.groupId),
    folder,
  });
  return { deviceId, ownerId, groupId, folder, port, ...(phrase !== undefined && { phrase }) };
}
