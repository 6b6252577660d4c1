// Sealers: files → kept blocks and manifests, on several threads (pipeline-thread.ts). This is their main thread: it hands files out and
// puts what comes back together; file data never comes here.
import { lstat } from 'node:fs/promises';
import { DezentError } from '../errors.ts';
import { endBaton, openBaton } from './baton.ts';
import { NO_OWNER, type Batches } from './block-store.ts';
import type { CallOptions, PutOptions } from './block-store.ts';
import { rootsIn } from './solid.ts';
import { openChunkKeeper, type ChunkKeeperNeeds, type SealingFile } from './chunk-keeper.ts';
import { openFileOrder } from './file-order.ts';
import { mapInOrder } from './pipeline.ts';
import type { ContentKeys } from './secrets.ts';
import type { PipelineThreads } from './pipeline-threads.ts';
import type {
  ChunkIndex,
  FileStats,
  KeptSolid,
  SealedFile,
  Sealers,
  SealOptions,
  SealRequest,
  SmallFile,
  SmallRequest,
} from './sealing.ts';
import {
  WINDOW_BYTES,
  type SealedSolid,
  type SealedWindow,
  type SealInput,
  type SealOutput,
  type SealSolidInput,
} from './seal-windows.ts';
import { filesOfBatch, type ReadBatch } from './small-files.ts';
import { againWhenLost, type PoolThread } from './thread-pool.ts';

/** From two windows on a file is shared between threads; smaller ones are done one beside the other. */
const SHARE_FROM_BYTES: number = 2 * WINDOW_BYTES;
/** Small files read as one job: some milliseconds of work and at most 8 MiB of content. */
const SMALL_BATCH = 256;

export interface SealersNeeds extends Omit<ChunkKeeperNeeds, 'index'> {
  index: ChunkIndex;
  /** Keeps page blocks. */
  store: Pick<Batches, 'putMany'>;
  keys: () => ContentKeys;
}

export function openSealers(needs: SealersNeeds): Sealers {
  const { threads, store, keys } = needs;
  const keeper = openChunkKeeper(needs);
  const closing = new AbortController();
  const filled = fillKnown(needs.index, threads, closing.signal);
  filled.catch(() => undefined); // whoever seals gets it

  async function sealOnce(request: SealRequest, options: SealOptions): Promise<SealedFile> {
    const { path, earlierAverage } = request;
    const stop = new AbortController();
    const signal = AbortSignal.any([stop.signal, closing.signal, ...(options.signal ? [options.signal] : [])]);
    const file: SealingFile = { path, options: { ...options, owner: options.owner ?? NO_OWNER, signal } };
    const order = openFileOrder({ keys: keys(), store }, earlierAverage, file.options);

    async function onEvent(window: SealedWindow, thread: PoolThread): Promise<void> {
      const kept = await keeper.keep(window, thread, file);
      options.onBytes?.(kept.reduce((sum, { extent }) => sum + extent.length, 0));
      await order.add(window.position, kept, Number(window.stats.size));
    }

    const shares = sharesOf(request, threads.threads);
    const shared = shares > 1 ? { stats: await statsOf(path), baton: openBaton() } : undefined;
    const input: SealInput = { path, owner: file.options.owner, earlierAverage, shared };
    const [first] = await allOrNone(
      Array.from({ length: shares }, () => threads.run<SealOutput>('seal', input, { signal, onEvent })),
      (error) => {
        stop.abort(error);
        if (shared) endBaton(shared.baton);
      },
    );
    if (first === undefined) throw new DezentError('INTERNAL', `nobody has sealed ${path}`);
    const { stats, content } = first;
    const stored = content === undefined ? await order.finish() : { ...content, blocks: [], newBytes: 0 };
    if (stored.sizeBytes !== Number(stats.size))
      throw new DezentError('INTERNAL', `of ${path} ${stored.sizeBytes} bytes were sealed, not ${stats.size}`);
    return { ...stored, stats };
  }

  async function keepSolid(
    parts: readonly Uint8Array[],
    { owner = NO_OWNER, signal }: PutOptions = {},
  ): Promise<KeptSolid> {
    const input: SealSolidInput = { plain: joinedCopy(parts), owner };
    let kept: SealedSolid['record'] | undefined;
    const onEvent = async (solid: SealedSolid, thread: PoolThread): Promise<void> => {
      await keeper.keepSolid(solid, thread, owner);
      kept = solid.record;
    };
    await againWhenLost(() => threads.run('sealSolid', input, { signal, urgent: true, onEvent }));
    if (kept === undefined) throw new DezentError('INTERNAL', 'a solid block was not sealed');
    const { id: block, length } = kept;
    return { block, length, roots: rootsIn(block, parts) };
  }

  return {
    async seal(request, options = {}) {
      options.signal?.throwIfAborted();
      await filled;
      const attempt = openAttempts(options.onBytes);
      return againWhenLost(() => sealOnce(request, { ...options, onBytes: attempt() }));
    },
    readSmall: (requests, options = {}) => readSmall(threads, requests, options),
    keepSolid,
    async [Symbol.asyncDispose]() {
      closing.abort(new DezentError('CANCELLED', 'the pipeline is closed'));
      await filled.catch(() => undefined); // told to whoever sealed
    },
  };
}

