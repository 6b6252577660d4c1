import assert from 'node:assert/strict';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';
import * as fc from 'fast-check';
import { MAX_BLOCK_BYTES, type BlockId } from '../../src/store/block.ts';
import type { Batches } from '../../src/store/block-store.ts';
import { compress } from '../../src/store/compress.ts';
import {
  decodeManifest,
  encodeExtents,
  extentsOf,
  INLINE_MAX_BYTES,
  openContentHasher,
  PAGE_EXTENTS,
  type Extent,
  type Manifest,
  type Page,
} from '../../src/store/manifest.ts';
import { openMemoryStore } from '../../src/store/memory-store.ts';
import {
  blocksOf,
  checkedContent,
  contentHashOf,
  mapInOrder,
  PIPELINE_CHUNKS,
  readBack,
  toContent,
  type ContentIndex,
  type FromContentNeeds,
  type ToContentNeeds,
} from '../../src/store/pipeline.ts';
import { sealData } from '../../src/store/seal.ts';
import { keyedHash } from '../../src/store/secrets.ts';
import { openRoot, sealSolid } from '../../src/store/solid.ts';
import { SPLIT_LARGE, SPLIT_SMALL } from '../../src/store/split.ts';
import { inPieces, OTHER_KEYS, testBytes, TEST_KEYS, withCode } from '../suites/content.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

function openTestIndex(): ContentIndex {
  const known = new Map<string, Extent>();
  const hex = (hash: Uint8Array): string => Buffer.from(hash).toString('hex');
  return {
    extent: async (plainHash) => known.get(hex(plainHash)),
    addExtents: async (all) => all.forEach(({ plainHash, extent }) => known.set(hex(plainHash), extent)),
  };
}

const NO_INDEX: ContentIndex = { extent: async () => undefined, addExtents: async () => undefined };

/** A memory store that counts, and both directions of needs over it. */
function openBench() {
  const store = openMemoryStore();
  const put: BlockId[] = [];
  const counting: Batches = {
    ...store,
    async putMany(blocks, options) {
      const all = [...blocks];
      put.push(...all.map(({ id }) => id));
      await store.putMany(all, options);
    },
  };
  const to: ToContentNeeds = { keys: TEST_KEYS, store: counting, index: openTestIndex() };
  const fetch = async (id: BlockId): Promise<Uint8Array> => {
    const bytes = await store.get(id);
    assert.ok(bytes, `nobody has ${id}`);
    return bytes;
  };
  const from: FromContentNeeds = { keys: TEST_KEYS, fetch };
  return { store, put, to, from };
}

async function contentOf(manifest: Manifest, from: FromContentNeeds, width?: number): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let position = 0;
  for await (const piece of checkedContent(manifest, from, width)) {
    assert.equal(piece.position, position);
    position += piece.bytes.length;
    parts.push(piece.bytes);
  }
  return Buffer.concat(parts);
}

/** Half random, half text: blocks of both codecs. */
const mixed = (length: number): Buffer =>
  Buffer.concat([testBytes(Math.ceil(length / 2), 50), Buffer.alloc(Math.floor(length / 2), 'all work and no play ')]);

/** Fails the test when a promise is rejected and nobody hears it until `use` is over and some turns later. */
async function withoutUnhandled(use: () => Promise<void>): Promise<void> {
  const unheard: unknown[] = [];
  const hear = (reason: unknown): void => void unheard.push(reason);
  process.on('unhandledRejection', hear);
  try {
    await use();
    for (let turn = 0; turn < 20; turn += 1) await nextTurn();
  } finally {
    process.off('unhandledRejection', hear);
  }
  assert.deepEqual(unheard, []);
}

