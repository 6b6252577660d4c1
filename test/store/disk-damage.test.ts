// What the disk store promises when its files are damaged: never wrong bytes, and never absence of a block whose record is there.
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { mkdtemp, cp, open, readdir, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { BlockId } from '../../src/store/block.ts';
import { openDiskStore, type DiskStore, type StoreNotice } from '../../src/store/disk-store.ts';
import { isDezentError } from '../../src/errors.ts';
import { idsOf, randomBlock } from '../suites/block-store.ts';

type Block = ReturnType<typeof randomBlock>;

async function freshDir(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-damage-'));
  t.after(() => rm(dir, { recursive: true }));
  return dir;
}

/** A closed store with live blocks (one of each size) and a few deleted ones. */
async function filledDir(t: TestContext): Promise<{ dir: string; blocks: Block[]; deleted: Block[] }> {
  const dir = await freshDir(t);
  const store = await openDiskStore(dir);
  const blocks = [0, 1, 100, 5000, 40_000, 300_000].flatMap((length) => [randomBlock(length), randomBlock(length + 7)]);
  const all = [...new Map(blocks.map((block) => [block.id, block])).values()];
  const deleted = [randomBlock(999), randomBlock(70_000)];
  for (const block of [...all, ...deleted]) await store.put(block.id, block.bytes);
  await store.deleteMany(deleted.map(({ id }) => id));
  await close(store);
  return { dir, blocks: all, deleted };
}

const close = (store: DiskStore): Promise<void> => Promise.resolve(store[Symbol.asyncDispose]());

async function filesIn(dir: string): Promise<string[]> {
  const names = await readdir(dir);
  return names.sort().map((name) => join(dir, name));
}

/** How each block reads: its bytes, or an error's code. */
async function readAll(store: DiskStore, blocks: Block[]): Promise<string[]> {
  return Promise.all(
    blocks.map(async ({ id, bytes }) => {
      try {
        const got = await store.get(id);
        if (got === undefined) return 'absent';
        return Buffer.compare(got, bytes) === 0 ? 'same' : 'WRONG';
      } catch (error) {
        return isDezentError(error) ? error.code : String(error);
      }
    }),
  );
}

async function flipBit(path: string, at: number): Promise<void> {
  const file = await open(path, 'r+');
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, at);
  buffer[0] = buffer[0]! ^ (1 << randomInt(8));
  await file.write(buffer, 0, 1, at);
  await file.close();
}

test('a bit flipped anywhere in a pack damages at most one block, which put mends', async (t) => {
  const { dir, blocks } = await filledDir(t);
  for (let round = 0; round < 25; round++) {
    const packs = await filesIn(join(dir, 'packs'));
    const pack = packs[randomInt(packs.length)]!;
    const { size } = await stat(pack);
    // Every other time in the first bytes, where many headers are.
    const at = randomInt(round % 2 === 0 ? size : Math.min(size, 12_000));
    await flipBit(pack, at);
    const notices: StoreNotice[] = [];
    const store = await openDiskStore(dir, { onNotice: (notice) => notices.push(notice) });
    const results = await readAll(store, blocks);
    const bad = results.flatMap((result, index) => (result === 'same' ? [] : [{ result, block: blocks[index]! }]));
    assert.ok(bad.length <= 1 && bad.every(({ result }) => result === 'BAD_BLOCK'), `${at}: ${results.join()}`);
    assert.deepEqual(
      (await store.verifyAll()).bad,
      bad.map(({ block }) => block.id),
    );
    for (const { block } of bad) {
      assert.ok(notices.some(({ what, id }) => what === 'bad-block' && id === block.id));
      assert.equal(await store.has(block.id), false);
      await store.put(block.id, block.bytes);
      assert.equal(await store.has(block.id), true);
    }
    assert.ok((await readAll(store, blocks)).every((result) => result === 'same'));
    await close(store);
    const again = await openDiskStore(dir);
    assert.ok((await readAll(again, blocks)).every((result) => result === 'same'));
    await close(again);
  }
});

test('a bit flipped anywhere in the index loses no block', async (t) => {
  const { dir, blocks, deleted } = await filledDir(t);
  const index = join(dir, 'index');
  for (let round = 0; round < 40; round++) {
    const files = (await filesIn(index)).filter(
      (path) => !path.endsWith('LOG') && !path.endsWith('LOG.old') && !path.endsWith('LOCK'),
    );
    const path = files[round % files.length]!;
    const { size } = await stat(path);
    if (size === 0) continue;
    const at = randomInt(size);
    await flipBit(path, at);
    const store = await openDiskStore(dir);
    assert.deepEqual(
      await readAll(store, blocks),
      blocks.map(() => 'same'),
      `${path} ${at}`,
    );
    assert.deepEqual(await idsOf(store), blocks.map(({ id }) => id).sort(), `${path} ${at}`);
    assert.deepEqual(await readAll(store, deleted), ['absent', 'absent'], `${path} ${at}`);
    const more = randomBlock(10);
    await store.put(more.id, more.bytes);
    blocks.push(more);
    await close(store);
  }
});