async function fillKnown(index: ChunkIndex, threads: PipelineThreads, signal: AbortSignal): Promise<void> {
  for await (const page of index.plainHashes()) {
    if (signal.aborted) return;
    for (const hash of page) threads.known().add(hash);
  }
}

function sharesOf({ sizeBytes }: SealRequest, threads: number): number {
  return sizeBytes < SHARE_FROM_BYTES ? 1 : Math.min(threads, Math.ceil(sizeBytes / WINDOW_BYTES));
}

async function statsOf(path: string): Promise<FileStats> {
  const { dev, ino, mode, nlink, size, mtimeNs, ctimeNs, birthtimeNs } = await lstat(path, { bigint: true });
  return { dev, ino, mode, nlink, size, mtimeNs, ctimeNs, birthtimeNs };
}

/** All results, or, when nothing of it goes on any more, the error that came first. */
async function allOrNone<T>(works: readonly Promise<T>[], onError: (error: unknown) => void): Promise<T[]> {
  let first: { error: unknown } | undefined;
  const results = await Promise.allSettled(
    works.map((work) =>
      work.catch((error: unknown) => {
        first ??= { error };
        onError(error);
        throw error;
      }),
    ),
  );
  if (first !== undefined) throw first.error;
  return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
}

/** Progress over several attempts: each tells only what is beyond what was told before. */
function openAttempts(onBytes: (count: number) => void = () => undefined): () => (count: number) => void {
  let told = 0;
  return () => {
    let done = 0;
    return (count) => {
      done += count;
      if (done <= told) return;
      onBytes(done - told);
      told = done;
    };
  };
}

/** In memory of its own: what is sent to a thread brings all of its memory along. */
function joinedCopy(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

async function readSmall(
  threads: PipelineThreads,
  requests: readonly SmallRequest[],
  { signal }: CallOptions,
): Promise<SmallFile[]> {
  async function* batches(): AsyncGenerator<readonly SmallRequest[]> {
    for (let at = 0; at < requests.length; at += SMALL_BATCH) {
      signal?.throwIfAborted();
      yield requests.slice(at, at + SMALL_BATCH);
    }
  }
  const read = (batch: readonly SmallRequest[]): Promise<ReadBatch> =>
    againWhenLost(() => threads.run<ReadBatch>('readSmall', batch, { signal, urgent: true }));
  const files: SmallFile[] = [];
  for await (const batch of mapInOrder(2 * threads.threads, read)(batches())) files.push(...filesOfBatch(batch));
  return files;
}
