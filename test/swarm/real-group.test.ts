// The swarm with the real group: a founder, an owner who joins by invite, and the founder's next device by phrase, all over real sockets.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { Level } from 'level';
import { foundGroup, nextDevice, ownerForInvite, type NewDevice } from '../../src/node/group/found-group.ts';
import { openGroup, type Group } from '../../src/node/group/group.ts';
import { joinByInvite, presentRecords, recoverFrom } from '../../src/node/swarm/hello-client.ts';
import { createKeys, type DeviceKeys } from '../../src/node/home/key-files.ts';
import type { Swarm } from '../../src/node/swarm/swarm.ts';
import type { GroupRecords } from '../../src/protocol/group-records.ts';
import { decodeInvite } from '../../src/protocol/invite.ts';
import { ownerKeysOf } from '../../src/protocol/owner-keys.ts';
import { idText, peerIdOf } from '../../src/protocol/signature.ts';
import { meet, newHome, type Home } from './swarm-of.ts';

const never = new AbortController().signal;

interface Node {
  home: Home;
  keys: DeviceKeys;
  device: NewDevice;
  peerId: string;
}

async function newNode(name: string, undo: AsyncDisposableStack): Promise<Node> {
  const outer = await newHome();
  undo.use(outer);
  const keys = await createKeys(outer.directory);
  const peerId = peerIdOf(keys.device.publicKey);
  const home = await newHome({ seed: keys.device.seed, peerId });
  undo.use(home);
  return { home, keys, peerId, device: { keys, name, machineOf: async () => name.padEnd(26, 'a') } };
}

async function openedGroup(
  node: Node,
  groupId: Uint8Array,
  ownerId: string,
  undo: AsyncDisposableStack,
): Promise<Group> {
  const db = new Level(join(node.home.directory, 'group'));
  await db.open();
  undo.defer(() => db.close());
  return openGroup({ db, keys: node.keys }, { groupId: idText(groupId), ownerId });
}

async function running(node: Node, group: Group, others: Swarm[], undo: AsyncDisposableStack): Promise<Swarm> {
  const swarm = await node.home.start(group, { bootstrap: others.flatMap((other) => other.addrs()) });
  undo.use(swarm);
  return swarm;
}

test('found, join by invite, recover the next device: all three meet and agree', async () => {
  await using undo = new AsyncDisposableStack();
  const a = await newNode('a', undo);
  const founded = await foundGroup(a.device);
  const groupA = await openedGroup(a, founded.groupId, founded.ownerId, undo);
  await groupA.merge(founded.records, '');
  const swarmA = await running(a, groupA, [], undo);

  const b = await newNode('b', undo);
  const text = await groupA.createInvite({ vault: false, uses: 1, ttlMs: 60_000, addrs: swarmA.addrs() });
  const invite = decodeInvite(text);
  const newOwner = await ownerForInvite(invite.groupId, b.device);
  const joined = await joinByInvite(invite, newOwner.records, { deviceSeed: b.keys.device.seed, signal: never });
  const groupB = await openedGroup(b, invite.groupId, newOwner.ownerId, undo);
  await groupB.merge(together(joined.records, newOwner.records), a.peerId);
  assert.equal(groupB.roleOf(b.peerId)?.role, 'member');
  // The same device may ask again, another one may not.
  await joinByInvite(invite, newOwner.records, { deviceSeed: b.keys.device.seed, signal: never });
  const swarmB = await running(b, groupB, [swarmA], undo);
  await Promise.all([meet(swarmA, b.peerId), meet(swarmB, a.peerId)]);

  const c = await newNode('c', undo);
  const other = await ownerForInvite(invite.groupId, c.device);
  const caller = { deviceSeed: c.keys.device.seed, signal: never };
  await assert.rejects(joinByInvite(invite, other.records, caller), { code: 'INVITE' });
  const peers = [...swarmA.addrs(), ...swarmB.addrs()];
  const recovered = await recoverFrom(peers, ownerKeysOf(founded.phrase).recoveryGuest, caller);
  const next = await nextDevice(founded.phrase, recovered, c.device);
  await presentRecords(swarmB.addrs(), next, caller);
  const groupC = await openedGroup(c, next.groupId, next.ownerId, undo);
  await groupC.merge(next.records, '');
  const swarmC = await running(c, groupC, [swarmB], undo);
  await Promise.all([meet(swarmC, a.peerId), meet(swarmC, b.peerId), meet(swarmA, c.peerId)]);
  const idsOf = (group: Group): string[] => group.members().map(({ peerId }) => peerId);
  assert.deepEqual(idsOf(groupA), idsOf(groupC));
  assert.deepEqual(idsOf(groupA), idsOf(groupB));
  assert.equal(idsOf(groupA).length, 3);
});

function together(a: GroupRecords, b: GroupRecords): GroupRecords {
  return { entries: [...a.entries, ...b.entries], owners: [...a.owners, ...b.owners], heads: [...a.heads, ...b.heads] };
}