test('an index that is gone, emptied or cut off is made again, deletions included', async (t) => {
  const { dir, blocks, deleted } = await filledDir(t);
  const index = join(dir, 'index');
  const harms: (() => Promise<void>)[] = [
    () => rm(index, { recursive: true }),
    () => rm(join(index, 'CURRENT')),
    async () => {
      for (const path of await filesIn(index)) if (/\.(ldb|log)$/.test(path)) await rm(path);
    },
    async () => {
      for (const path of await filesIn(index)) await truncate(path, Math.floor((await stat(path)).size / 2));
    },
    async () => {
      for (const path of await filesIn(index)) await writeFile(path, 'not an index');
    },
  ];
  for (const harm of harms) {
    await harm();
    const notices: StoreNotice[] = [];
    const store = await openDiskStore(dir, { onNotice: (notice) => notices.push(notice) });
    assert.ok(
      notices.some(({ what }) => what === 'index-rebuilt'),
      harm.toString(),
    );
    assert.deepEqual(await idsOf(store), blocks.map(({ id }) => id).sort());
    assert.deepEqual(
      await readAll(store, blocks),
      blocks.map(() => 'same'),
    );
    assert.deepEqual(await readAll(store, deleted), ['absent', 'absent']);
    await close(store);
  }
});

test('rebuild while the store is used keeps everything', async (t) => {
  const { dir, blocks, deleted } = await filledDir(t);
  const store = await openDiskStore(dir);
  const more = Array.from({ length: 30 }, (_, index) => randomBlock(index * 50));
  const puts = more.map(({ id, bytes }) => store.put(id, bytes));
  const [{ blocks: counted }, results] = await Promise.all([
    store.rebuild(),
    readAll(store, blocks),
    store.rebuild(),
    ...puts,
  ]);
  assert.ok(counted >= blocks.length);
  assert.deepEqual(
    results,
    blocks.map(() => 'same'),
  );
  await store.rebuild();
  const known = new Set([...blocks, ...more].map(({ id }) => id));
  assert.deepEqual(await idsOf(store), [...known].sort());
  assert.deepEqual(await readAll(store, deleted), ['absent', 'absent']);
  await close(store);
});

test('a pack that is cut off anywhere loses what is cut, says so, and the rest reads', async (t) => {
  const { dir, blocks } = await filledDir(t);
  const [pack] = await filesIn(join(dir, 'packs'));
  assert.ok(pack);
  for (let size = (await stat(pack)).size; size > 0; size = Math.floor(size * 0.6)) {
    await truncate(pack, size);
    const store = await openDiskStore(dir);
    const results = await readAll(store, blocks);
    assert.ok(
      results.every((result) => result === 'same' || result === 'BAD_BLOCK'),
      `${size}: ${results.join()}`,
    );
    assert.ok(results.includes('BAD_BLOCK') || size > 300_000);
    await close(store);
  }
  const store = await openDiskStore(dir);
  for (const { id, bytes } of blocks) await store.put(id, bytes);
  assert.deepEqual(
    await readAll(store, blocks),
    blocks.map(() => 'same'),
  );
  await close(store);
  const again = await openDiskStore(dir);
  assert.deepEqual(
    await readAll(again, blocks),
    blocks.map(() => 'same'),
  );
  await close(again);
});

test('a pack that is missing makes its blocks unknown, not absent, and they return with it', async (t) => {
  const { dir, blocks } = await filledDir(t);
  const [pack] = await filesIn(join(dir, 'packs'));
  assert.ok(pack);
  await rename(pack, `${pack}.away`);
  const notices: StoreNotice[] = [];
  const store = await openDiskStore(dir, { onNotice: (notice) => notices.push(notice) });
  assert.ok(notices.some(({ what }) => what === 'pack-missing'));
  assert.deepEqual(
    await readAll(store, blocks),
    blocks.map(() => 'IO'),
  );
  const [mended] = blocks;
  await store.put(mended!.id, mended!.bytes);
  await close(store);
  await rename(`${pack}.away`, pack);
  const again = await openDiskStore(dir);
  assert.deepEqual(
    await readAll(again, blocks),
    blocks.map(() => 'same'),
  );
  await close(again);
});

test('what was written but not indexed is found at the next open; a torn end is cut off', async (t) => {
  const { dir, blocks, deleted } = await filledDir(t);
  const [pack] = await filesIn(join(dir, 'packs'));
  assert.ok(pack);
  // An older index beside a newer pack: as if the last batches of the index had not reached the disk.
  const older = `${dir}.index`;
  t.after(() => rm(older, { recursive: true, force: true }));
  await cp(join(dir, 'index'), older, { recursive: true });
  const store = await openDiskStore(dir);
  const late = Array.from({ length: 5 }, () => randomBlock(3000));
  await store.putMany(late);
  await store.delete(blocks[0]!.id);
  await close(store);
  await rm(join(dir, 'index'), { recursive: true });
  await rename(older, join(dir, 'index'));
  const whole = (await stat(pack)).size;
  const file = await open(pack, 'a');
  await file.write(Buffer.from('DZB1 and a torn header'));
  await file.close();
  const again = await openDiskStore(dir);
  const expected: BlockId[] = [...blocks.slice(1), ...late].map(({ id }) => id).sort();
  assert.deepEqual(await idsOf(again), expected);
  assert.deepEqual(await readAll(again, [...deleted, blocks[0]!]), ['absent', 'absent', 'absent']);
  const more = randomBlock(100);
  await again.put(more.id, more.bytes);
  assert.equal((await stat(pack)).size, whole + 180);
  await close(again);
});
