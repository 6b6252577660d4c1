// Files given back by several threads: the same bytes, checked, wherever their blocks lie and whatever happens to them meanwhile.
import assert from 'node:assert/strict';
import { chmod, link, mkdir, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import * as fc from 'fast-check';
import { blockIdOf, type BlockId } from '../../src/store/block.ts';
import { decodeManifest, encodeManifest, type Extent, type Manifest, type Root } from '../../src/store/manifest.ts';
import type { OpenOptions, OpenSmallOptions, SmallTarget, SmallWritten } from '../../src/store/sealing.ts';
import { sealSolid } from '../../src/store/solid.ts';
import { inPieces, testBytes, TEST_KEYS, withCode } from '../suites/content.ts';
import { freshDir, openPipeline, openTestIndex, type Pipeline } from '../suites/pipeline-of.ts';
import { toContent } from '../../src/store/pipeline.ts';
import { SPLIT_SMALL } from '../../src/store/split.ts';
import { openMemoryStore } from '../../src/store/memory-store.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

async function sealed({ dir, sealers }: Pipeline, bytes: Uint8Array, earlierAverage?: number): Promise<Manifest> {
  const path = join(dir, `source-${blockIdOf(bytes)}`);
  await writeFile(path, bytes);
  const request = { path, sizeBytes: bytes.length, ...(earlierAverage !== undefined && { earlierAverage }) };
  return decodeManifest((await sealers.seal(request)).manifest);
}

const never = (): never => assert.fail('nothing has to be fetched');

/** Opens a manifest to a new file and gives its bytes. */
async function opened(pipeline: Pipeline, manifest: Manifest, options: OpenOptions): Promise<Buffer> {
  const path = join(pipeline.dir, 'opened');
  const file = await open(path, 'wx+');
  try {
    await file.truncate(manifest.size);
    await pipeline.openers.open(manifest, file.fd, options);
    return await readFile(path);
  } finally {
    await file.close();
    await rm(path);
  }
}

test('open gives back what seal took in, for any size', async (t) => {
  const pipeline = await openPipeline(t);
  const sizes = fc.oneof(fc.integer({ min: 0, max: 100_000 }), fc.integer({ min: 0, max: 4 * MIB }));
  await fc.assert(
    fc.asyncProperty(sizes, fc.nat(1000), async (length, seed) => {
      const half = testBytes(length >> 1, seed);
      const bytes = Buffer.concat([half, Buffer.alloc(length - half.length, `text ${seed}`)]);
      const manifest = await sealed(pipeline, bytes);
      let counted = 0;
      const onBytes = (count: number): void => void (counted += count);
      assert.ok((await opened(pipeline, manifest, { fetch: never, onBytes })).equals(bytes));
      assert.equal(counted, length);
    }),
    { numRuns: 30 },
  );
});

test('a large file with pages comes back; pages are fetched', async (t) => {
  const pipeline = await openPipeline(t);
  const bytes = testBytes(180 * MIB, 5);
  const manifest = await sealed(pipeline, bytes, SPLIT_SMALL.averageBytes);
  assert.ok('pages' in manifest);
  const fetched: BlockId[] = [];
  const fetch = (id: BlockId): Promise<Uint8Array> => (fetched.push(id), pipeline.fetch(id));
  assert.ok((await opened(pipeline, manifest, { fetch })).equals(bytes));
  assert.deepEqual(fetched, [...new Set(manifest.pages.map(({ block }) => block))]);
});

test('blocks that are elsewhere, damaged, or were moved meanwhile are fetched', async (t) => {
  const pipeline = await openPipeline(t, { store: { packBytes: 2 * MIB } });
  const { store, dir } = pipeline;
  const bytes = testBytes(40 * MIB, 6);
  const manifest = (await sealed(pipeline, bytes)) as Manifest & { extents: Extent[] };
  const elsewhere = openMemoryStore();
  for (const { block } of manifest.extents) await elsewhere.put(block, await pipeline.fetch(block));
  const fetched = new Set<BlockId>();
  const fetch = async (id: BlockId): Promise<Uint8Array> => {
    fetched.add(id);
    const bytes = await elsewhere.get(id);
    assert.ok(bytes);
    return bytes;
  };
  const ids = manifest.extents.map(({ block }) => block);
  const [gone, ...others] = ids as [BlockId, ...BlockId[]];
  await store.delete(gone);
  await store.compact({ now: true }); // nothing moves from here on
  // The one that lies furthest back in any pack is cut off, so that the other is not, whichever packs they are in.
  const places = (await store.locate(others)).map((place, at) => ({
    id: others[at] as BlockId,
    place: place ?? assert.fail(),
  }));
  const [last, other] = places.sort((one, two) => two.place.offset - one.place.offset);
  assert.ok(last && other);
  const { id: cut, place: cutAt } = last;
  const { id: flipped, place: flippedAt } = other;
  await truncate(cutAt.path, cutAt.offset + 90);
  const pack = await open(flippedAt.path, 'r+');
  await pack.write(Buffer.of(1, 2, 3), 0, 3, flippedAt.offset + 200);
  await pack.close();
  assert.ok((await opened(pipeline, manifest, { fetch })).equals(bytes));
  assert.ok(fetched.has(gone) && fetched.has(cut) && fetched.has(flipped));
  fetched.clear();
  // The place is only a hint: the pack may be gone by the time a thread reads it.
  for (const name of await readdir(join(dir, 'store', 'packs'))) await rm(join(dir, 'store', 'packs', name));
  assert.ok((await opened(pipeline, manifest, { fetch })).equals(bytes));
  assert.equal(fetched.size, ids.length);
});

test('wrong content is BAD_MANIFEST, nobody who has it is the error of the fetch', async (t) => {
  const pipeline = await openPipeline(t);
  const manifest = (await sealed(pipeline, testBytes(MIB, 7))) as Manifest & { extents: Extent[] };
  const swapped = { ...manifest, extents: [...manifest.extents].reverse() };
  await assert.rejects(opened(pipeline, swapped, { fetch: never }), withCode('BAD_MANIFEST'));
  const beyond = { ...manifest, extents: manifest.extents.map((extent) => ({ ...extent, offset: 10 })) };
  await assert.rejects(opened(pipeline, beyond, { fetch: never }), withCode('BAD_MANIFEST'));
  const [first, ...rest] = manifest.extents as [Extent, ...Extent[]];
  const wrongKey = { ...manifest, extents: [{ ...first, key: new Uint8Array(32) }, ...rest] };
  await assert.rejects(opened(pipeline, wrongKey, { fetch: never }), withCode('BAD_BLOCK'));
  const inline = { size: 3, contentHash: new Uint8Array(32), average: 1, inline: Buffer.from('abc') };
  await assert.rejects(opened(pipeline, inline, { fetch: never }), withCode('BAD_MANIFEST'));
  await pipeline.store.delete(first.block);
  const unreachable = new Error('unreachable');
  await assert.rejects(
    opened(pipeline, manifest, { fetch: () => Promise.reject(unreachable) }),
    (error) => error === unreachable,
  );
});

test('cancelling ends with the reason when nobody writes any more; a thread that dies is replaced', async (t) => {
  const pipeline = await openPipeline(t);
  const bytes = testBytes(60 * MIB, 8);
  const manifest = await sealed(pipeline, bytes);
  const reason = new Error('enough');
  const stop = new AbortController();
  const onBytes = (): void => stop.abort(reason);
  await assert.rejects(opened(pipeline, manifest, { fetch: never, signal: stop.signal, onBytes }), reason);
  let killed: Promise<unknown> | undefined;
  const kill = (): void => void (killed ??= pipeline.workers.at(-1)?.terminate());
  assert.ok((await opened(pipeline, manifest, { fetch: never, onBytes: kill })).equals(bytes));
  await killed;
});

test('a target that cannot be written is the error of the system', async (t) => {
  const pipeline = await openPipeline(t);
  const manifest = await sealed(pipeline, testBytes(MIB, 9));
  const file = await open(join(pipeline.dir, 'read-only'), 'w');
  await file.close();
  const readOnly = await open(join(pipeline.dir, 'read-only'), 'r');
  await assert.rejects(pipeline.openers.open(manifest, readOnly.fd, { fetch: never }), { code: 'EBADF' });
  await readOnly.close();
});

/** Many small files in solid blocks; roots by their contents. */
async function solidOf({ store }: Pipeline, contents: readonly Uint8Array[]): Promise<Root[]> {
  const roots: Root[] = [];
  for (let at = 0; at < contents.length; at += 100) {
    const parts = await Promise.all(
      contents.slice(at, at + 100).map(async (bytes) => {
        const needs = { keys: TEST_KEYS, store: openMemoryStore(), index: openTestIndex() };
        return (await toContent(inPieces(bytes), needs, { sizeBytes: bytes.length })).manifest;
      }),
    );
    const { block, roots: some } = await sealSolid(parts, TEST_KEYS);
    await store.putMany([block]);
    roots.push(...some);
  }
  return roots;
}

async function smallBench(t: TestContext, count: number) {
  const pipeline = await openPipeline(t);
  const out = join(await freshDir(t), 'out');
  await mkdir(out);
  const contents = Array.from({ length: count }, (_, at) => testBytes((at * 31) % 5000, at));
  const roots = await solidOf(pipeline, contents);
  const targets = roots.map((root, at): SmallTarget => ({
    root,
    tmp: join(out, `.tmp-${at}`),
    path: join(out, `${at}`),
    mode: at % 2 === 0 ? 0o640 : 0o4755,
    mtimeUs: 1_600_000_000_123_456 + at * 1000,
  }));
  const write = (some: readonly SmallTarget[], options: Partial<OpenSmallOptions> = {}): Promise<SmallWritten[]> =>
    pipeline.openers.openSmall(some, { fetch: never, ...options });
  return { ...pipeline, out, contents, targets, write };
}

test('small files come back with mode and time, and are made durable before they get their names', async (t) => {
  const { out, contents, targets, write } = await smallBench(t, 950);
  const atSync: string[] = [];
  let counted = 0;
  const results = await write(targets, {
    onBytes: (count) => (counted += count),
    beforeNames: async (directories) => {
      assert.deepEqual(directories, [out]);
      atSync.push(...(await readdir(out)));
    },
  });
  assert.equal(atSync.length, 950);
  assert.ok(atSync.every((name) => name.startsWith('.tmp-')));
  assert.deepEqual(
    results,
    contents.map(({ length }) => ({ sizeBytes: length })),
  );
  assert.equal(
    counted,
    contents.reduce((sum, { length }) => sum + length, 0),
  );
  assert.equal((await readdir(out)).length, 950);
  for (const [at, bytes] of contents.entries()) {
    const { path, mode, mtimeUs } = targets[at] as SmallTarget;
    assert.ok((await readFile(path)).equals(bytes));
    const stats = await stat(path, { bigint: true });
    assert.deepEqual([Number(stats.mode) & 0o7777, Number(stats.mtimeNs / 1000n)], [mode, mtimeUs]);
  }
});

test('a name that is taken, a tmp that is taken, a folder that is missing: errors of one file each', async (t) => {
  const { out, contents, targets, write } = await smallBench(t, 8);
  const at = (index: number): SmallTarget => targets[index] as SmallTarget;
  await writeFile(at(1).path, 'mine');
  await writeFile(at(2).tmp, 'mine too');
  const away = { ...at(3), tmp: join(out, 'no', 'tmp'), path: join(out, 'no', 'file') };
  const wrong = { ...at(4), root: { ...at(4).root, offset: at(4).root.offset + 1 } };
  const outside = { ...at(5), root: { ...at(5).root, offset: 4_000_000 } };
  const results = await write([at(0), at(1), at(2), away, wrong, outside, at(6), at(7)]);
  assert.deepEqual(
    results.map((result) => ('code' in result ? result.code : 'fine')),
    ['fine', 'NAME_TAKEN', 'EEXIST', 'ENOENT', 'BAD_MANIFEST', 'BAD_MANIFEST', 'fine', 'fine'],
  );
  assert.equal(await readFile(at(1).path, 'utf8'), 'mine');
  assert.equal(await readFile(at(2).tmp, 'utf8'), 'mine too');
  assert.ok((await readFile(at(1).tmp)).equals(contents[1] as Buffer));
  assert.deepEqual((await readdir(out)).toSorted(), ['.tmp-1', '.tmp-2', '0', '1', '6', '7']);
});

test('a block that is elsewhere is fetched; nobody has it: its files say so, the others come', async (t) => {
  const { store, fetch, contents, targets, write } = await smallBench(t, 300);
  const blocks = [...new Set(targets.map(({ root }) => root.block))];
  const [away, lost] = blocks as [BlockId, BlockId];
  const bytes = await fetch(away);
  await store.deleteMany([away, lost]);
  const results = await write(targets, {
    fetch: async (id) => {
      if (id === away) return bytes;
      throw Object.assign(new Error('nobody has it'), { code: 'UNREACHABLE' });
    },
  }).catch((error: unknown) => error as Error);
  assert.ok(results instanceof Error && /nobody/.test(results.message), 'an unknown error is thrown');
  const left = await readdir(join(targets[0]?.path ?? '', '..'));
  assert.deepEqual(left, [], 'nothing is left when it is thrown');
  const without = targets.filter(({ root }) => root.block !== lost);
  const again = await write(without, { fetch: async () => bytes });
  assert.deepEqual(
    again,
    contents.filter((_, at) => targets[at]?.root.block !== lost).map(({ length }) => ({ sizeBytes: length })),
  );
});

test('an error while names are due leaves no tmp files; a repeated naming is no error', async (t) => {
  const { out, targets, write } = await smallBench(t, 50);
  const broken = new Error('cannot sync');
  await assert.rejects(write(targets, { beforeNames: () => Promise.reject(broken) }), (error) => error === broken);
  assert.deepEqual(await readdir(out), []);
  const beforeNames = async (): Promise<void> => {
    const { tmp, path } = targets[3] as SmallTarget;
    await link(tmp, path);
  };
  const results = await write(targets, { beforeNames });
  assert.ok(results.every((result) => 'sizeBytes' in result));
  assert.equal((await readdir(out)).length, 50);
});

test('content that is not inline is left to open', async (t) => {
  const pipeline = await openPipeline(t);
  const manifest = await sealed(pipeline, testBytes(100_000, 3));
  const { block, roots } = await sealSolid([encodeManifest(manifest)], TEST_KEYS);
  await pipeline.store.putMany([block]);
  const out = await freshDir(t);
  await chmod(out, 0o755);
  const target = { root: roots[0] as Root, tmp: join(out, 't'), path: join(out, 'p'), mode: 0o644, mtimeUs: 0 };
  const [result] = await pipeline.openers.openSmall([target], { fetch: never });
  assert.ok(result && 'code' in result && result.code === 'TOO_LARGE');
  assert.deepEqual(await readdir(out), []);
});
