// Files sealed on several threads: the same as on one, whatever happens meanwhile.
import assert from 'node:assert/strict';
import { appendFile, chmod, mkdir, rm, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import * as fc from 'fast-check';
import type { BlockId } from '../../src/store/block.ts';
import type { Extent } from '../../src/store/manifest.ts';
import { decodeManifest, INLINE_MAX_BYTES } from '../../src/store/manifest.ts';
import { openMemoryStore } from '../../src/store/memory-store.ts';
import { toContent, type StoredContent } from '../../src/store/pipeline.ts';
import type { SealedFile, SmallFile } from '../../src/store/sealing.ts';
import { keyedHash } from '../../src/store/secrets.ts';
import { SPLIT_LARGE, SPLIT_SMALL } from '../../src/store/split.ts';
import { inPieces, testBytes, TEST_KEYS, withCode } from '../suites/content.ts';
import { bytesOf, freshDir, openPipeline, openTestIndex } from '../suites/pipeline-of.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const OWNER: Uint8Array = new Uint8Array(32).fill(9);

/** What one thread makes of it. */
async function onOneThread(bytes: Uint8Array, earlierAverage?: number): Promise<StoredContent> {
  const options = { sizeBytes: bytes.length, ...(earlierAverage !== undefined && { earlierAverage }) };
  return toContent(inPieces(bytes), { keys: TEST_KEYS, store: openMemoryStore(), index: openTestIndex() }, options);
}

function assertSame(sealed: StoredContent, wanted: StoredContent): void {
  const { stats: _, ...content } = sealed as SealedFile;
  assert.ok(Buffer.from(content.manifest).equals(wanted.manifest), 'another manifest');
  assert.deepEqual(content.blocks, wanted.blocks);
  assert.deepEqual(
    { ...content, manifest: 0, blocks: 0, contentHash: Buffer.from(content.contentHash) },
    { ...wanted, manifest: 0, blocks: 0, contentHash: Buffer.from(wanted.contentHash) },
  );
}

/** Random, text, zeros, and the same again: all that a file is made of. */
function contentFrom(length: number, seed: number): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0, part = seed; at < length; part += 1) {
    const size = Math.min(length - at, 1 + (testBytes(4, part).readUInt32BE() % (length / 3 + 1)));
    const kind = part % 4;
    if (kind === 0) parts.push(Buffer.alloc(size));
    else if (kind === 1) parts.push(Buffer.alloc(size, `all work and no play ${part} `));
    else parts.push(testBytes(size, kind === 2 ? seed : part));
    at += size;
  }
  return Buffer.concat(parts);
}

test('what threads seal is what one thread seals, for any size and content', async (t) => {
  const { dir, sealers, store, fetch, announced } = await openPipeline(t);
  const path = join(dir, 'file');
  const size = fc.oneof(
    fc.integer({ min: 0, max: 100_000 }),
    fc.integer({ min: INLINE_MAX_BYTES - 1, max: INLINE_MAX_BYTES + 1 }),
    fc.integer({ min: 0, max: 3 * MIB }),
  );
  const average = fc.constantFrom(undefined, SPLIT_SMALL.averageBytes, SPLIT_LARGE.averageBytes);
  await fc.assert(
    fc.asyncProperty(size, fc.nat(1e6), average, async (length, seed, earlierAverage) => {
      const bytes = contentFrom(length, seed);
      await writeFile(path, bytes);
      const request = { path, sizeBytes: length, ...(earlierAverage !== undefined && { earlierAverage }) };
      const sealed = await sealers.seal(request, { owner: OWNER });
      const wanted = await onOneThread(bytes, earlierAverage);
      // Parts of earlier rounds are known already, so fewer bytes may be new.
      assert.ok(sealed.newBytes <= wanted.newBytes);
      assertSame({ ...sealed, newBytes: 0 }, { ...wanted, newBytes: 0 });
      assert.ok((await bytesOf(decodeManifest(sealed.manifest), fetch)).equals(bytes));
      for (const id of sealed.blocks) {
        assert.deepEqual((await store.stat(id))?.owner, OWNER);
        assert.ok(announced.has(id) || 'pages' in decodeManifest(sealed.manifest));
      }
    }),
    { numRuns: 40 },
  );
});

test('a large file that all threads share gives the same content, also with pages', async (t) => {
  const { dir, sealers, fetch } = await openPipeline(t);
  const path = join(dir, 'file');
  const bytes = Buffer.concat([contentFrom(10 * MIB, 7), testBytes(180 * MIB, 8)]);
  await writeFile(path, bytes);
  const counted: number[] = [];
  const kept = new Set<BlockId>();
  const sealed = await sealers.seal(
    { path, sizeBytes: bytes.length, earlierAverage: SPLIT_SMALL.averageBytes },
    { onBytes: (count) => counted.push(count), onKept: (all) => all.forEach(({ id }) => kept.add(id)) },
  );
  assertSame(sealed, await onOneThread(bytes, SPLIT_SMALL.averageBytes));
  const manifest = decodeManifest(sealed.manifest);
  assert.ok('pages' in manifest);
  const pages = new Set(manifest.pages.map(({ block }) => block));
  assert.deepEqual(kept, new Set(sealed.blocks.filter((id) => !pages.has(id))));
  assert.equal(
    counted.reduce((sum, count) => sum + count, 0),
    bytes.length,
  );
  assert.ok((await bytesOf(manifest, fetch)).equals(bytes));
});

