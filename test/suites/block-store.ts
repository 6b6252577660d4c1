// The contract of BlockStore as tests: called for every implementation and every wrapper. What a store can do more is in its
// `supports`, which decides what else is asked of it.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { blockIdOf, MAX_BLOCK_BYTES, type BlockId } from '../../src/store/block.ts';
import type { Batches, BlockStore, Owners, Space } from '../../src/store/block-store.ts';
import { isDezentError } from '../../src/errors.ts';

export type AnyStore = BlockStore & Partial<Batches & Owners & Space>;

export interface OpenedStore {
  /** A fresh, empty store; the suite disposes it. */
  store: AnyStore;
  /** Closes the store and opens it again, where it keeps things beyond that. */
  reopen?: () => Promise<AnyStore>;
}

type Open = (t: TestContext) => Promise<OpenedStore>;

const EMPTY = new Uint8Array();
const OWNER = new Uint8Array(32).fill(7);

interface Block {
  id: BlockId;
  bytes: Uint8Array;
}

/** A block of this many random bytes. */
export function randomBlock(length: number): Block {
  const bytes = Uint8Array.from(randomBytes(length));
  return { id: blockIdOf(bytes), bytes };
}

/** All ids of a store. */
export async function idsOf(store: BlockStore): Promise<BlockId[]> {
  return Array.fromAsync(store.ids());
}

const isBadBlock = (error: unknown): boolean => isDezentError(error, 'BAD_BLOCK');

/** Runs the contract on stores that `open` makes; each test gets its own. */
export function blockStoreSuite(name: string, open: Open): void {
  const on = (what: string, test: (opened: OpenedStore) => Promise<void>): void => {
    void it(what, async (t) => {
      const opened = await open(t);
      await test(opened);
      await opened.store[Symbol.asyncDispose]();
    });
  };
  void describe(`${name} is a BlockStore`, () => {
    singleBlocks(on);
    wholeStore(on);
    endings(on);
    powers(on);
    on('keeps blocks, deletions and owners beyond a reopen', async (opened) => {
      if (opened.reopen) await survivesReopen(opened.store, opened.reopen);
    });
  });
}

type On = (what: string, test: (opened: OpenedStore) => Promise<void>) => void;

function singleBlocks(on: On): void {
  on('gives back what was put, and undefined for what is absent', async ({ store }) => {
    const block = randomBlock(1000);
    assert.equal(await store.get(block.id), undefined);
    assert.equal(await store.has(block.id), false);
    await store.put(block.id, block.bytes);
    assert.deepEqual(plain(await store.get(block.id)), block.bytes);
    assert.equal(await store.has(block.id), true);
    assert.equal(await store.get(randomBlock(1000).id), undefined);
  });

  on('takes the same block twice', async ({ store }) => {
    const block = randomBlock(1000);
    await store.put(block.id, block.bytes);
    await store.put(block.id, block.bytes);
    assert.deepEqual(await idsOf(store), [block.id]);
    await store.delete(block.id);
    assert.equal(await store.has(block.id), false);
  });

  on('takes the same block from many at once', async ({ store }) => {
    const block = randomBlock(5000);
    await Promise.all(Array.from({ length: 20 }, () => store.put(block.id, block.bytes)));
    assert.deepEqual(await idsOf(store), [block.id]);
    assert.deepEqual(plain(await store.get(block.id)), block.bytes);
  });

  on('deletes, also what is absent, and takes it again afterwards', async ({ store }) => {
    const block = randomBlock(1000);
    await store.delete(block.id);
    await store.put(block.id, block.bytes);
    await store.delete(block.id);
    await store.delete(block.id);
    assert.equal(await store.get(block.id), undefined);
    await store.put(block.id, block.bytes);
    assert.deepEqual(plain(await store.get(block.id)), block.bytes);
  });

  on('keeps the order of calls on one block', async ({ store }) => {
    const block = randomBlock(1000);
    await Promise.all([store.put(block.id, block.bytes), store.delete(block.id), store.put(block.id, block.bytes)]);
    assert.equal(await store.has(block.id), true);
    await Promise.all([store.put(block.id, block.bytes), store.delete(block.id)]);
    assert.equal(await store.has(block.id), false);
  });

  on('keeps blocks of 0, 1 and MAX_BLOCK_BYTES bytes, and refuses larger ones', async ({ store }) => {
    for (const length of [0, 1, MAX_BLOCK_BYTES]) {
      const block = randomBlock(length);
      await store.put(block.id, block.bytes);
      assert.deepEqual(plain(await store.get(block.id)), block.bytes);
    }
    const tooLarge = randomBlock(MAX_BLOCK_BYTES + 1);
    await assert.rejects(store.put(tooLarge.id, tooLarge.bytes), isBadBlock);
    assert.equal(await store.has(tooLarge.id), false);
  });

  on('gives bytes that belong to the caller, and keeps none of the ones it was given', async ({ store }) => {
    const block = randomBlock(1000);
    const given = block.bytes.slice();
    await store.put(block.id, given);
    given.fill(0);
    const first = await store.get(block.id);
    assert.deepEqual(plain(first), block.bytes);
    first?.fill(1);
    assert.deepEqual(plain(await store.get(block.id)), block.bytes);
  });

  on('keeps bytes that are a part of a larger buffer', async ({ store }) => {
    const large = randomBytes(3000);
    const part = large.subarray(1000, 2000);
    await store.put(blockIdOf(part), part);
    assert.deepEqual(plain(await store.get(blockIdOf(part))), Uint8Array.from(part));
  });
}

