import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openOwnBlocks, type OwnBlocks } from '../../../src/node/copies/own-blocks.ts';
import { openState } from '../../../src/node/home/state.ts';
import type { BlockId } from '../../../src/store/block.ts';
import { openMemoryStore } from '../../../src/store/memory-store.ts';
import { blockOf } from './holder.ts';

async function newWorld() {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-own-'));
  const store = openMemoryStore();
  const settings = { minCopies: 2, cacheMaxBytes: 1e9 };
  const copies = new Map<BlockId, number>();
  const left: BlockId[] = [];
  let db = await openState(dir);
  const open = (): Promise<OwnBlocks> =>
    openOwnBlocks({
      db,
      store,
      settings: { minCopies: () => settings.minCopies, cacheMaxBytes: () => settings.cacheMaxBytes },
      copiesOf: (id) => copies.get(id) ?? 0,
      async remove(ids) {
        await store.deleteMany(ids);
        return ids;
      },
      onLeft: (ids) => void left.push(...ids),
    });
  const world = {
    store,
    settings,
    copies,
    left,
    own: await open(),
    async restart() {
      await db.close();
      db = await openState(dir);
      world.own = await open();
    },
    async [Symbol.asyncDispose]() {
      await db.close();
      await rm(dir, { recursive: true });
    },
  };
  return world;
}

const blocks = ['a', 'b', 'c', 'd'].map((name) => blockOf(name, 100));
const ids = blocks.map(({ id }) => id);

test('what is put is own, also after a restart, and before its bytes are there', async () => {
  await using world = await newWorld();
  const { putMany } = world.store;
  world.store.putMany = async (...args) => {
    for (const id of ids) assert.ok(world.own.isOwn(id));
    return putMany(...args);
  };
  await world.own.putMany(blocks);
  await world.restart();
  assert.ok(ids.every((id) => world.own.isOwn(id)));
  assert.equal(world.own.isOwn(blockOf('other').id), false);
});

test('no block leaves while fewer than `min` others keep it', async () => {
  await using world = await newWorld();
  await world.own.putMany(blocks);
  world.copies
    .set(ids[0] as BlockId, 1)
    .set(ids[1] as BlockId, 2)
    .set(ids[2] as BlockId, 3);
  assert.deepEqual(await world.own.evict(ids, true), [ids[1], ids[2]]);
  assert.deepEqual(new Set(await Array.fromAsync(world.store.ids())), new Set([ids[0], ids[3]]));
  assert.deepEqual(world.left, [ids[1], ids[2]]);
  assert.deepEqual(
    ids.map((id) => world.own.isOwn(id)),
    [true, false, false, true],
  );
});

test('with `copies.min` 0 none ever leaves', async () => {
  await using world = await newWorld();
  world.settings.minCopies = 0;
  world.settings.cacheMaxBytes = 0;
  await world.own.putMany(blocks);
  for (const now of [true, false]) assert.deepEqual(await world.own.evict(ids, now), []);
  assert.equal((await Array.fromAsync(world.store.ids())).length, 4);
});

test("what is kept for others and not own is none of this part's business", async () => {
  await using world = await newWorld();
  await world.store.putMany(blocks);
  for (const id of ids) world.copies.set(id, 5);
  assert.deepEqual(await world.own.evict(ids, true), []);
});

test('as a cache the oldest leave first, when it is full, also after a restart', async () => {
  await using world = await newWorld();
  world.settings.cacheMaxBytes = 250;
  for (const id of ids) world.copies.set(id, 2);
  await world.own.putMany(blocks);
  assert.deepEqual(await world.own.evict(ids.slice(0, 2), false), []);
  await world.restart();
  assert.deepEqual(await world.own.evict(ids.slice(2, 3), false), [ids[0]]);
  assert.deepEqual(await world.own.evict(ids.slice(3), false), [ids[1]]);
  assert.deepEqual(await Array.fromAsync(world.store.ids()), ids.slice(2).sort());
});

test('what may not leave when the cache is full leaves once it may', async () => {
  await using world = await newWorld();
  world.settings.cacheMaxBytes = 0;
  await world.own.putMany(blocks);
  assert.deepEqual(await world.own.evict(ids.slice(0, 3), false), []);
  for (const id of ids) world.copies.set(id, 2);
  assert.deepEqual((await world.own.evict(ids.slice(3), false)).toSorted(), ids.toSorted());
  assert.deepEqual(await Array.fromAsync(world.store.ids()), []);
});

test('evictions come one after the other, and one that fails does not stop the next', async () => {
  await using world = await newWorld();
  await world.own.putMany(blocks);
  for (const id of ids) world.copies.set(id, 2);
  const { deleteMany } = world.store;
  world.store.deleteMany = () => Promise.reject(new Error('disk'));
  const failing = world.own.evict(ids.slice(0, 1), true);
  await assert.rejects(failing, /disk/);
  assert.ok(world.own.isOwn(ids[0] as BlockId));
  world.store.deleteMany = deleteMany;
  const both = await Promise.all([world.own.evict(ids.slice(0, 2), true), world.own.evict(ids.slice(1), true)]);
  assert.deepEqual(both.flat().toSorted(), ids.toSorted());
});