test('packs that fill up are followed by others, and all is there after a reopen', async (t) => {
  const { dir, sealers, close } = await openPipeline(t, { store: { packBytes: 3 * MIB } });
  const path = join(dir, 'file');
  const bytes = contentFrom(40 * MIB, 3);
  await writeFile(path, bytes);
  const sealed = await sealers.seal({ path, sizeBytes: bytes.length });
  await close();
  await rm(join(dir, 'store', 'index'), { recursive: true });
  const again = await openPipeline(t, { dir });
  assert.deepEqual((await again.store.verifyAll()).bad, []);
  assert.ok((await bytesOf(decodeManifest(sealed.manifest), again.fetch)).equals(bytes));
});

test('known content is sealed once: in one file, in a second one, at the same time, after a restart', async (t) => {
  const dir = await freshDir(t);
  const index = openTestIndex();
  const bytes = testBytes(5 * MIB, 1);
  await writeFile(join(dir, 'a'), bytes);
  await writeFile(join(dir, 'b'), bytes);
  await writeFile(join(dir, 'c'), Buffer.concat([bytes, bytes.subarray(0, 3 * MIB)]));
  const first = await openPipeline(t, { dir, index });
  const sizeBytes = bytes.length;
  const both = await Promise.all(['a', 'b'].map((name) => first.sealers.seal({ path: join(dir, name), sizeBytes })));
  const [one, other] = both as [SealedFile, SealedFile];
  assert.deepEqual(other.manifest, one.manifest);
  assert.ok(one.newBytes + other.newBytes < 6 * MIB);
  const used = (await first.store.space()).usedBytes;
  assert.ok(used < 6 * MIB, `${used} bytes are used`);
  await first.close();
  const second = await openPipeline(t, { dir, index });
  const a = await second.sealers.seal({ path: join(dir, 'a'), sizeBytes });
  assert.equal(a.newBytes, 0);
  assert.deepEqual(a.blocks, one.blocks);
  const c = await second.sealers.seal({ path: join(dir, 'c'), sizeBytes: 8 * MIB });
  assert.ok(c.newBytes < 3 * MIB);
  assert.ok(
    (await bytesOf(decodeManifest(c.manifest), second.fetch)).equals(
      Buffer.concat([bytes, bytes.subarray(0, 3 * MIB)]),
    ),
  );
});

test('a hint that is wrong costs a second look, never data', async (t) => {
  const index = openTestIndex();
  const dir = await freshDir(t);
  const path = join(dir, 'file');
  const bytes = contentFrom(4 * MIB, 11);
  await writeFile(path, bytes);
  const wanted = await onOneThread(bytes);
  const hashes = new Map<string, Uint8Array>();
  {
    const probe = await openPipeline(t, { index });
    await probe.sealers.seal({ path, sizeBytes: bytes.length });
    for (const name of index.known.keys()) hashes.set(name, Buffer.from(name, 'hex'));
  }
  index.known.clear();
  index.hinted.push(...hashes.values());
  const { sealers, fetch } = await openPipeline(t, { index });
  const sealed = await sealers.seal({ path, sizeBytes: bytes.length });
  assertSame(sealed, wanted);
  assert.ok((await bytesOf(decodeManifest(sealed.manifest), fetch)).equals(bytes));
  // Forgotten once more, while threads still have the hint.
  index.known.clear();
  assertSame(await sealers.seal({ path, sizeBytes: bytes.length }), wanted);
});

test('an extent of another length is not taken for the chunk', async (t) => {
  const { dir, sealers, index, fetch } = await openPipeline(t);
  const path = join(dir, 'file');
  const bytes = testBytes(50_000, 5);
  await writeFile(path, bytes);
  const wrong: Extent = { block: 'x' as BlockId, offset: 0, length: 7, key: new Uint8Array(32) };
  await index.addExtents([{ plainHash: keyedHash(TEST_KEYS.plainHash, bytes), extent: wrong }]);
  index.hinted.push(keyedHash(TEST_KEYS.plainHash, bytes));
  const sealed = await sealers.seal({ path, sizeBytes: bytes.length });
  assert.ok((await bytesOf(decodeManifest(sealed.manifest), fetch)).equals(bytes));
});

