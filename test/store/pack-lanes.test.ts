// Packs that others append to: kept once adopted, and no sooner.
import assert from 'node:assert/strict';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { openDiskStore, type DiskStore } from '../../src/store/disk-store.ts';
import { openPackAppender, type PackAppender } from '../../src/store/pack-appender.ts';
import type { LaneRecord } from '../../src/store/pack-lanes.ts';
import { withCode } from '../suites/content.ts';
import { idsOf, randomBlock } from '../suites/block-store.ts';
import { freshDir } from '../suites/pipeline-of.ts';

type Block = ReturnType<typeof randomBlock>;
const close = (store: DiskStore): Promise<void> => Promise.resolve(store[Symbol.asyncDispose]());
const OWNER: Uint8Array = new Uint8Array(32).fill(3);

/** A store, and an appender that was lent one of its packs. */
async function bench(t: TestContext) {
  const dir = await freshDir(t);
  const store = await openDiskStore(dir);
  const lane = await store.lanes.take();
  const appender = openPackAppender();
  appender.lend(lane);
  return { dir, store, lane, appender };
}

const append = (appender: PackAppender, { id, bytes }: Block): LaneRecord =>
  appender.append(id, OWNER, [bytes.subarray(0, 10), bytes.subarray(10)]);

async function assertHas(store: DiskStore, blocks: readonly Block[]): Promise<void> {
  for (const { id, bytes } of blocks) assert.deepEqual(await store.get(id), bytes);
}

test('what is adopted is kept: here, after a reopen, after a rebuild of the index', async (t) => {
  const { dir, store, lane, appender } = await bench(t);
  const blocks = [10, 0, 5000, 100_000].map(randomBlock);
  const records = blocks.map((block) => append(appender, block));
  for (const { id } of blocks) assert.equal(await store.has(id), false);
  await store.lanes.adopt(records);
  await assertHas(store, blocks);
  assert.deepEqual(await store.stat(blocks[2]?.id ?? ('' as never)), { owner: OWNER, length: 5000 });
  await store.lanes.giveBack(lane.pack);
  await close(store);
  const again = await openDiskStore(dir);
  await assertHas(again, blocks);
  await close(again);
  await rm(join(dir, 'index'), { recursive: true });
  const rebuilt = await openDiskStore(dir);
  await assertHas(rebuilt, blocks);
  assert.deepEqual((await rebuilt.verifyAll()).bad, []);
  await close(rebuilt);
});

test('a lent pack is left alone by puts, compactions and other lanes; given back it is used again', async (t) => {
  const { dir, store, lane, appender } = await bench(t);
  const own = randomBlock(50_000);
  await store.put(own.id, own.bytes);
  const [dead, alive] = [randomBlock(100_000), randomBlock(100)];
  await store.lanes.adopt([append(appender, dead), append(appender, alive)]);
  await store.delete(dead.id);
  await store.compact({ now: true });
  const other = await store.lanes.take();
  assert.notEqual(other.pack, lane.pack);
  const more = randomBlock(2000);
  await store.lanes.adopt([append(appender, more)]);
  await assertHas(store, [own, alive, more]);
  await store.lanes.giveBack(other.pack);
  await store.lanes.giveBack(lane.pack);
  assert.ok([other.pack, lane.pack].includes((await store.lanes.take()).pack));
  await store.compact({ now: true });
  await assertHas(store, [own, alive, more]);
  await close(store);
  const again = await openDiskStore(dir);
  await assertHas(again, [own, alive, more]);
  assert.equal(await again.has(dead.id), false);
  await close(again);
});

test('what was appended and not adopted is cut off when the pack is lent again', async (t) => {
  const { store, lane, appender } = await bench(t);
  const kept = randomBlock(1000);
  await store.lanes.adopt([append(appender, kept)]);
  const end = (await stat(lane.path)).size;
  append(appender, randomBlock(70_000));
  assert.ok((await stat(lane.path)).size > end);
  await store.lanes.giveBack(lane.pack);
  const again = await store.lanes.take();
  assert.deepEqual([again.pack, again.end], [lane.pack, end]);
  assert.equal((await stat(lane.path)).size, end);
  await assertHas(store, [kept]);
  await close(store);
});

