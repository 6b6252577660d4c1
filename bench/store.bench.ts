// How fast the disk store keeps and gives blocks, against a plain write + fdatasync of the same bytes to the same disk in the same run.
// Run: node bench/store.bench.ts [DIR on the disk to measure]. One JSON line per case; MB/s are of 10^6 block bytes.
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { blockIdOf, type BlockId } from '../src/store/block.ts';
import { openDiskStore, type DiskStore } from '../src/store/disk-store.ts';

interface Block {
  id: BlockId;
  bytes: Uint8Array;
}

const KIB = 1024;
const CASES: { name: string; count: number; length: number }[] = [
  { name: '512 x 1 MiB', count: 512, length: KIB * KIB },
  { name: '20000 x 4 KiB', count: 20_000, length: 4 * KIB },
];
/** What the plain write syncs at a time, as much as a commit of the store. */
const PLAIN_SYNC_BYTES: number = 16 * KIB * KIB;
const GETS_AT_ONCE = 8;

const base: string = process.argv[2] ?? tmpdir();

for (const { name, count, length } of CASES) {
  const blocks = Array.from({ length: count }, () => {
    const bytes = randomBytes(length);
    return { id: blockIdOf(bytes), bytes };
  });
  const rate = async (work: () => Promise<void>): Promise<number> => {
    execFileSync('sync');
    const start = performance.now();
    await work();
    return Math.round((count * length) / 1000 / (performance.now() - start));
  };
  const dir = await mkdtemp(join(base, 'dezent-bench-'));
  const store = await openDiskStore(join(dir, 'store'));
  const plain = await rate(() => writePlainly(join(dir, 'plain'), blocks));
  const putMany = await rate(() => store.putMany(blocks));
  const get = await rate(() => getAll(store, blocks));
  const { ids } = store;
  const list = performance.now();
  for await (const id of ids()) void id;
  const idsPerS = Math.round((count / (performance.now() - list)) * 1000);
  await store.deleteMany(blocks.map(({ id }) => id));
  const putEach = await rate(async () => {
    await Promise.all(blocks.map(({ id, bytes }) => store.put(id, bytes)));
  });
  const reopen = await reopened(join(dir, 'store'), store);
  await rm(dir, { recursive: true });
  const figures = { putManyMBs: putMany, putConcurrentlyMBs: putEach, getMBs: get, plainMBs: plain };
  console.log(
    JSON.stringify({
      bench: 'store',
      case: name,
      ...figures,
      ofPlain: +(putMany / plain).toFixed(2),
      idsPerS,
      openMs: reopen,
    }),
  );
}

async function writePlainly(path: string, blocks: Block[]): Promise<void> {
  const file = await open(path, 'w');
  let unsynced = 0;
  for (const { bytes } of blocks) {
    await file.write(bytes);
    unsynced += bytes.length;
    if (unsynced < PLAIN_SYNC_BYTES) continue;
    await file.datasync();
    unsynced = 0;
  }
  await file.datasync();
  await file.close();
}

async function getAll(store: DiskStore, blocks: Block[]): Promise<void> {
  const rest = blocks.values();
  const work = async (): Promise<void> => {
    for (const { id } of rest) if ((await store.get(id)) === undefined) throw new Error(`${id} is gone`);
  };
  await Promise.all(Array.from({ length: GETS_AT_ONCE }, work));
}

async function reopened(dir: string, store: DiskStore): Promise<number> {
  await store[Symbol.asyncDispose]();
  const start = performance.now();
  const again = await openDiskStore(dir);
  const ms = Math.round(performance.now() - start);
  await again[Symbol.asyncDispose]();
  return ms;
}
