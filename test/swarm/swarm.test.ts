// The swarm with real nodes on loopback: meeting, joining, losing each other and finding each other again.
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { joinByInvite, presentRecords, recoverFrom } from '../../src/node/swarm/hello-client.ts';
import { decodeInvite, encodeInvite, guestKeyOf, newGuestSeed } from '../../src/protocol/invite.ts';
import { encodeEnvelope, signingKeyFromSeed } from '../../src/protocol/signature.ts';
import { blockIdOf } from '../../src/store/block.ts';
import { NO_RECORDS } from '../../src/protocol/hello.ts';
import { fakeGroup } from './fake-group.ts';
import { meet, newHome, part } from './swarm-of.ts';

const never = new AbortController().signal;

test('two members meet once, each way, and carry a stream', async () => {
  await using a = await newHome();
  await using b = await newHome();
  const ids = [a.device.peerId, b.device.peerId] as const;
  await using swarmA = await a.start(fakeGroup('g', ids[0], ids));
  let meetings = 0;
  swarmA.onConnected(() => (meetings += 1));
  await using swarmB = await b.start(fakeGroup('g', ids[1], ids), { bootstrap: swarmA.addrs() });
  await Promise.all([meet(swarmA, ids[1]), meet(swarmB, ids[0])]);
  assert.equal(meetings, 1);
  const got = Promise.withResolvers<string>();
  swarmA.handle('exchange', (stream, peerId) => {
    stream.addEventListener('message', ({ data }) =>
      got.resolve(`${peerId} ${Buffer.from(data.subarray()).toString()}`),
    );
  });
  const stream = await swarmB.stream(ids[0], 'exchange', { signal: never });
  stream.send(Buffer.from('hello'));
  assert.equal(await got.promise, `${ids[1]} hello`);
  const [known] = swarmA.peers();
  assert.equal(known?.connected, true);
  assert.deepEqual(known?.addrs, [`/ip4/127.0.0.1/tcp/${swarmB.port}`]);
});

test('both dial at once: one meeting on each side, and streams work', async () => {
  await using a = await newHome();
  await using b = await newHome();
  const ids = [a.device.peerId, b.device.peerId] as const;
  const ports = await Promise.all([freePort(), freePort()]);
  const counts = { met: 0, parted: 0 };
  const [swarmA, swarmB] = await Promise.all(
    [a, b].map((home, index) =>
      home.start(fakeGroup('g', ids[index] ?? '', ids), {
        port: ports[index] ?? 0,
        bootstrap: [`/ip4/127.0.0.1/tcp/${ports[1 - index] ?? 0}/p2p/${ids[1 - index] ?? ''}`],
      }),
    ),
  );
  assert.ok(swarmA !== undefined && swarmB !== undefined);
  await using _both = disposeBoth(swarmA, swarmB);
  for (const swarm of [swarmA, swarmB]) {
    swarm.onConnected(() => (counts.met += 1));
    swarm.onDisconnected(() => (counts.parted += 1));
  }
  await Promise.all([meet(swarmA, ids[1]), meet(swarmB, ids[0])]);
  swarmB.handle('fs', (stream) => stream.send(Buffer.from('x')));
  const stream = await swarmA.stream(ids[1], 'fs', { signal: never });
  await new Promise<void>((resolve) => stream.addEventListener('message', () => resolve()));
  assert.equal(counts.parted, 0);
});

test('C is offline while D joins through A; A goes away; C and D still find each other', async () => {
  await using a = await newHome();
  await using c = await newHome();
  await using d = await newHome();
  const old = [a.device.peerId, c.device.peerId] as const;
  const groupA = fakeGroup('g', old[0], old);
  const groupC = fakeGroup('g', old[1], old);
  const swarmA = await a.start(groupA);
  const portOfC = await freePort();
  {
    await using swarmC = await c.start(groupC, { port: portOfC, bootstrap: swarmA.addrs() });
    await Promise.all([meet(swarmA, old[1]), meet(swarmC, old[0])]);
  }
  const seed = newGuestSeed();
  groupA.invite(guestKeyOf(seed));
  const code = encodeInvite({
    groupId: groupA.groupIdBytes,
    guestSeed: seed,
    peerId: old[0],
    addrs: swarmA.addrs(),
    vault: false,
  });
  const welcome = await joinByInvite(decodeInvite(code), NO_RECORDS, { deviceSeed: d.device.seed, signal: never });
  assert.deepEqual(new Set(welcome.peers.map(({ peerId }) => peerId)), new Set(old));

  const groupD = fakeGroup('g', d.device.peerId, []);
  await groupD.merge(welcome.records, old[0]);
  await using swarmD = await d.start(groupD, { bootstrap: swarmA.addrs() });
  await meet(swarmD, old[0]);
  await swarmA[Symbol.asyncDispose]();
  await using swarmC = await c.start(groupC, { port: portOfC });
  await Promise.all([meet(swarmC, d.device.peerId), meet(swarmD, old[1])]);
  assert.equal(groupC.roleOf(d.device.peerId)?.role, 'member');
});