for (const sizeBytes of [0, 1, INLINE_MAX_BYTES, INLINE_MAX_BYTES + 1, MIB, 20 * MIB + 12_345]) {
  test(`${sizeBytes} bytes come back from their blocks`, async () => {
    const { put, store, to, from } = openBench();
    const bytes = mixed(sizeBytes);
    let read = 0;
    const onBytes = (count: number): void => void (read += count);
    const stored = await toContent(inPieces(bytes), to, { sizeBytes, onBytes });
    const manifest = decodeManifest(stored.manifest);
    assert.equal(read, sizeBytes);
    assert.equal(stored.sizeBytes, sizeBytes);
    assert.equal(manifest.size, sizeBytes);
    assert.deepEqual(Buffer.from(manifest.contentHash), Buffer.from(stored.contentHash));
    assert.equal('inline' in manifest, sizeBytes <= INLINE_MAX_BYTES);
    assert.ok((await contentOf(manifest, from)).equals(bytes));
    await readBack(manifest, from);
    assert.deepEqual(Buffer.from(await contentHashOf(inPieces(bytes, 10_000), TEST_KEYS, stored)), stored.contentHash);
    assert.deepEqual(new Set(stored.blocks), new Set(put));
    assert.deepEqual(await blocksOf(manifest, from), stored.blocks);
    assert.equal(stored.newBytes, (await store.space()).usedBytes);
  });
}

