// Too few peers: nothing gives way, the node says what is missing, and goes on by itself once another peer joins.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import type { AddedFile, InviteValue, WhyValue, WhereisValue } from '../../src/node/control/control-api.ts';
import { assertSameFiles, snapshotOf } from '../suites/real-files.ts';
import { openRealNodes, QUICK, until, untilConnected, untilState, type RealNode } from '../suites/real-nodes.ts';

const NAMES: readonly string[] = ['small.bin', 'large.bin'];

test('one peer and min 2: everything waits and says why; a second peer joins and it goes on by itself', async (t) => {
  const nodes = openRealNodes(t);
  const [ada, ben] = (await nodes.makeGroup(['ada', 'ben'], { settings: QUICK })) as [RealNode, RealNode];
  writeFileSync(ada.path('small.bin'), randomBytes(9000));
  writeFileSync(ada.path('large.bin'), randomBytes(3_000_000));
  const originals = await snapshotOf(ada.folder);

  // The first peer has its copy: all that could be done is done.
  await untilState(ada, NAMES, 'waiting');
  const late = await ada.cli('add', '--timeout', '1500ms', ...NAMES);
  assert.equal(late.code, 4, late.stdout);
  assert.match(late.stdout, /"TIMEOUT".*1 of 2 copies.*1 more must join/);
  for (const name of NAMES) {
    const { state, reason } = await ada.must<WhyValue>('why', name);
    assert.equal(state, 'waiting');
    assert.match(reason, /1 of 2 copies: the group has only 1 other machine that can keep it, 1 more must join/);
    const { copies, holders, missing } = await ada.must<WhereisValue>('whereis', name);
    assert.deepEqual([copies, holders.map(({ deviceId }) => deviceId), missing], [1, [ben.deviceId], 1]);
  }
  const refused = await ada.cli('free', ...NAMES);
  assert.equal(refused.code, 3, refused.stdout);
  assert.match(refused.stdout, /"UNSAFE".*1 of 2 copies/);
  assertSameFiles(await snapshotOf(ada.folder), originals);

  const { invite } = await ada.must<InviteValue>('invite', '--uses', '2');
  const cleo = await nodes.make('cleo', { settings: QUICK, invite });
  await untilState(ada, NAMES, 'stubbed');
  await untilConnected([ada, ben, cleo]);
  const again = await ada.must<AddedFile[]>('add', ...NAMES);
  assert.deepEqual(
    again.map(({ path, newBytes, copies, state }) => ({ path, newBytes, copies, state })),
    NAMES.map((path) => ({ path, newBytes: 0, copies: 2, state: 'stubbed' })),
  );
  const all = await ada.must<WhereisValue>('whereis', ada.folder);
  assert.deepEqual(new Set(all.holders.map(({ deviceId }) => deviceId)), new Set([ben.deviceId, cleo.deviceId]));

  // The target is 3: a third machine gets its copy as soon as there is one.
  await nodes.make('dora', { settings: QUICK, invite });
  await until('each file to have 3 copies', async () => (await ada.ls()).every(({ copies }) => copies === 3));
});

test('two nodes on one machine count as one copy', async (t) => {
  const nodes = openRealNodes(t);
  const ada = await nodes.make('ada', { settings: QUICK });
  const { invite } = await ada.must<InviteValue>('invite', '--uses', '2');
  // Of one owner, on one machine: losing that machine loses both.
  const ben = await nodes.make('ben', { settings: QUICK, invite });
  writeFileSync(`${nodes.top}/phrase`, ben.phrase ?? assert.fail('no phrase'), { mode: 0o600 });
  const [, port] = /tcp\/(\d+)/.exec(`tcp/${ben.port}`) ?? [];
  const peer = `/ip4/127.0.0.1/tcp/${port}/p2p/${ben.deviceId}`;
  const next = await nodes.make('ben 2', {
    settings: QUICK,
    init: ['--phrase-file', `${nodes.top}/phrase`, '--peer', peer],
  });
  assert.equal(next.ownerId, ben.ownerId);
  await untilConnected([ada, ben, next]);
  writeFileSync(ada.path('small.bin'), randomBytes(9000));
  await untilState(ada, ['small.bin'], 'waiting');
  const late = await ada.cli('add', '--timeout', '1500ms', 'small.bin');
  assert.equal(late.code, 4, late.stdout);
  const { copies } = await ada.must<WhereisValue>('whereis', 'small.bin');
  assert.equal(copies, 1);
  const { reason } = await ada.must<WhyValue>('why', 'small.bin');
  assert.match(reason, /1 of 2 copies/);
});