test('a change of the list reaches connected members; a removed one is cut off and not let in again', async () => {
  await using a = await newHome();
  await using b = await newHome();
  await using c = await newHome();
  const ids = [a.device.peerId, b.device.peerId, c.device.peerId] as const;
  const groups = ids.map((peerId) => fakeGroup('g', peerId, ids));
  const [groupA, groupB, groupC] = groups;
  assert.ok(groupA !== undefined && groupB !== undefined && groupC !== undefined);
  await using swarmA = await a.start(groupA);
  await using swarmB = await b.start(groupB, { bootstrap: swarmA.addrs() });
  await using swarmC = await c.start(groupC, { bootstrap: swarmA.addrs() });
  await Promise.all([meet(swarmA, ids[1]), meet(swarmA, ids[2]), meet(swarmB, ids[2]), meet(swarmC, ids[1])]);
  const gone = Promise.all([part(swarmA, ids[2]), part(swarmB, ids[2])]);
  groupA.remove(ids[2]);
  await gone;
  assert.equal(groupB.roleOf(ids[2]), undefined);
  await assert.rejects(swarmA.stream(ids[2], 'exchange', { signal: never }), { code: 'NOT_ALLOWED' });
  await part(swarmC, ids[0]);
  await assert.rejects(swarmC.stream(ids[0], 'exchange', { signal: never }), { code: /UNREACHABLE|NOT_ALLOWED/u });
});

test('a member that restarts is found again, also on another port and without being told', async () => {
  await using a = await newHome();
  await using b = await newHome();
  const ids = [a.device.peerId, b.device.peerId] as const;
  await using swarmA = await a.start(fakeGroup('g', ids[0], ids));
  {
    await using swarmB = await b.start(fakeGroup('g', ids[1], ids), { bootstrap: swarmA.addrs() });
    await Promise.all([meet(swarmA, ids[1]), meet(swarmB, ids[0])]);
  }
  await part(swarmA, ids[1]);
  assert.equal(swarmA.peers()[0]?.connected, false);
  assert.ok(swarmA.peers()[0]?.lastSeenAt instanceof Date);
  await using swarmB = await b.start(fakeGroup('g', ids[1], ids));
  await Promise.all([meet(swarmA, ids[1]), meet(swarmB, ids[0])]);
  assert.ok(swarmA.peers()[0]?.addrs.includes(`/ip4/127.0.0.1/tcp/${swarmB.port}`));
});

test('heads: an acknowledgement after it is kept, a refusal in words', async () => {
  await using a = await newHome();
  await using b = await newHome();
  const ids = [a.device.peerId, b.device.peerId] as const;
  const groupA = fakeGroup('g', ids[0], ids);
  await using swarmA = await a.start(groupA);
  await using swarmB = await b.start(fakeGroup('g', ids[1], ids), { bootstrap: swarmA.addrs() });
  await meet(swarmB, ids[0]);
  const key = signingKeyFromSeed(b.device.seed);
  const headOf = (text: string): Uint8Array => {
    const payload = new Uint8Array(Buffer.from(text));
    return encodeEnvelope({ payload, signer: key.publicKey, signature: new Uint8Array(64) });
  };
  await swarmB.pushHead(ids[0], headOf('new'), { signal: never });
  assert.deepEqual(groupA.heads(), ['new']);
  await assert.rejects(swarmB.pushHead(ids[0], headOf('old'), { signal: never }), {
    code: 'PEER_REFUSED',
    message: /later head/u,
  });
  assert.deepEqual(groupA.heads(), ['new']);
});