test('a file that is gone, no file, or changes meanwhile is an error of its own', async (t) => {
  const { dir, sealers } = await openPipeline(t, { needs: {} });
  const at = (name: string): string => join(dir, name);
  await assert.rejects(sealers.seal({ path: at('none'), sizeBytes: 0 }), { code: 'ENOENT' });
  await assert.rejects(sealers.seal({ path: at('none'), sizeBytes: 100 * MIB }), { code: 'ENOENT' });
  await mkdir(at('folder'));
  await writeFile(at('file'), testBytes(100_000, 1));
  await symlink(at('file'), at('link'));
  await assert.rejects(sealers.seal({ path: at('folder'), sizeBytes: 0 }), withCode('CHANGED'));
  await assert.rejects(sealers.seal({ path: at('link'), sizeBytes: 0 }), withCode('CHANGED'));
});

/** A file of 60 MiB and the pipeline, with something done to it when the first window is kept. */
async function disturbed(t: TestContext, disturb: (path: string) => Promise<void>): Promise<SealedFile> {
  let done: Promise<void> | undefined;
  const dir = await freshDir(t);
  const path = join(dir, 'file');
  await writeFile(path, testBytes(60 * MIB, 2));
  const { sealers } = await openPipeline(t, { needs: { beforeKeep: () => (done ??= disturb(path)) } });
  return sealers.seal({ path, sizeBytes: 60 * MIB });
}

test('a file that is written to, cut or touched while it is sealed is refused', async (t) => {
  await assert.rejects(
    disturbed(t, (path) => appendFile(path, 'x')),
    withCode('CHANGED'),
  );
  await assert.rejects(
    disturbed(t, (path) => truncate(path, 10)),
    withCode('CHANGED'),
  );
  await assert.rejects(
    disturbed(t, (path) => utimes(path, 1, 1)),
    withCode('CHANGED'),
  );
  await assert.rejects(
    disturbed(t, (path) => chmod(path, 0o640)),
    withCode('CHANGED'),
  );
});

test('an error of index, store or whoever is told before is the error of the file, and the next one is sealed', async (t) => {
  const broken = new Error('broken');
  let isBroken = true;
  const fail = async (): Promise<void> => {
    if (isBroken) throw broken;
  };
  const index = openTestIndex();
  const dir = await freshDir(t);
  const path = join(dir, 'file');
  const bytes = contentFrom(40 * MIB, 21);
  await writeFile(path, bytes);
  const pipelines = [
    await openPipeline(t, { needs: { beforeKeep: fail } }),
    await openPipeline(t, {
      needs: { index: { ...index, addExtents: async (all) => (await fail(), index.addExtents(all)) } },
    }),
    await openPipeline(t, { needs: { lanes: { adopt: fail } } }),
  ];
  for (const { sealers } of pipelines) {
    isBroken = true;
    await assert.rejects(sealers.seal({ path, sizeBytes: bytes.length }), (error) => error === broken);
  }
  isBroken = false;
  const wanted = await onOneThread(bytes);
  for (const { sealers } of pipelines.slice(0, 2)) {
    const sealed = await sealers.seal({ path, sizeBytes: bytes.length });
    assertSame({ ...sealed, newBytes: 0 }, { ...wanted, newBytes: 0 });
  }
});

test('small files are read as toContent reads them; errors are data', async (t) => {
  const { dir, sealers } = await openPipeline(t);
  const files = join(dir, 'files');
  await mkdir(files);
  const contents = Array.from({ length: 700 }, (_, at) => testBytes((at * 47) % (INLINE_MAX_BYTES + 1), at));
  const requests = await Promise.all(
    contents.map(async (bytes, at) => {
      const path = join(files, `${at}`);
      await writeFile(path, bytes);
      return { path, ...(at % 3 === 0 && { earlierAverage: SPLIT_LARGE.averageBytes }) };
    }),
  );
  const large = join(files, 'large');
  await writeFile(large, Buffer.alloc(INLINE_MAX_BYTES + 1));
  await symlink(large, join(files, 'link'));
  const read = await sealers.readSmall([
    ...requests,
    { path: join(files, 'none') },
    { path: large },
    { path: join(files, 'link') },
    { path: files },
  ]);
  const codes = read.slice(requests.length).map((file) => ('code' in file ? file.code : undefined));
  assert.deepEqual(codes, ['ENOENT', 'TOO_LARGE', 'CHANGED', 'CHANGED']);
  for (const [at, bytes] of contents.entries()) {
    const file = read[at] as Exclude<SmallFile, { code: string }>;
    assertSame(file, await onOneThread(bytes, requests[at]?.earlierAverage));
    assert.equal(file.stats.size, BigInt(bytes.length));
    const sealed = at % 50 === 0 && (await sealers.seal({ path: requests[at]?.path ?? '', sizeBytes: bytes.length }));
    if (sealed !== false) assert.deepEqual(sealed.stats, file.stats);
  }
  assert.deepEqual(await sealers.readSmall([]), []);
});
