// Sealers whose threads die, who are cancelled, who run out of disk: nothing that was acknowledged is lost, nothing hangs, nothing is torn.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test, type TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isDezentError } from '../../src/errors.ts';
import type { BlockId } from '../../src/store/block.ts';
import { openDiskStore } from '../../src/store/disk-store.ts';
import { decodeManifest } from '../../src/store/manifest.ts';
import { testBytes, withCode } from '../suites/content.ts';
import { bytesOf, freshDir, openPipeline, openTestIndex, type Pipeline } from '../suites/pipeline-of.ts';

const MIB: number = 1024 * 1024;
const FILE_BYTES: number = 70 * MIB;
const CHILD: string = join(import.meta.dirname, 'sealers-child.ts');

async function fileIn(dir: string, bytes: Uint8Array): Promise<string> {
  const path = join(dir, 'file');
  await writeFile(path, bytes);
  return path;
}

async function assertSound({ store, fetch }: Pipeline, manifest: Uint8Array, bytes: Uint8Array): Promise<void> {
  assert.ok((await bytesOf(decodeManifest(manifest), fetch)).equals(bytes));
  assert.deepEqual((await store.verifyAll()).bad, []);
}

test('a thread that dies is replaced, and the file is sealed all the same', async (t) => {
  const dir = await freshDir(t);
  const bytes = testBytes(FILE_BYTES, 1);
  const path = await fileIn(dir, bytes);
  for (const windows of [0, 1, 3]) {
    let seen = 0;
    let killed: Promise<unknown> = Promise.resolve();
    const beforeKeep = async (): Promise<void> => {
      if (seen++ === windows) killed = pipeline.workers[0]?.terminate() ?? killed;
    };
    const pipeline: Pipeline = await openPipeline(t, { needs: { beforeKeep } });
    const counted: number[] = [];
    const sealed = await pipeline.sealers.seal(
      { path, sizeBytes: FILE_BYTES },
      { onBytes: (count) => counted.push(count) },
    );
    await killed;
    assert.equal(
      counted.reduce((sum, count) => sum + count, 0),
      FILE_BYTES,
    );
    assert.equal(pipeline.workers.length, 3);
    await assertSound(pipeline, sealed.manifest, bytes);
    assert.ok((await pipeline.store.space()).usedBytes < FILE_BYTES * 1.6);
    await pipeline.close();
    const again = await openPipeline(t, { dir: pipeline.dir });
    await assertSound(again, sealed.manifest, bytes);
  }
});

test('threads that die at every try end in an error, not in a loop', async (t) => {
  const dir = await freshDir(t);
  const path = await fileIn(dir, testBytes(FILE_BYTES, 1));
  const { sealers, workers } = await openPipeline(t, {
    threads: { threads: 1 },
    needs: { beforeKeep: async () => void (await workers.at(-1)?.terminate()) },
  });
  await assert.rejects(sealers.seal({ path, sizeBytes: 3 * MIB }), withCode('INTERNAL'));
  assert.equal(workers.length, 3);
});

test('cancelling at any moment ends with the reason, keeps what was done, and the next try is whole', async (t) => {
  const dir = await freshDir(t);
  const bytes = testBytes(FILE_BYTES, 3);
  const path = await fileIn(dir, bytes);
  const pipeline = await openPipeline(t);
  const { sealers, index } = pipeline;
  const reason = new Error('enough');
  await assert.rejects(sealers.seal({ path, sizeBytes: FILE_BYTES }, { signal: AbortSignal.abort(reason) }), reason);
  for (const turns of [0, 1, 10, 300]) {
    const stop = new AbortController();
    const sealing = sealers.seal({ path, sizeBytes: FILE_BYTES }, { signal: stop.signal });
    const rejected = assert.rejects(sealing, (error) => error === reason);
    for (let turn = 0; turn < turns; turn += 1) await nextTurn();
    stop.abort(reason);
    await rejected;
  }
  for (const bytesSeen of [1, 20 * MIB]) {
    const stop = new AbortController();
    let seen = 0;
    const onBytes = (count: number): void => {
      seen += count;
      if (seen >= bytesSeen) stop.abort(reason);
    };
    await assert.rejects(sealers.seal({ path, sizeBytes: FILE_BYTES }, { signal: stop.signal, onBytes }), reason);
  }
  assert.ok(index.known.size > 0);
  const knownBefore = index.known.size;
  const sealed = await sealers.seal({ path, sizeBytes: FILE_BYTES });
  assert.ok(sealed.newBytes < FILE_BYTES && knownBefore < index.known.size);
  await assertSound(pipeline, sealed.manifest, bytes);
});

