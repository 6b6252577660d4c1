// The dial loop, with a fake clock: backoff, starting over, and letting go.
import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { silentLog } from '../../../src/node/home/log.ts';
import { openReconnect } from '../../../src/node/swarm/reconnect.ts';

/** Lets promises that are settled run their continuations. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('dials at once, then 1 s, 2 s, … and at most a minute apart; hope starts over; a peer that is not wanted is let go', async () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  const wanted = new Set(['p']);
  const dialled: number[] = [];
  let clockMs = 0;
  const connected = new Set<string>();
  let reachable = false;
  const loop = openReconnect({
    peerId: 'me',
    wanted: () => [...wanted],
    isConnected: (peerId) => connected.has(peerId),
    async dial(peerId) {
      dialled.push(clockMs);
      if (!reachable) throw new Error('away');
      connected.add(peerId);
    },
    log: silentLog,
  });
  const pass = async (ms: number): Promise<void> => {
    for (let left = ms; left > 0; left -= 250) {
      clockMs += 250;
      mock.timers.tick(250);
      await settle();
    }
  };
  loop.tend();
  mock.timers.tick(0);
  await settle();
  await pass(300_000);
  const gaps = dialled.slice(1).map((at, index) => at - (dialled[index] ?? 0));
  assert.equal(dialled[0], 0);
  assert.ok((gaps[0] ?? 0) <= 1_250 && (gaps[1] ?? 0) <= 2_250 && (gaps[1] ?? 0) > (gaps[0] ?? 0));
  assert.ok(gaps.every((gap) => gap <= 60_250));
  assert.ok(gaps.at(-1) !== undefined && (gaps.at(-1) ?? 0) >= 45_000);

  const before = dialled.length;
  loop.hurry();
  await pass(3_000);
  assert.ok(dialled.length >= before + 2);
  reachable = true;
  await pass(60_000);
  const settled = dialled.length;
  await pass(120_000);
  assert.equal(dialled.length, settled);

  connected.delete('p');
  wanted.delete('p');
  loop.lost('p');
  await pass(5_000);
  assert.equal(dialled.length, settled);
  wanted.add('p');
  loop.lost('p');
  await pass(1_250);
  assert.equal(dialled.length, settled + 1);
  loop.stop();
  mock.timers.reset();
});
