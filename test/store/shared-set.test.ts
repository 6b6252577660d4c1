import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import * as fc from 'fast-check';
import { enlargedSet, joinSharedSet, openSharedSet } from '../../src/store/shared-set.ts';
import { testBytes } from '../suites/content.ts';

function hashes(count: number, seed: number): Uint8Array[] {
  const all = testBytes(count * 32, seed);
  return Array.from({ length: count }, (_, at) => all.subarray(at * 32, (at + 1) * 32));
}

test('it holds what was added and nothing else, also after it was made larger', () => {
  fc.assert(
    fc.property(fc.nat(300), fc.nat(1000), (count, seed) => {
      let set = openSharedSet(16);
      for (const hash of hashes(count, seed)) {
        assert.equal(set.add(hash), true);
        assert.equal(set.add(hash), false);
        if (set.isFull()) set = enlargedSet(set);
      }
      const joined = joinSharedSet(set.memory);
      assert.ok(hashes(count, seed).every((hash) => joined.has(hash)));
      assert.ok(hashes(50, seed + 5000).every((hash) => !joined.has(hash)));
    }),
  );
});

test('hashes that share a place, and one that begins with zeros, are told apart', () => {
  const set = openSharedSet(4);
  const sameplace = [1, 2, 3].map((first) => Buffer.from([first, 0, 0, 0, 0, 0, 0, 4, ...Buffer.alloc(24)]));
  for (const hash of sameplace) assert.equal(set.add(hash), true);
  assert.ok(sameplace.every((hash) => set.has(hash)));
  const zeros = new Uint8Array(32);
  assert.equal(set.has(zeros), false);
  set.add(zeros);
  assert.equal(set.has(zeros), true);
});

test('a full set says of everything new that it is new', () => {
  const set = openSharedSet(4);
  for (const hash of hashes(4, 1)) set.add(hash);
  assert.ok(set.isFull());
  const [another] = hashes(1, 99) as [Uint8Array];
  assert.equal(set.add(another), true);
  assert.equal(set.add(another), true);
  assert.equal(set.has(another), false);
});

test('of several threads that add the same hash, one is told that it is new', async () => {
  const { memory } = openSharedSet(65_536);
  const code = `
    import { parentPort, workerData } from 'node:worker_threads';
    import { joinSharedSet } from '${new URL('../../src/store/shared-set.ts', import.meta.url).href}';
    const set = joinSharedSet(workerData.memory);
    let fresh = 0;
    for (const hash of workerData.hashes) if (set.add(hash)) fresh += 1;
    parentPort.postMessage(fresh);`;
  const url = new URL(`data:text/javascript,${encodeURIComponent(code)}`);
  const all = hashes(20_000, 3).map((hash) => Uint8Array.from(hash));
  const counts = await Promise.all(
    [0, 1, 2].map(
      () =>
        new Promise<number>((resolve, reject) => {
          const worker = new Worker(url, { workerData: { memory, hashes: all } });
          worker.on('message', resolve);
          worker.on('error', reject);
        }),
    ),
  );
  assert.equal(
    counts.reduce((sum, count) => sum + count, 0),
    20_000,
  );
});
