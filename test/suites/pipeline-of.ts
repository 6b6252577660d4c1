// What the tests of sealers and openers share: a disk store with both over it in a directory of its own, and an index that can be wrong.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Worker } from 'node:worker_threads';
import type { BlockId } from '../../src/store/block.ts';
import { openDiskStore, type DiskStore, type DiskStoreSettings } from '../../src/store/disk-store.ts';
import type { Extent, Manifest } from '../../src/store/manifest.ts';
import { openOpeners } from '../../src/store/openers.ts';
import { checkedContent } from '../../src/store/pipeline.ts';
import { openPipelineThreads, type PipelineThreadsSettings } from '../../src/store/pipeline-threads.ts';
import { openSealers, type SealersNeeds } from '../../src/store/sealers.ts';
import type { ChunkIndex, Openers, Sealers } from '../../src/store/sealing.ts';
import { TEST_KEYS } from './content.ts';

const hex = (hash: Uint8Array): string => Buffer.from(hash).toString('hex');

/** An index in memory; `hinted` are hashes that it lists and knows nothing of. */
export interface TestIndex extends ChunkIndex {
  known: Map<string, Extent>;
  hinted: Uint8Array[];
}

export function openTestIndex(): TestIndex {
  const known = new Map<string, Extent>();
  const hinted: Uint8Array[] = [];
  return {
    known,
    hinted,
    extent: async (plainHash) => known.get(hex(plainHash)),
    addExtents: async (all) => all.forEach(({ plainHash, extent }) => known.set(hex(plainHash), extent)),
    async *plainHashes() {
      yield [...known.keys()].map((text) => Buffer.from(text, 'hex'));
      yield hinted;
    },
  };
}

export interface Pipeline {
  dir: string;
  store: DiskStore;
  index: TestIndex;
  sealers: Sealers;
  openers: Openers;
  /** Every thread that was started. */
  workers: Worker[];
  fetch(id: BlockId): Promise<Uint8Array>;
  /** Blocks told of before they were kept. */
  announced: Set<BlockId>;
  close(): Promise<void>;
}

export interface PipelineOptions {
  dir?: string;
  store?: DiskStoreSettings;
  index?: TestIndex;
  threads?: Partial<PipelineThreadsSettings>;
  needs?: Partial<SealersNeeds>;
}

export async function freshDir(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-pipeline-'));
  t.after(() => rm(dir, { recursive: true }));
  return dir;
}

export async function openPipeline(t: TestContext, options: PipelineOptions = {}): Promise<Pipeline> {
  const dir = options.dir ?? (await freshDir(t));
  const store = await openDiskStore(join(dir, 'store'), options.store);
  const workers: Worker[] = [];
  const keys = (): typeof TEST_KEYS => TEST_KEYS;
  const onStart = (worker: Worker): void => void workers.push(worker);
  const threads = openPipelineThreads({ store, keys }, { threads: 2, onStart, ...options.threads });
  const index = options.index ?? openTestIndex();
  const announced = new Set<BlockId>();
  const beforeKeep = async (ids: readonly BlockId[]): Promise<void> => ids.forEach((id) => announced.add(id));
  const sealers = openSealers({ lanes: store.lanes, store, keys, threads, index, beforeKeep, ...options.needs });
  const openers = openOpeners({ store, threads, keys });
  let closing: Promise<void> | undefined;
  async function closeAll(): Promise<void> {
    await sealers[Symbol.asyncDispose]();
    await openers[Symbol.asyncDispose]();
    await threads[Symbol.asyncDispose]();
    await store[Symbol.asyncDispose]();
  }
  const close = (): Promise<void> => (closing ??= closeAll());
  t.after(close);
  async function fetch(id: BlockId): Promise<Uint8Array> {
    const bytes = await store.get(id);
    assert.ok(bytes, `nobody has ${id}`);
    return bytes;
  }
  return { dir, store, index, sealers, openers, workers, fetch, announced, close };
}

/** All bytes of a content, checked. */
export async function bytesOf(manifest: Manifest, fetch: Pipeline['fetch']): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const { bytes } of checkedContent(manifest, { keys: TEST_KEYS, fetch })) parts.push(bytes);
  return Buffer.concat(parts);
}

/** Bytes of all pack files. */
export async function usedBytes(store: DiskStore): Promise<number> {
  return (await store.space()).usedBytes;
}
