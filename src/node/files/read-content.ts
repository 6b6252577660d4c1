// readContent: one file → kept blocks and a manifest. On threads (sealers.ts), small files many at a time; or, with `pipeline.workers` 0, on this
// thread. Both give the same, byte for byte.
import { DezentError } from '../../errors.ts';
import type { LocalStore } from '../../store/block-store.ts';
import type { BlockId } from '../../store/block.ts';
import type { DiskStore } from '../../store/disk-store.ts';
import { INLINE_MAX_BYTES } from '../../store/manifest.ts';
import { openPipelineThreads } from '../../store/pipeline-threads.ts';
import { toContent } from '../../store/pipeline.ts';
import type { ChunkIndex, SealedFile, Sealers, SealOptions, SealRequest, SmallFile } from '../../store/sealing.ts';
import { openSealers } from '../../store/sealers.ts';
import type { ContentKeys } from '../../store/secrets.ts';
import { openStable } from './stable-file.ts';

/** Small files handed to the threads together, and such batches under way: at most 32 MiB of content. */
const SMALL_TOGETHER = 256;
const SMALL_BATCHES = 4;
/** Threads end after so long without work: an idle node is small. */
const IDLE_MS = 10_000;
/** Others on the machine go first. */
const NICENESS = 10;

export interface ReadOptions {
  signal?: AbortSignal;
  onBytes?: (count: number) => void;
}

/**
 * Reads the file at an absolute path; every block is durable when it resolves, the manifest is not kept yet. Throws CHANGED when the file
 * changed meanwhile, the system's own errors (ENOENT, EACCES), DISK_FULL, the signal's reason.
 */
export type ReadContent = (request: SealRequest, options: ReadOptions) => Promise<SealedFile>;

export interface PlainReaderNeeds {
  keys: () => ContentKeys;
  store: LocalStore;
  index: ChunkIndex;
  owner: Uint8Array;
}

export function openPlainReader({ keys, store, index, owner }: PlainReaderNeeds): ReadContent {
  return async ({ path, earlierAverage }, options) => {
    await using file = await openStable(path);
    const sizeBytes = Number(file.stats.size);
    const average = earlierAverage === undefined ? {} : { earlierAverage };
    const content = await toContent(
      file.read(),
      { keys: keys(), store, index },
      { ...options, sizeBytes, owner, ...average },
    );
    await file.checkUnchanged();
    return { ...content, stats: file.stats };
  };
}

export interface ThreadedReaderNeeds {
  keys: () => ContentKeys;
  store: Pick<DiskStore, 'lanes' | 'putMany'>;
  index: ChunkIndex;
  owner: Uint8Array;
  workers: number;
  /** Before anybody can find the blocks in the store. */
  beforeKeep(ids: readonly BlockId[]): Promise<void>;
  onKept: NonNullable<SealOptions['onKept']>;
}

export function openThreadedReader(needs: ThreadedReaderNeeds, parts: AsyncDisposableStack): ReadContent {
  const { keys, store, index, owner, workers, beforeKeep, onKept } = needs;
  const threads = parts.use(
    openPipelineThreads({ store, keys }, { threads: workers, niceness: NICENESS, idleMs: IDLE_MS }),
  );
  const sealers = parts.use(openSealers({ threads, lanes: store.lanes, store, keys, index, beforeKeep }));
  const readSmall = openSmallReader(sealers);
  const seal = (request: SealRequest, options: ReadOptions): Promise<SealedFile> =>
    sealers.seal(request, { ...options, owner, onKept });
  return async (request, options) => {
    if (request.sizeBytes > INLINE_MAX_BYTES) return seal(request, options);
    const small = await readSmall(request);
    options.signal?.throwIfAborted();
    if (!('code' in small)) {
      options.onBytes?.(small.sizeBytes);
      return small;
    }
    if (small.code === 'TOO_LARGE') return seal(request, options);
    if (small.code === 'CHANGED') throw new DezentError('CHANGED', small.message);
    throw Object.assign(new Error(small.message), { code: small.code });
  };
}

/** Gathers requests that come at about the same time. */
function openSmallReader(sealers: Sealers): (request: SealRequest) => Promise<SmallFile> {
  let waiting: { request: SealRequest; done(file: SmallFile): void; failed(error: unknown): void }[] = [];
  let running = 0;

  async function readBatch(): Promise<void> {
    const batch = waiting.splice(0, SMALL_TOGETHER);
    running += 1;
    try {
      const files = await sealers.readSmall(batch.map(({ request }) => request));
      batch.forEach(({ done }, index) => done(files[index] as SmallFile));
    } catch (error) {
      for (const { failed } of batch) failed(error);
    } finally {
      running -= 1;
      start();
    }
  }

  function start(): void {
    while (running < SMALL_BATCHES && waiting.length > 0) void readBatch();
  }

  return (request) => {
    const { promise, resolve, reject } = Promise.withResolvers<SmallFile>();
    if (waiting.length === 0) setImmediate(start);
    waiting.push({ request, done: resolve, failed: reject });
    if (waiting.length >= SMALL_TOGETHER) start();
    return promise;
  };
}