test('what was appended under an earlier loan is not adopted', async (t) => {
  const { store, lane, appender } = await bench(t);
  const block = randomBlock(1000);
  const record = append(appender, block);
  const own = randomBlock(100);
  const putting = store.put(own.id, own.bytes);
  const [adopting, giving] = [store.lanes.adopt([record]), store.lanes.giveBack(lane.pack)];
  await Promise.all([putting, giving, adopting.catch(() => undefined)]);
  const again = await store.lanes.take();
  assert.equal(again.pack, lane.pack);
  assert.notEqual(again.loan, lane.loan);
  await assert.rejects(store.lanes.adopt([record]), withCode('IO'));
  await assertHas(store, [own]);
  assert.deepEqual((await store.verifyAll()).bad, []);
  await close(store);
});

test('a block that is here already stays where it is; deleted, it does not come back by a rebuild', async (t) => {
  const { dir, store, appender } = await bench(t);
  const block = randomBlock(3000);
  await store.put(block.id, block.bytes);
  const place = await store.locate([block.id]);
  const twice = [append(appender, block), append(appender, block)];
  await store.lanes.adopt(twice);
  await store.lanes.adopt(twice.slice(1));
  assert.deepEqual(await store.locate([block.id]), place);
  const within = randomBlock(10);
  await store.lanes.adopt([append(appender, within), append(appender, within)]);
  await assertHas(store, [block, within]);
  await store.deleteMany([block.id, within.id]);
  await close(store);
  await rm(join(dir, 'index'), { recursive: true });
  const rebuilt = await openDiskStore(dir);
  assert.deepEqual(await idsOf(rebuilt), []);
  await close(rebuilt);
});

test('adopting the same records again changes nothing', async (t) => {
  const { dir, store, appender } = await bench(t);
  const records = [randomBlock(100), randomBlock(200)].map((block) => append(appender, block));
  await store.lanes.adopt(records);
  const { usedBytes } = await store.space();
  await store.lanes.adopt(records);
  await Promise.all([store.lanes.adopt(records), store.lanes.adopt(records.slice(0, 1))]);
  assert.ok(Math.abs((await store.space()).usedBytes - usedBytes) < 2000);
  assert.equal((await idsOf(store)).length, 2);
  await close(store);
  const again = await openDiskStore(dir);
  assert.equal((await idsOf(again)).length, 2);
  await close(again);
});

test('an index that is rebuilt meanwhile knows what was adopted, and what is adopted later', async (t) => {
  const { store, appender } = await bench(t);
  const [one, two, three] = [randomBlock(100), randomBlock(200), randomBlock(300)] as [Block, Block, Block];
  await store.lanes.adopt([append(appender, one)]);
  const later = append(appender, two);
  await store.rebuild();
  await store.lanes.adopt([later]);
  const last = append(appender, three);
  await store.lanes.adopt([last]);
  await assertHas(store, [one, two, three]);
  await close(store);
});

test('a pack that is full is followed by the next; with none at hand it grows', async (t) => {
  const dir = await freshDir(t);
  const store = await openDiskStore(dir, { packBytes: 10_000 });
  const [first, second] = [await store.lanes.take(), await store.lanes.take()];
  const appender = openPackAppender();
  appender.lend(first);
  appender.lend(second);
  const blocks = Array.from({ length: 6 }, () => randomBlock(4000));
  const records = blocks.map((block) => append(appender, block));
  assert.deepEqual(
    records.map(({ pack }) => pack),
    [...Array.from({ length: 2 }, () => first.pack), ...Array.from({ length: 4 }, () => second.pack)],
  );
  assert.deepEqual(appender.takeFull(), [first.pack]);
  assert.deepEqual(appender.takeFull(), []);
  await store.lanes.adopt(records);
  await assertHas(store, blocks);
  await close(store);
  assert.equal((await readdir(join(dir, 'packs'))).length, 3);
});

test('no room is DISK_FULL before anything is written', async (t) => {
  const dir = await freshDir(t);
  const store = await openDiskStore(dir, { reserveBytes: Number.MAX_SAFE_INTEGER });
  const appender = openPackAppender();
  assert.doesNotThrow(() => appender.checkRoom(1));
  appender.lend(await store.lanes.take());
  assert.throws(() => appender.checkRoom(1), withCode('DISK_FULL'));
  await close(store);
});
