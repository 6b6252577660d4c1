// The space of a disk store: given back after deletions, and what happens when there is none.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { openDiskStore, type DiskStore } from '../../src/store/disk-store.ts';
import { isDezentError } from '../../src/errors.ts';
import { idsOf, randomBlock } from '../suites/block-store.ts';

type Block = ReturnType<typeof randomBlock>;
const MIB: number = 1024 * 1024;
const isFull = (error: unknown): boolean => isDezentError(error, 'DISK_FULL');
const close = (store: DiskStore): Promise<void> => Promise.resolve(store[Symbol.asyncDispose]());

async function freshDir(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-space-'));
  t.after(() => rm(dir, { recursive: true }));
  return dir;
}

async function packBytes(dir: string): Promise<number> {
  const packs = join(dir, 'packs');
  const sizes = await Promise.all((await readdir(packs)).map(async (name) => (await stat(join(packs, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

async function filled(store: DiskStore, count: number, length: number): Promise<Block[]> {
  const blocks = Array.from({ length: count }, () => randomBlock(length));
  await store.putMany(blocks);
  return blocks;
}

async function assertKept(store: DiskStore, blocks: Block[]): Promise<void> {
  for (const { id, bytes } of blocks) {
    const kept = await store.get(id);
    assert.ok(kept && Buffer.compare(kept, bytes) === 0);
  }
}

test('compact now gives the space of deleted blocks back, of the pack in use too', async (t) => {
  const dir = await freshDir(t);
  const store = await openDiskStore(dir, { packBytes: 4 * MIB });
  const blocks = await filled(store, 20, MIB / 2);
  const before = (await store.space()).usedBytes;
  const [gone, kept] = [blocks.filter((_, index) => index % 3 > 0), blocks.filter((_, index) => index % 3 === 0)];
  await store.deleteMany(gone.map(({ id }) => id));
  await store.compact({ now: true });
  assert.ok((await packBytes(dir)) < (kept.length + 1) * (MIB / 2));
  assert.ok((await store.space()).usedBytes < before / 2);
  await assertKept(store, kept);
  await store.deleteMany(kept.map(({ id }) => id));
  await store.compact({ now: true });
  await store.compact({ now: true });
  assert.ok((await packBytes(dir)) < 10_000);
  await close(store);
  await rm(join(dir, 'index'), { recursive: true });
  const again = await openDiskStore(dir);
  assert.deepEqual(await idsOf(again), []);
  await close(again);
});

test('one deleted block of many is given back at once', async (t) => {
  const dir = await freshDir(t);
  const store = await openDiskStore(dir);
  const [first, ...rest] = await filled(store, 10, MIB);
  await store.delete(first!.id);
  const { freedBytes } = await store.compact({ now: true });
  assert.ok(freedBytes > MIB - 1000 && (await packBytes(dir)) < 9 * MIB + 10_000);
  await assertKept(store, rest);
  assert.equal((await store.compact({ now: true })).freedBytes, 0);
  await close(store);
});

test('packs that are half dead are compacted in the background, while blocks are read and put', async (t) => {
  const dir = await freshDir(t);
  const store = await openDiskStore(dir, { packBytes: MIB });
  const kept: Block[] = [];
  for (let round = 0; round < 8; round++) {
    const blocks = await filled(store, 20, 50_000);
    kept.push(...blocks.splice(0, 5));
    await Promise.all([store.deleteMany(blocks.map(({ id }) => id)), assertKept(store, kept), assertKept(store, kept)]);
  }
  await store.compact();
  assert.ok((await packBytes(dir)) < 2.2 * kept.length * 50_000 + MIB);
  await assertKept(store, kept);
  await close(store);
  await rm(join(dir, 'index'), { recursive: true });
  const again = await openDiskStore(dir);
  assert.deepEqual(await idsOf(again), kept.map(({ id }) => id).sort());
  await close(again);
});

/** A file system of its own of this size, or undefined where mounting is not allowed. */
async function smallDisk(t: TestContext, mib: number): Promise<string | undefined> {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-disk-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${mib}m`, 'tmpfs', dir], { stdio: 'ignore' });
  } catch {
    await rm(dir, { recursive: true });
    t.diagnostic('mounting needs root: not tested here');
    return undefined;
  }
  t.after(async () => {
    execFileSync('umount', ['-l', dir]);
    await rm(dir, { recursive: true });
  });
  assert.notEqual((await stat(dir)).dev, (await stat(tmpdir())).dev);
  return dir;
}

test('a full disk refuses puts before the index is in danger, and goes on once there is space', async (t) => {
  const dir = await smallDisk(t, 48);
  if (dir === undefined) return;
  const store = await openDiskStore(dir, { packBytes: 8 * MIB });
  const kept: Block[] = [];
  await assert.rejects(async () => {
    for (;;) kept.push(...(await filled(store, 1, MIB)));
  }, isFull);
  assert.ok(kept.length > 20 && (await store.space()).freeBytes > 10 * MIB);
  await assertKept(store, kept);
  await store.deleteMany(kept.splice(0, 10).map(({ id }) => id));
  await store.compact({ now: true });
  kept.push(...(await filled(store, 5, MIB)));
  await assertKept(store, kept);
  await close(store);
});

test('a disk that fills up in the middle of an append loses nothing', async (t) => {
  const dir = await smallDisk(t, 24);
  if (dir === undefined) return;
  const store = await openDiskStore(dir, { reserveBytes: -100 * MIB });
  const kept: Block[] = [];
  const ballast = join(dir, 'ballast');
  for (let round = 0; round < 3; round++) {
    // Others fill the disk to a varying rest, so that now the pack and now the index runs out of space.
    const { freeBytes } = await store.space();
    await writeFile(ballast, Buffer.alloc(Math.max(0, freeBytes - [2.5 * MIB, 9000, 700_000][round]!)));
    for (let tries = 0; tries < 12; tries++) {
      const block = randomBlock([300_000, 1000, 50_000][round]!);
      try {
        await store.put(block.id, block.bytes);
        kept.push(block);
      } catch (error) {
        assert.ok(isFull(error), String(error));
      }
    }
    await rm(ballast);
    const more = randomBlock(1000);
    await store.put(more.id, more.bytes);
    kept.push(more);
    await assertKept(store, kept);
  }
  await close(store);
  const again = await openDiskStore(dir);
  await assertKept(again, kept);
  assert.deepEqual((await again.verifyAll()).bad, []);
  await close(again);
});
