// The gate, seen by a stranger: a full libp2p node that is not on the list and tries every protocol of a member.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encode } from '@ipld/dag-cbor';
import type { Connection, Libp2p } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import { HELLO_PROTOCOL, NO_RECORDS, sayHello } from '../../src/protocol/hello.ts';
import { fakeGroup } from './fake-group.ts';
import { answerTo, newStranger } from './stranger.ts';
import { newHome, type Home } from './swarm-of.ts';
import type { Swarm } from '../../src/node/swarm/swarm.ts';

interface Scene extends AsyncDisposable {
  home: Home;
  swarm: Swarm;
  stranger: Libp2p;
  connection: Connection;
  prefix: string;
  group: ReturnType<typeof fakeGroup>;
}

async function newScene(): Promise<Scene> {
  const home = await newHome();
  const group = fakeGroup('g', home.device.peerId, [home.device.peerId]);
  group.merge({ entries: [], owners: [], heads: [new TextEncoder().encode('a secret head')] }, '');
  const swarm = await home.start(group);
  const stranger = await newStranger(group.groupId);
  const connection = await stranger.dial(multiaddr(swarm.addrs()[0] ?? ''));
  return {
    home,
    swarm,
    stranger,
    connection,
    group,
    prefix: `/dezent/${group.groupId}`,
    async [Symbol.asyncDispose]() {
      await stranger.stop();
      await swarm[Symbol.asyncDispose]();
      await home[Symbol.asyncDispose]();
    },
  };
}

test('a stranger gets not one byte on any protocol of members', async () => {
  await using scene = await newScene();
  const { swarm, connection, prefix } = scene;
  let served = 0;
  for (const protocol of ['exchange', 'fs', 'release', 'audit'] as const) swarm.handle(protocol, () => (served += 1));
  const message = encode({ t: 'have', v: 1, digests: [], peers: [] });
  const framed = Buffer.concat([Buffer.from([0, 0, 0, message.length]), message]);
  const names = ['/ipfs/id/1.0.0', '/ipfs/ping/1.0.0', `${prefix}/kad/1.0.0`, `${prefix}/records/1.0.0`];
  for (const name of [
    ...names,
    ...['exchange', 'fs', 'release', 'audit'].map((protocol) => `${prefix}/${protocol}/1.0.0`),
  ]) {
    const stream = await connection.newStream(name);
    assert.deepEqual(await answerTo(stream, framed), { receivedBytes: 0, reset: true }, name);
  }
  assert.equal(served, 0);
  assert.deepEqual(swarm.connected(), []);
});

test('a stranger’s hello is told the group and a reason, no record and no address', async () => {
  await using scene = await newScene();
  const stream = await scene.connection.newStream(HELLO_PROTOCOL);
  const request = { group: undefined, records: NO_RECORDS, claim: undefined };
  const closed = new Promise<void>((resolve) => scene.connection.addEventListener('close', () => resolve()));
  const answer = await sayHello(stream, request, AbortSignal.timeout(5_000));
  assert.deepEqual(answer, {
    group: scene.group.groupIdBytes,
    admitted: false,
    reason: 'this device is not on the member list',
    records: NO_RECORDS,
    peers: [],
  });
  await closed;
});

test('a stranger that says nothing is cut off', async () => {
  await using scene = await newScene();
  await new Promise<void>((resolve) => scene.connection.addEventListener('close', () => resolve()));
  assert.deepEqual(scene.swarm.connected(), []);
});

test('a hello with forged records, of another group, or with a bad claim is refused in words', async () => {
  await using scene = await newScene();
  const { stranger, swarm } = scene;
  const hello = async (request: Parameters<typeof sayHello>[1]): Promise<string> => {
    const connection = await stranger.dial(multiaddr(swarm.addrs()[0] ?? ''), { force: true });
    const stream = await connection.newStream(HELLO_PROTOCOL);
    const answer = await sayHello(stream, request, AbortSignal.timeout(5_000));
    assert.equal(answer.admitted, false);
    assert.deepEqual(answer.records, NO_RECORDS);
    return answer.reason;
  };
  const forged = { entries: [new TextEncoder().encode('other: member x')], owners: [], heads: [] };
  assert.equal(await hello({ group: undefined, records: forged, claim: undefined }), 'a forged entry');
  assert.match(await hello({ group: new Uint8Array(32), records: NO_RECORDS, claim: undefined }), /another group/u);
  assert.notEqual(await hello({ group: undefined, records: NO_RECORDS, claim: new Uint8Array(9) }), '');
});

test('broken hellos end the stream: too long, cut off, not CBOR, not a hello', async () => {
  await using scene = await newScene();
  const frames: Record<string, Uint8Array> = {
    'announces 2 GiB': Uint8Array.of(0x80, 0, 0, 0, 1),
    'announces nothing': Uint8Array.of(0, 0, 0, 0),
    'no CBOR': Uint8Array.of(0, 0, 0, 2, 0xff, 0xff),
    'no hello': Buffer.concat([Uint8Array.of(0, 0, 0, 1), encode(7)]),
  };
  for (const [name, frame] of Object.entries(frames)) {
    const stream = await scene.connection.newStream(HELLO_PROTOCOL);
    assert.deepEqual(await answerTo(stream, frame), { receivedBytes: 0, reset: true }, name);
  }
});
