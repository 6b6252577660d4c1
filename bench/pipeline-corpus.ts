// What ingest.bench.ts and restore.bench.ts share: a deterministic corpus on a file system in memory, a pipeline over a fresh store, the
// peers' command lines, alternated runs and medians.
import { execFileSync } from 'node:child_process';
import { createCipheriv } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openDiskStore, type DiskStore } from '../src/store/disk-store.ts';
import type { Extent } from '../src/store/manifest.ts';
import { openOpeners } from '../src/store/openers.ts';
import { openPipelineThreads } from '../src/store/pipeline-threads.ts';
import { openSealers } from '../src/store/sealers.ts';
import type { ChunkIndex, Openers, Sealers } from '../src/store/sealing.ts';
import { contentKeysOf, type ContentKeys } from '../src/store/secrets.ts';

export const MIB: number = 1024 * 1024;
export const FILE_BYTES: number = 512 * MIB;
export const SMALL_FILES = 20_000;
const SMALL_BYTES = 4096;
/** Odd, so that there is a median. */
export const RUNS = 5;
const THREADS = 2;
const WORDS: string[] =
  'the of and a to in is you that it he was for on are as with his they I at be this have from or one had by word but not what all were we when your can said there use an each which she do how their if will up other about out many then them these so some her would make like him into time has look two more write go see number no way could people my than first water been call who oil its now find'.split(
    ' ',
  );

export type Kind = 'random' | 'text' | 'mixed';
export const KINDS: readonly Kind[] = ['mixed', 'random', 'text'];

export const KEYS: ContentKeys = contentKeysOf({
  split: Buffer.alloc(32, 1),
  epochs: [{ id: Buffer.alloc(8), secret: Buffer.alloc(32) }],
});

/** A directory of its own, in memory where the system has such a place. */
export function workDir(): string {
  return mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'dezent-bench-'));
}

/** Bytes that look random and follow from the seed. */
function randomStream(seed: number): (length: number) => Buffer {
  const cipher = createCipheriv('aes-256-ctr', Buffer.alloc(32, seed), Buffer.alloc(16));
  return (length) => cipher.update(Buffer.alloc(length));
}

/** Words, the first ones more often than the last. */
function text(random: Buffer, length: number): Buffer {
  const words: string[] = [];
  let bytes = 0;
  for (let at = 0; bytes < length; at = (at + 2) % (random.length - 2)) {
    const [one = 0, other = 0] = [random[at], random[at + 1]];
    const word = `${WORDS[Math.floor((one * other) / 800) % WORDS.length]}${one < 24 ? `. ${other}\n` : ' '}`;
    words.push(word);
    bytes += word.length;
  }
  return Buffer.from(words.join('')).subarray(0, length);
}

/** DIR/KIND/file of 512 MiB; mixed is half random, half text, in turns of 1 MiB. */
export function makeLarge(dir: string, kind: Kind): string {
  mkdirSync(join(dir, kind));
  const path = join(dir, kind, 'file');
  const random = randomStream(KINDS.indexOf(kind) + 1);
  const file = openSync(path, 'w');
  for (let at = 0; at < FILE_BYTES / MIB; at += 1) {
    const bytes = random(MIB);
    writeSync(file, kind === 'text' || (kind === 'mixed' && at % 2 === 1) ? text(bytes, MIB) : bytes);
  }
  closeSync(file);
  return path;
}

/** DIR/small with 20,000 files of 4 KiB, half random, half text, in folders of 1000. */
export function makeSmall(dir: string): string[] {
  const random = randomStream(9);
  return Array.from({ length: SMALL_FILES }, (_, at) => {
    const folder = join(dir, 'small', String(Math.floor(at / 1000)));
    if (at % 1000 === 0) mkdirSync(folder, { recursive: true });
    const path = join(folder, `file${at}`);
    const bytes = random(SMALL_BYTES);
    writeFileSync(path, at % 2 === 0 ? bytes : text(bytes, SMALL_BYTES));
    return path;
  });
}

export interface BenchPipeline {
  store: DiskStore;
  sealers: Sealers;
  openers: Openers;
  close(): Promise<void>;
}

/** Over a fresh store, with threads that run already: so is the node that somebody adds files to. */
export async function openBenchPipeline(dir: string): Promise<BenchPipeline> {
  const store = await openDiskStore(dir);
  const keys = (): ContentKeys => KEYS;
  const threads = openPipelineThreads({ store, keys }, { threads: THREADS });
  const sealers = openSealers({ lanes: store.lanes, store, keys, threads, index: openIndex() });
  const openers = openOpeners({ store, threads, keys });
  await sealers.readSmall(Array.from({ length: 1000 }, () => ({ path: '/no such file' })));
  async function close(): Promise<void> {
    await sealers[Symbol.asyncDispose]();
    await openers[Symbol.asyncDispose]();
    await threads[Symbol.asyncDispose]();
    await store[Symbol.asyncDispose]();
    rmSync(dir, { recursive: true });
  }
  return { store, sealers, openers, close };
}

function openIndex(): ChunkIndex {
  const known = new Map<string, Extent>();
  const hex = (hash: Uint8Array): string => Buffer.from(hash).toString('hex');
  return {
    extent: async (hash) => known.get(hex(hash)),
    addExtents: async (all) => all.forEach(({ plainHash, extent }) => known.set(hex(plainHash), extent)),
    async *plainHashes() {
      yield [];
    },
  };
}

export function shell(command: string): void {
  execFileSync('sh', ['-ec', command], { stdio: ['ignore', 'ignore', 'inherit'] });
}

const PASS = '-aes-256-ctr -pbkdf2 -pass pass:x';
/** What compresses and encrypts with the tools that every system has. */
export const pack = (from: string, to: string): string =>
  `tar -C '${from}' -cf - . | zstd -q -1 -T2 | openssl enc ${PASS} -out '${to}'`;
export const unpack = (from: string, to: string): string =>
  `openssl enc -d ${PASS} -in '${from}' | zstd -dcq | tar -C '${to}' -xf -`;

/** Seconds that each takes, as the median of alternated runs; each removes what it made. */
export async function compare(contenders: Record<string, () => Promise<number>>): Promise<Record<string, number>> {
  const runs = new Map<string, number[]>(Object.keys(contenders).map((name) => [name, []]));
  for (let run = 0; run < RUNS; run += 1)
    for (const [name, contender] of Object.entries(contenders)) runs.get(name)?.push(await contender());
  return Object.fromEntries([...runs].map(([name, all]) => [name, all.toSorted((a, b) => a - b)[RUNS >> 1] ?? 0]));
}

export async function seconds(work: () => Promise<void> | void): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/** One line: rates of all, and ours as a share of each. */
export function report(
  bench: string,
  what: string,
  { amount, unit }: { amount: number; unit: string },
  taken: Record<string, number>,
): void {
  const rates = Object.entries(taken).map(([name, s]) => [name, Math.round(amount / s)] as const);
  const ours = taken['dezent'] ?? 0;
  const ratios = Object.entries(taken).flatMap(([name, s]) =>
    name === 'dezent' ? [] : [[name, +(s / ours).toFixed(2)]],
  );
  console.log(
    JSON.stringify({
      bench,
      case: what,
      unit,
      ...Object.fromEntries(rates),
      timesFaster: Object.fromEntries(ratios),
      runs: RUNS,
    }),
  );
}