function wholeStore(on: On): void {
  on('lists ids ascending and each once', async ({ store }) => {
    assert.deepEqual(await idsOf(store), []);
    const blocks = Array.from({ length: 60 }, (_, index) => randomBlock(index));
    await Promise.all(blocks.map(({ id, bytes }) => store.put(id, bytes)));
    await Promise.all(blocks.map(({ id, bytes }) => store.put(id, bytes)));
    assert.deepEqual(await idsOf(store), blocks.map(({ id }) => id).sort());
    for (const { id } of blocks.slice(0, 30)) await store.delete(id);
    assert.deepEqual(await idsOf(store), idsAscending(blocks.slice(30)));
  });

  on('lets blocks be put and deleted while ids are listed', async ({ store }) => {
    const blocks = Array.from({ length: 20 }, () => randomBlock(100));
    await Promise.all(blocks.map(({ id, bytes }) => store.put(id, bytes)));
    const seen: BlockId[] = [];
    for await (const id of store.ids()) {
      seen.push(id);
      await store.delete(id);
      const more = randomBlock(100);
      if (seen.length < 20) await store.put(more.id, more.bytes);
    }
    assert.deepEqual(seen, [...new Set(seen)].sort());
  });
}

function endings(on: On): void {
  on('ends calls whose signal is aborted with its reason, and does nothing', async ({ store }) => {
    const block = randomBlock(1000);
    const reason = new Error('enough');
    const options = { signal: AbortSignal.abort(reason) };
    const isReason = (error: unknown): boolean => error === reason;
    await assert.rejects(store.put(block.id, block.bytes, options), isReason);
    assert.equal(await store.has(block.id), false);
    await store.put(block.id, block.bytes);
    await assert.rejects(store.get(block.id, options), isReason);
    await assert.rejects(store.has(block.id, options), isReason);
    await assert.rejects(store.delete(block.id, options), isReason);
    await assert.rejects(Array.fromAsync(store.ids(options)), isReason);
    assert.equal(await store.has(block.id), true);
  });

  on('either keeps a block whole or not at all when a put is aborted on its way', async ({ store }) => {
    const blocks = Array.from({ length: 10 }, () => randomBlock(20_000));
    const aborter = new AbortController();
    const puts = blocks.map(({ id, bytes }) => store.put(id, bytes, { signal: aborter.signal }));
    setImmediate(() => aborter.abort());
    const results = await Promise.allSettled(puts);
    for (const [index, { id, bytes }] of blocks.entries()) {
      if (results[index]?.status === 'fulfilled') assert.deepEqual(plain(await store.get(id)), bytes);
      await store.put(id, bytes);
      assert.deepEqual(plain(await store.get(id)), bytes);
    }
  });
}