test('closing ends what is under way', async (t) => {
  const dir = await freshDir(t);
  const path = await fileIn(dir, testBytes(FILE_BYTES, 4));
  const pipeline = await openPipeline(t);
  const sealing = pipeline.sealers.seal({ path, sizeBytes: FILE_BYTES });
  const rejected = assert.rejects(sealing, withCode('CANCELLED'));
  await pipeline.close();
  await rejected;
  await assert.rejects(pipeline.sealers.seal({ path, sizeBytes: 1 }), withCode('CANCELLED'));
  const store = await openDiskStore(join(pipeline.dir, 'store'));
  assert.deepEqual((await store.verifyAll()).bad, []);
  await store[Symbol.asyncDispose]();
});

test('threads end when there is nothing to do, lend their packs back, and start again', async (t) => {
  const dir = await freshDir(t);
  const path = await fileIn(dir, testBytes(3 * MIB, 5));
  const { sealers, workers, store } = await openPipeline(t, { threads: { idleMs: 1 } });
  await sealers.seal({ path, sizeBytes: 3 * MIB });
  while (workers[0]?.threadId !== -1) await nextTurn();
  await writeFile(path, testBytes(3 * MIB, 6));
  await sealers.seal({ path, sizeBytes: 3 * MIB });
  assert.ok(workers.length > 1);
  // The half-full packs were appended to again; there are no more than both threads and the store's own writer need.
  const packs = new Set((await store.locate(await Array.fromAsync(store.ids()))).map((place) => place?.pack));
  assert.equal(packs.size, 1);
});