test('provider records: three members, blocks and the group itself', async () => {
  await using a = await newHome();
  await using b = await newHome();
  await using c = await newHome();
  const ids = [a.device.peerId, b.device.peerId, c.device.peerId] as const;
  await using swarmA = await a.start(fakeGroup('g', ids[0], ids));
  await using swarmB = await b.start(fakeGroup('g', ids[1], ids), { bootstrap: swarmA.addrs() });
  await using swarmC = await c.start(fakeGroup('g', ids[2], ids), { bootstrap: swarmA.addrs() });
  await Promise.all([meet(swarmA, ids[1]), meet(swarmA, ids[2]), meet(swarmB, ids[2])]);
  const id = blockIdOf(Buffer.from('a manifest'));
  const signal = AbortSignal.timeout(20_000);
  const holders = new Set<string>();
  // A peer enters the routing tables some moments after it was greeted; until then nothing is filed with it.
  while (holders.size === 0) {
    await swarmA.provide(id, { signal });
    for await (const peerId of swarmC.providers(id, { signal })) holders.add(peerId);
  }
  assert.deepEqual([...holders], [ids[0]]);
  await swarmB.announceSelf({ signal });
  await swarmC.announceSelf({ signal });
});

test('a lone node provides and looks up without waiting for anybody', async () => {
  await using a = await newHome();
  await using swarm = await a.start(fakeGroup('g', a.device.peerId, [a.device.peerId]));
  const id = blockIdOf(Buffer.from('x'));
  await swarm.provide(id, { signal: never });
  for await (const peerId of swarm.providers(id, { signal: never })) assert.fail(peerId);
});

test('recovery guests get records without being let in; showing records that list a device lets it in', async () => {
  await using a = await newHome();
  await using b = await newHome();
  const ids = [a.device.peerId, b.device.peerId] as const;
  const group = fakeGroup('g', ids[0], [ids[0]]);
  const guest = guestKeyOf(newGuestSeed());
  await using swarm = await a.start(group);
  const caller = { deviceSeed: b.device.seed, signal: never };
  await assert.rejects(recoverFrom(swarm.addrs(), guest, caller), { code: 'NOT_ALLOWED', message: /unknown/u });
  group.invite(guest);
  const shown = { groupId: group.groupIdBytes, records: NO_RECORDS };
  await assert.rejects(presentRecords(swarm.addrs(), shown, caller), { code: 'NOT_ALLOWED' });
  const listing = fakeGroup('g', ids[1], ids).records();
  const welcome = await presentRecords(swarm.addrs(), { ...shown, records: listing }, caller);
  assert.deepEqual(welcome.groupId, group.groupIdBytes);
  assert.equal(group.roleOf(ids[1])?.role, 'member');
});

test('joining: a stranger to the inviter is refused, an address where nobody is is named', async () => {
  await using a = await newHome();
  await using b = await newHome();
  const group = fakeGroup('g', a.device.peerId, [a.device.peerId]);
  await using swarm = await a.start(group);
  const caller = { deviceSeed: b.device.seed, signal: never };
  const invite = (addrs: string[]) => ({
    groupId: group.groupIdBytes,
    guest: guestKeyOf(newGuestSeed()),
    peerId: a.device.peerId,
    addrs,
    vault: false,
  });
  await assert.rejects(joinByInvite(invite(swarm.addrs()), NO_RECORDS, caller), {
    code: 'INVITE',
    message: /unknown/u,
  });
  const deaf = `/ip4/127.0.0.1/tcp/${await freePort()}`;
  await assert.rejects(joinByInvite(invite([deaf]), NO_RECORDS, caller), (error: Error & { code?: string }) => {
    return error.code === 'UNREACHABLE' && error.message.includes(deaf);
  });
});

test('a port that is taken, an address that is none, a peer that is away', async () => {
  await using a = await newHome();
  const group = fakeGroup('g', a.device.peerId, [a.device.peerId]);
  const server = createServer();
  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port));
  });
  await assert.rejects(a.start(group, { port }), (error: Error & { code?: string }) => {
    return error.code === 'PORT_IN_USE' && error.message.includes(String(port));
  });
  server.close();
  await assert.rejects(a.start(group, { listen: ['nowhere'] }), { code: 'CONFIG' });
  await assert.rejects(a.start(group, { listen: ['192.0.2.77'] }), { code: 'CONFIG', message: /192\.0\.2\.77/u });
  await using b = await newHome();
  group.add(b.device.peerId);
  await using swarm = await a.start(group, { listen: [] });
  await assert.rejects(swarm.stream(b.device.peerId, 'fs', { signal: never }), {
    code: 'UNREACHABLE',
    message: new RegExp(b.device.peerId, 'u'),
  });
  assert.ok(swarm.addrs().length > 0);
});

function disposeBoth(...swarms: AsyncDisposable[]): AsyncDisposable {
  return {
    [Symbol.asyncDispose]: async () => void (await Promise.all(swarms.map((swarm) => swarm[Symbol.asyncDispose]()))),
  };
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer();
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