function powers(on: On): void {
  on('puts, asks for and deletes many at once', async ({ store }) => {
    const { putMany, hasMany, deleteMany } = store;
    if (!store.supports.batches) return;
    assert.ok(putMany && hasMany && deleteMany);
    await putMany([]);
    await deleteMany([]);
    const blocks = Array.from({ length: 100 }, (_, index) => randomBlock(index * 100));
    await putMany([...blocks, ...blocks]);
    await putMany(blocks);
    const ids = blocks.map(({ id }) => id);
    const absent = randomBlock(10).id;
    assert.deepEqual(await hasMany([...ids, absent, absent]), new Set(ids));
    for (const { id, bytes } of blocks) assert.deepEqual(plain(await store.get(id)), bytes);
    await deleteMany([...ids.slice(0, 50), absent]);
    assert.deepEqual(await idsOf(store), idsAscending(blocks.slice(50)));
  });

  on('refuses an oversize block in a batch', async ({ store }) => {
    if (!store.supports.batches) return;
    const tooLarge = randomBlock(MAX_BLOCK_BYTES + 1);
    await assert.rejects(store.putMany!([randomBlock(10), tooLarge]), isBadBlock);
    assert.equal(await store.has(tooLarge.id), false);
  });

  on('knows owner and length without reading', async ({ store }) => {
    if (!store.supports.owners) return;
    const [mine, nobodys] = [randomBlock(1000), randomBlock(0)];
    await store.put(mine.id, mine.bytes, { owner: OWNER });
    await store.put(nobodys.id, nobodys.bytes);
    const stat = await store.stat!(mine.id);
    assert.deepEqual(plain(stat?.owner), OWNER);
    assert.equal(stat?.length, 1000);
    assert.deepEqual(plain((await store.stat!(nobodys.id))?.owner), new Uint8Array(32));
    assert.equal((await store.stat!(nobodys.id))?.length, 0);
    assert.equal(await store.stat!(randomBlock(5).id), undefined);
  });

  on('tells the space it takes', async ({ store }) => {
    if (!store.supports.space) return;
    const before = await store.space!();
    const block = randomBlock(100_000);
    await store.put(block.id, block.bytes);
    const after = await store.space!();
    assert.ok(after.usedBytes >= before.usedBytes + 100_000);
    assert.ok(after.freeBytes > 0);
  });
}

async function survivesReopen(store: AnyStore, reopen: () => Promise<AnyStore>): Promise<void> {
  const blocks = Array.from({ length: 30 }, (_, index) => randomBlock(index * 1000));
  await Promise.all(blocks.map(({ id, bytes }) => store.put(id, bytes, { owner: OWNER })));
  const [gone, ...kept] = blocks;
  assert.ok(gone);
  await store.delete(gone.id);
  for (let time = 0; time < 2; time++) {
    const again = await reopen();
    assert.deepEqual(await idsOf(again), idsAscending(kept));
    for (const { id, bytes } of kept) assert.deepEqual(plain(await again.get(id)), bytes);
    if (again.supports.owners) assert.deepEqual(plain((await again.stat!(kept[0]!.id))?.owner), OWNER);
    const more = randomBlock(2000);
    await again.put(more.id, more.bytes);
    kept.push(more);
  }
  await (await reopen())[Symbol.asyncDispose]();
}

function idsAscending(blocks: Block[]): BlockId[] {
  return blocks.map(({ id }) => id).sort();
}

/** The same bytes as a Uint8Array of their own, so that a Buffer compares equal. */
function plain(bytes: Uint8Array | undefined): Uint8Array {
  assert.ok(bytes, 'absent');
  return bytes.length === 0 ? EMPTY : Uint8Array.from(bytes);
}