async function smallDisk(t: TestContext, mib: number): Promise<string | undefined> {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-small-disk-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${mib}m`, 'tmpfs', dir], { stdio: 'ignore' });
  } catch (error) {
    await rm(dir, { recursive: true });
    t.diagnostic(`mounting needs root, not tested here: ${String(error)}`);
    return undefined;
  }
  t.after(async () => {
    execFileSync('umount', ['-l', dir]);
    await rm(dir, { recursive: true });
  });
  return dir;
}

test('a disk that is full, or fills up in the middle, is DISK_FULL; with room again the file is sealed', async (t) => {
  const source = await freshDir(t);
  const bytes = testBytes(40 * MIB, 7);
  const path = await fileIn(source, bytes);
  for (const reserveBytes of [undefined, -100 * MIB]) {
    const disk = await smallDisk(t, 80);
    if (disk === undefined) return;
    const pipeline = await openPipeline(t, {
      dir: disk,
      ...(reserveBytes !== undefined && { store: { reserveBytes } }),
    });
    const ballast = await open(join(disk, 'ballast'), 'w');
    await ballast.writeFile(Buffer.alloc(55 * MIB));
    await assert.rejects(pipeline.sealers.seal({ path, sizeBytes: bytes.length }), withCode('DISK_FULL'));
    await ballast.truncate(0);
    await ballast.close();
    const sealed = await pipeline.sealers.seal({ path, sizeBytes: bytes.length });
    await assertSound(pipeline, sealed.manifest, bytes);
    await pipeline.close();
    const again = await openPipeline(t, { dir: disk });
    await assertSound(again, sealed.manifest, bytes);
    await again.close();
  }
});

test('deletions and compactions beside sealing lose nothing', async (t) => {
  const dir = await freshDir(t);
  const pipeline = await openPipeline(t, { store: { packBytes: 4 * MIB } });
  const { sealers, store, fetch } = pipeline;
  const kept: { manifest: Uint8Array; bytes: Uint8Array }[] = [];
  let gone: readonly BlockId[] = [];
  for (let round = 0; round < 8; round += 1) {
    const bytes = testBytes(5 * MIB, 100 + round);
    const path = join(dir, `file${round}`);
    await writeFile(path, bytes);
    const [sealed] = await Promise.all([
      sealers.seal({ path, sizeBytes: bytes.length }),
      store.deleteMany(gone).then(() => store.compact({ now: true })),
    ]);
    gone = round % 2 === 0 ? sealed.blocks : [];
    if (round % 2 === 1) kept.push({ manifest: sealed.manifest, bytes });
  }
  for (const { manifest, bytes } of kept) assert.ok((await bytesOf(decodeManifest(manifest), fetch)).equals(bytes));
  await pipeline.close();
  await rm(join(pipeline.dir, 'store', 'index'), { recursive: true });
  const again = await openPipeline(t, { dir: pipeline.dir });
  for (const { manifest, bytes } of kept) await assertSound(again, manifest, bytes);
});

test('an index that is rebuilt while threads append takes nothing away', async (t) => {
  const dir = await freshDir(t);
  const bytes = testBytes(FILE_BYTES, 8);
  const path = await fileIn(dir, bytes);
  let windows = 0;
  const rebuilds: Promise<unknown>[] = [];
  const beforeKeep = async (): Promise<void> => {
    if (windows++ % 2 === 0) rebuilds.push(pipeline.store.rebuild());
  };
  const pipeline: Pipeline = await openPipeline(t, { needs: { beforeKeep } });
  const sealed = await pipeline.sealers.seal({ path, sizeBytes: FILE_BYTES });
  await Promise.all(rebuilds);
  assert.ok(rebuilds.length > 1);
  await assertSound(pipeline, sealed.manifest, bytes);
  await pipeline.close();
  await assertSound(await openPipeline(t, { dir: pipeline.dir }), sealed.manifest, bytes);
});

interface Sealed {
  seed: number;
  manifest: Buffer;
}

/** Runs a child that seals files and kills it after so many; gives what it acknowledged. */
async function killedAfter(dir: string, lines: number): Promise<Sealed[]> {
  const child = spawn(process.execPath, [CHILD, dir], { stdio: ['ignore', 'pipe', 'inherit'] });
  const sealed: Sealed[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    const [seed, manifest = ''] = line.split(' ');
    sealed.push({ seed: Number(seed), manifest: Buffer.from(manifest, 'base64') });
    if (sealed.length >= lines) child.kill('SIGKILL');
  }
  return sealed;
}

test('kill -9 while files are sealed loses none that was acknowledged', async (t) => {
  const dir = await freshDir(t);
  const all: Sealed[] = [];
  for (let round = 0; round < 3; round += 1) {
    all.push(...(await killedAfter(dir, 3 + round * 4)));
    if (round === 1) await rm(join(dir, 'store', 'index'), { recursive: true });
    const again = await openPipeline(t, { dir });
    for (const { seed, manifest } of all) {
      const { size } = decodeManifest(manifest);
      assert.ok((await bytesOf(decodeManifest(manifest), again.fetch)).equals(testBytes(size, seed)));
    }
    assert.deepEqual((await again.store.verifyAll()).bad, []);
    await again.close();
  }
  assert.ok(all.length > 10);
});

test('the set of known hashes is filled before the first file is sealed, and its error is that of the file', async (t) => {
  const index = openTestIndex();
  const broken = new Error('broken index');
  async function* plainHashes(): AsyncGenerator<Uint8Array[]> {
    yield [];
    throw broken;
  }
  const { sealers, dir } = await openPipeline(t, { needs: { index: { ...index, plainHashes } } });
  const path = await fileIn(dir, testBytes(100_000, 1));
  await assert.rejects(sealers.seal({ path, sizeBytes: 100_000 }), (error) => error === broken);
  assert.ok(!isDezentError(broken));
});
