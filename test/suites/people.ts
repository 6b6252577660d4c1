// Owners and devices for tests: keys from fixed seeds, so that a failure shows the same ids each time, and groups on real databases.
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { entropyToMnemonic } from '@scure/bip39';
import { wordlist } from '@scure/bip39/wordlists/english.js';
import { Level } from 'level';
import type { NewDevice } from '../../src/node/group/found-group.ts';
import type { GroupRecords } from '../../src/protocol/group-records.ts';
import type { Group } from '../../src/node/group/group.ts';
import { openGroup } from '../../src/node/group/group.ts';
import type { DeviceKeys } from '../../src/node/home/key-files.ts';
import { proveDevice, type Device } from '../../src/protocol/owner-record.ts';
import { boxKeyFromSeed } from '../../src/protocol/sealed-box.ts';
import { idText, peerIdOf, signingKeyFromSeed } from '../../src/protocol/signature.ts';

export function seedOf(name: string): Uint8Array {
  return new Uint8Array(createHash('sha256').update(name).digest());
}

export function phraseOf(name: string): string {
  return entropyToMnemonic(seedOf(`phrase of ${name}`), wordlist);
}

export function deviceKeysOf(name: string): DeviceKeys {
  const seed = seedOf(`device ${name}`);
  return { device: { ...signingKeyFromSeed(seed), seed }, box: boxKeyFromSeed(seedOf(`box ${name}`)) };
}

export function machineOf(name: string): string {
  return createHash('sha256')
    .update(name)
    .digest('hex')
    .replaceAll(/[0189]/g, 'q')
    .slice(0, 26);
}

export function newDeviceOf(name: string): NewDevice {
  return { keys: deviceKeysOf(name), name, machineOf: async () => machineOf(name) };
}

export function deviceIdOf(name: string): string {
  return peerIdOf(deviceKeysOf(name).device.publicKey);
}

/** As it stands in an owner record. */
export function listedDevice(groupId: Uint8Array, owner: string, name: string): Device {
  const { device, box } = deviceKeysOf(name);
  const proof = proveDevice(groupId, owner, box.publicKey, device);
  return { peerId: peerIdOf(device.publicKey), x25519: box.publicKey, name, machine: machineOf(name), proof };
}

export const NOTHING: GroupRecords = { entries: [], owners: [], heads: [] };

export interface Home extends AsyncDisposable {
  /** Opens the group, closing the one that was open: a restart. */
  open(settings: { groupId: Uint8Array; ownerId: string; now?: () => number }): Promise<Group>;
  readonly keys: DeviceKeys;
  /** Flips a bit in the stored values whose key starts so. */
  damage(table: string, prefix: string): Promise<void>;
}

/** A device's state on disk. */
export async function homeOf(name: string): Promise<Home> {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-people-'));
  let db: Level | undefined;
  const keys = deviceKeysOf(name);
  return {
    keys,
    async open({ groupId, ownerId, now }) {
      await db?.close();
      db = new Level(join(dir, 'state'));
      await db.open();
      return openGroup({ db, keys, ...(now && { now }) }, { groupId: idText(groupId), ownerId });
    },
    async damage(table, prefix) {
      const raw = db?.sublevel<string, Uint8Array>(table, { valueEncoding: 'view' });
      for (const [key, value] of (await raw?.iterator().all()) ?? [])
        if (key.startsWith(prefix)) await raw?.put(key, value.with(value.length - 1, (value.at(-1) ?? 0) ^ 1));
    },
    async [Symbol.asyncDispose]() {
      await db?.close();
      await rm(dir, { recursive: true });
    },
  };
}