test('any content comes back, however it arrives and however many blocks are fetched at once', async () => {
  const runs = fc.array(fc.tuple(fc.nat({ max: 255 }), fc.boolean(), fc.nat({ max: 400 * KIB })), { maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(
      runs,
      fc.integer({ min: 1000, max: 500_000 }),
      fc.integer({ min: 1, max: 9 }),
      async (all, pieceBytes, width) => {
        const parts = all.map(([value, random, length]) =>
          random ? testBytes(length, value) : Buffer.alloc(length, value),
        );
        const bytes = Buffer.concat(parts);
        const { to, from } = openBench();
        const stored = await toContent(inPieces(bytes, pieceBytes), to, { sizeBytes: bytes.length });
        assert.ok((await contentOf(decodeManifest(stored.manifest), from, width)).equals(bytes));
      },
    ),
    { numRuns: 25 },
  );
});

test('the same bytes again put nothing and give the same manifest', async () => {
  const { put, to } = openBench();
  const bytes = mixed(5 * MIB);
  const first = await toContent(inPieces(bytes), to, { sizeBytes: bytes.length });
  const count = put.length;
  assert.ok(count > 5 && first.newBytes > 2 * MIB);
  const second = await toContent(inPieces(bytes, 12_345), to, { sizeBytes: bytes.length });
  assert.equal(put.length, count);
  assert.deepEqual(second, { ...first, newBytes: 0 });
});

test('a block that occurs many times in a file is kept and counted once', async () => {
  const { store, to } = openBench();
  const bytes = Buffer.alloc(30 * MIB);
  const stored = await toContent(inPieces(bytes), to, { sizeBytes: bytes.length });
  assert.equal(stored.blocks.length, 1);
  assert.equal(stored.newBytes, (await store.space()).usedBytes);
});

test('an edit in the middle puts only the blocks around it', async () => {
  const { to } = openBench();
  const before = testBytes(20 * MIB, 51);
  const stored = await toContent(inPieces(before), to, { sizeBytes: before.length });
  const after = Buffer.concat([before.subarray(0, 10 * MIB), Buffer.from('edited'), before.subarray(10 * MIB + 3)]);
  const again = await toContent(inPieces(after), to, { sizeBytes: after.length, earlierAverage: stored.average });
  const fresh = new Set(again.blocks).difference(new Set(stored.blocks));
  assert.ok(fresh.size <= 3, `${fresh.size} of ${again.blocks.length} blocks are new`);
  assert.ok(again.newBytes < 3 * MIB);
});

test('what the index says is used only where its length is right', async () => {
  const { to, from } = openBench();
  const bytes = testBytes(40 * KIB, 52);
  const solid = Buffer.concat([testBytes(1000, 53), bytes]);
  const { id, key, bytes: sealed } = sealData(await compress(solid), TEST_KEYS.current);
  await to.store.putMany([{ id, bytes: sealed }]);
  const known: Extent = { block: id, offset: 1000, length: bytes.length, key };
  const right = await toContent(
    inPieces(bytes),
    { ...to, index: { ...NO_INDEX, extent: async () => known } },
    { sizeBytes: bytes.length },
  );
  assert.deepEqual(right.blocks, [id]);
  assert.ok((await contentOf(decodeManifest(right.manifest), from)).equals(bytes));
  const short: Extent = { ...known, length: bytes.length - 1 };
  const wrong = await toContent(
    inPieces(bytes),
    { ...to, index: { ...NO_INDEX, extent: async () => short } },
    { sizeBytes: bytes.length },
  );
  assert.notDeepEqual(wrong.blocks, [id]);
});

test('a small file that grows while it is read is CHANGED, not held in memory', async () => {
  const { to } = openBench();
  let pieces = 0;
  async function* endless(): AsyncGenerator<Uint8Array> {
    for (;;) {
      pieces += 1;
      yield Buffer.alloc(10_000);
    }
  }
  await assert.rejects(toContent(endless(), to, { sizeBytes: 10 }), withCode('CHANGED'));
  assert.equal(pieces, 4);
  const stored = { sizeBytes: 10, average: SPLIT_SMALL.averageBytes };
  await assert.rejects(contentHashOf(endless(), TEST_KEYS, stored), withCode('CHANGED'));
  assert.equal(pieces, 8);
});

test('a larger file that shrinks or grows while it is read is stored as it was read', async () => {
  const { to, from } = openBench();
  for (const length of [0, 10, 100_000]) {
    const bytes = testBytes(length, 54);
    const stored = await toContent(inPieces(bytes), to, { sizeBytes: 50_000 });
    assert.equal(stored.sizeBytes, length);
    assert.ok((await contentOf(decodeManifest(stored.manifest), from)).equals(bytes));
  }
});

/** A manifest of pages over one data block that holds all pieces, as long as `counts` say, and the bytes. */
async function pagedContent(
  counts: readonly number[],
  to: ToContentNeeds,
): Promise<{ manifest: Manifest; bytes: Buffer }> {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const length = 10;
  const bytes = testBytes(total * length, 55);
  const { id, key, bytes: sealed } = sealData(await compress(bytes), TEST_KEYS.current);
  const extents = Array.from({ length: total }, (_, n): Extent => ({ block: id, offset: n * length, length, key }));
  const hasher = openContentHasher(TEST_KEYS.contentHash);
  for (const { offset } of extents)
    hasher.add(length, keyedHash(TEST_KEYS.plainHash, bytes.subarray(offset, offset + length)));
  let at = 0;
  const lists = counts.map((count) => extents.slice(at, (at += count)));
  const { block, roots } = await sealSolid(lists.map(encodeExtents), TEST_KEYS);
  await to.store.putMany([{ id, bytes: sealed }, block]);
  const pages = roots.map((root, index): Page => ({ ...root, size: (counts[index] as number) * length }));
  return {
    bytes,
    manifest: { size: bytes.length, contentHash: hasher.digest(), average: SPLIT_SMALL.averageBytes, pages },
  };
}

test('content of many pages comes back', async () => {
  const { to, from } = openBench();
  const { manifest, bytes } = await pagedContent([PAGE_EXTENTS, PAGE_EXTENTS, 1], to);
  assert.ok((await contentOf(manifest, from)).equals(bytes));
  assert.equal((await blocksOf(manifest, from)).length, 2);
});

test('more than a page of chunks makes pages, kept as they fill', async () => {
  const small = new Map<BlockId, Uint8Array>();
  const store = { ...openMemoryStore() } satisfies Batches;
  const counting: Batches = {
    ...store,
    async putMany(blocks) {
      for (const { id, bytes } of blocks)
        if (bytes.length < SPLIT_SMALL.minBytes) small.set(id, Uint8Array.from(bytes));
    },
  };
  const bytes = testBytes(8 * MIB, 56);
  async function* source(): AsyncGenerator<Uint8Array> {
    for (let times = 0; times < 22; times += 1) yield bytes;
  }
  const needs: ToContentNeeds = { keys: TEST_KEYS, store: counting, index: openTestIndex() };
  const { manifest: encoded, blocks } = await toContent(source(), needs, {
    sizeBytes: 40_000,
    earlierAverage: SPLIT_SMALL.averageBytes,
  });
  const manifest = decodeManifest(encoded);
  assert.ok('pages' in manifest && manifest.pages.length === 2);
  const load = async (page: Page): Promise<Uint8Array> =>
    openRoot(page, small.get(page.block) as Uint8Array, TEST_KEYS);
  const extents = await Array.fromAsync(extentsOf(manifest, load));
  assert.equal(
    extents.reduce((sum, { length }) => sum + length, 0),
    22 * bytes.length,
  );
  assert.ok(manifest.pages.every(({ block }) => blocks.includes(block)));
  assert.ok(extents.every(({ block }) => blocks.includes(block)));
});

test('no altered, swapped or misplaced part gives wrong bytes', async () => {
  const { to, from } = openBench();
  const bytes = testBytes(2 * MIB, 57);
  const stored = await toContent(inPieces(bytes), to, { sizeBytes: bytes.length });
  const manifest = decodeManifest(stored.manifest);
  assert.ok('extents' in manifest && manifest.extents.length > 2);
  const { extents } = manifest;
  const [first, second] = extents as [Extent, Extent];
  const rejects = async (
    altered: Manifest,
    needs: FromContentNeeds,
    code: 'BAD_BLOCK' | 'BAD_MANIFEST',
  ): Promise<void> => {
    await assert.rejects(readBack(altered, needs), withCode(code));
  };
  const lying = async (id: BlockId): Promise<Uint8Array> => {
    const right = Buffer.from(await from.fetch(id));
    right[right.length >> 1] = (right[right.length >> 1] as number) ^ 1;
    return right;
  };
  await rejects(manifest, { ...from, fetch: lying }, 'BAD_BLOCK');
  await rejects(manifest, { ...from, fetch: () => from.fetch(second.block) }, 'BAD_BLOCK');
  await rejects(manifest, { ...from, fetch: async () => Buffer.alloc(0) }, 'BAD_BLOCK');
  await rejects({ ...manifest, extents: extents.toReversed() }, from, 'BAD_MANIFEST');
  await rejects({ ...manifest, extents: extents.slice(1) }, from, 'BAD_MANIFEST');
  await rejects(
    { ...manifest, extents: [{ ...first, length: first.length + 1 }, ...extents.slice(1)] },
    from,
    'BAD_MANIFEST',
  );
  await rejects(
    { ...manifest, extents: [{ ...first, length: first.length - 1 }, ...extents.slice(1)] },
    from,
    'BAD_MANIFEST',
  );
  await rejects({ ...manifest, extents: [{ ...first, offset: MAX_BLOCK_BYTES, length: 0 }] }, from, 'BAD_MANIFEST');
  await rejects({ ...manifest, extents: [{ ...first, key: second.key }] }, from, 'BAD_BLOCK');
  await rejects({ ...manifest, contentHash: testBytes(32, 58) }, from, 'BAD_MANIFEST');
  await rejects({ ...manifest, inline: bytes.subarray(0, 5) }, from, 'BAD_MANIFEST');
  await rejects(manifest, { ...from, keys: OTHER_KEYS }, 'BAD_MANIFEST');
});

test('swapped, foreign or short pages are refused', async () => {
  const { to, from } = openBench();
  const { manifest } = await pagedContent([3, 2], to);
  assert.ok('pages' in manifest);
  const [one, two] = manifest.pages as [Page, Page];
  const withPages = (pages: Page[]): Manifest => ({ ...manifest, pages });
  await assert.rejects(readBack(withPages([two, one]), from), withCode('BAD_MANIFEST'));
  await assert.rejects(readBack(withPages([one, one]), from), withCode('BAD_MANIFEST'));
  await assert.rejects(readBack(withPages([{ ...one, size: 5 }, two]), from), withCode('BAD_MANIFEST'));
  await assert.rejects(readBack(withPages([{ ...one, length: one.length - 1 }, two]), from), withCode('BAD_MANIFEST'));
  await assert.rejects(readBack(withPages([{ ...one, offset: MAX_BLOCK_BYTES }, two]), from), withCode('BAD_MANIFEST'));
  await assert.rejects(readBack(manifest, { ...from, keys: OTHER_KEYS }), withCode('BAD_BLOCK'));
});

test('mapInOrder keeps the order and the width', async () => {
  let running = 0;
  let most = 0;
  const work = async (n: number): Promise<number> => {
    running += 1;
    most = Math.max(most, running);
    for (let turn = 0; turn < (n * 7) % 5; turn += 1) await nextTurn();
    running -= 1;
    return n;
  };
  async function* numbers(): AsyncGenerator<number> {
    for (let n = 0; n < 50; n += 1) yield n;
  }
  assert.deepEqual(await Array.fromAsync(mapInOrder(4, work)(numbers())), [...Array(50).keys()]);
  assert.equal(most, 4);
});

test('mapInOrder: a later item that fails first is heard when its turn comes, and the rest is waited for', async () => {
  await withoutUnhandled(async () => {
    const order: string[] = [];
    const gate = Promise.withResolvers<void>();
    const work = async (n: number): Promise<number> => {
      if (n === 1) throw new Error('one');
      if (n === 0) await gate.promise;
      await nextTurn();
      order.push(`done ${n}`);
      return n;
    };
    async function* numbers(): AsyncGenerator<number> {
      try {
        for (let n = 0; ; n += 1) yield n;
      } finally {
        order.push('source closed');
      }
    }
    const results = mapInOrder(3, work)(numbers());
    const first = results.next();
    for (let turn = 0; turn < 10; turn += 1) await nextTurn();
    gate.resolve();
    assert.deepEqual(await first, { value: 0, done: false });
    for (let turn = 0; turn < 10; turn += 1) await nextTurn();
    await assert.rejects(results.next(), /one/);
    assert.ok(order.includes('source closed'));
    assert.deepEqual(
      order.filter((line) => line.startsWith('done')),
      ['done 2', 'done 0', 'done 3'],
    );
  });
});

/** A source of `count` pieces of 256 KiB that notes whether it was closed. */
function openSource(count: number, onPiece: (index: number) => void = () => undefined) {
  const state = { pieces: 0, closed: false };
  async function* read(): AsyncGenerator<Uint8Array> {
    try {
      for (; state.pieces < count; state.pieces += 1) {
        onPiece(state.pieces);
        yield testBytes(256 * KIB, state.pieces);
      }
    } finally {
      state.closed = true;
    }
  }
  return { state, read: read() };
}

test('cancelling at any piece ends with the reason, closes the source and leaves nothing unheard', async () => {
  for (const at of [0, 1, 5, 20, 39]) {
    await withoutUnhandled(async () => {
      const { to } = openBench();
      const stop = new AbortController();
      const { state, read } = openSource(40, (index) => index === at && stop.abort(new Error('enough')));
      await assert.rejects(toContent(read, to, { sizeBytes: 40 * 256 * KIB, signal: stop.signal }), /enough/);
      assert.ok(state.closed && state.pieces < at + 30);
    });
  }
});

test('a store, index or source that fails in the middle rejects with its error', async () => {
  const parts: Record<string, (to: ToContentNeeds) => ToContentNeeds> = {
    store: (to) => {
      let calls = 0;
      const putMany: Batches['putMany'] = async (blocks, options) => {
        calls += 1;
        if (calls === 2) throw new Error('broken store');
        await to.store.putMany(blocks, options);
      };
      return { ...to, store: { ...to.store, putMany } };
    },
    'index read': (to) => {
      let calls = 0;
      const extent = async (): Promise<undefined> => {
        calls += 1;
        if (calls >= 3) throw new Error('broken index');
        for (let turn = 0; turn < 5; turn += 1) await nextTurn();
      };
      return { ...to, index: { ...to.index, extent } };
    },
    'index write': (to) => ({
      ...to,
      index: { ...to.index, addExtents: () => Promise.reject(new Error('broken index')) },
    }),
  };
  for (const [name, broken] of Object.entries(parts)) {
    await withoutUnhandled(async () => {
      const { state, read } = openSource(100);
      await assert.rejects(toContent(read, broken(openBench().to), { sizeBytes: 25 * MIB }), /broken/, name);
      assert.ok(state.closed, name);
    });
  }
  await withoutUnhandled(async () => {
    const fails = openSource(40, (index) => {
      if (index === 20) throw new Error('read error');
    });
    await assert.rejects(toContent(fails.read, openBench().to, { sizeBytes: 10 * MIB }), /read error/);
  });
});

test('nobody who fetches: the error is that of the fetch, and no other is left', async () => {
  const { to, from } = openBench();
  const bytes = testBytes(4 * MIB, 59);
  const manifest = decodeManifest((await toContent(inPieces(bytes), to, { sizeBytes: bytes.length })).manifest);
  await withoutUnhandled(async () => {
    let calls = 0;
    const fetch = async (id: BlockId): Promise<Uint8Array> => {
      calls += 1;
      if (calls > 2) throw new Error('unreachable');
      for (let turn = 0; turn < 10; turn += 1) await nextTurn();
      return from.fetch(id);
    };
    await assert.rejects(readBack(manifest, { ...from, fetch }), /unreachable/);
  });
});

test('whoever stops reading in the middle leaves nothing behind', async () => {
  const { to, from } = openBench();
  const bytes = testBytes(4 * MIB, 60);
  const manifest = decodeManifest((await toContent(inPieces(bytes), to, { sizeBytes: bytes.length })).manifest);
  await withoutUnhandled(async () => {
    for await (const piece of checkedContent(manifest, from)) {
      assert.equal(piece.position, 0);
      break;
    }
  });
});

/** What may lie between the source and the store: a full batch, the chunks in work, and the one that is being cut. */
const HELD_MAX_BYTES = 8 * MIB + (PIPELINE_CHUNKS + 2) * SPLIT_LARGE.maxBytes;

test('memory is bounded: 512 MiB are never read far ahead of what is kept', async (t: TestContext) => {
  const piece = testBytes(4 * MIB, 61);
  const totalBytes = 512 * MIB;
  let readBytes = 0;
  let keptBytes = 0;
  let heldBytes = 0;
  async function* source(): AsyncGenerator<Uint8Array> {
    while (readBytes < totalBytes) {
      for (let at = 0; at < piece.length; at += 64 * KIB) yield piece.subarray(at, at + 64 * KIB);
      readBytes += piece.length;
    }
  }
  const store: Batches = {
    ...openMemoryStore(),
    async putMany(blocks) {
      for (let turn = 0; turn < 20; turn += 1) await nextTurn();
      heldBytes = Math.max(heldBytes, readBytes - keptBytes);
      for (const { bytes } of blocks) keptBytes += bytes.length;
    },
  };
  const rssBefore = process.memoryUsage.rss();
  const stored = await toContent(source(), { keys: TEST_KEYS, store, index: NO_INDEX }, { sizeBytes: totalBytes });
  t.diagnostic(`held ${heldBytes / MIB} MiB, rss grew by ${(process.memoryUsage.rss() - rssBefore) / MIB} MiB`);
  assert.equal(stored.sizeBytes, totalBytes);
  assert.ok(heldBytes > 0 && heldBytes <= HELD_MAX_BYTES, `${heldBytes} bytes were under way`);
});

test('memory is bounded: zeros without end make small batches, not large ones', async () => {
  const zeros = Buffer.alloc(4 * MIB);
  let most = 0;
  async function* source(): AsyncGenerator<Uint8Array> {
    for (let times = 0; times < 128; times += 1) yield zeros;
  }
  const store: Batches = {
    ...openMemoryStore(),
    putMany: async (blocks) => void (most = Math.max(most, [...blocks].length)),
  };
  await toContent(source(), { keys: TEST_KEYS, store, index: NO_INDEX }, { sizeBytes: 128 * zeros.length });
  assert.ok(most <= PAGE_EXTENTS);
});

test('memory is bounded: a slow reader is not fetched ahead of by more than the width', async () => {
  const { to, from } = openBench();
  const bytes = testBytes(10 * MIB, 62);
  const manifest = decodeManifest((await toContent(inPieces(bytes), to, { sizeBytes: bytes.length })).manifest);
  let fetched = 0;
  const fetch = (id: BlockId): Promise<Uint8Array> => {
    fetched += 1;
    return from.fetch(id);
  };
  let taken = 0;
  for await (const piece of checkedContent(manifest, { ...from, fetch }, 3)) {
    taken += 1;
    for (let turn = 0; turn < 5; turn += 1) await nextTurn();
    assert.ok(fetched - taken <= 3, `${fetched} fetched, ${taken} taken, at ${piece.position}`);
  }
  assert.ok(taken > 20);
});
