// What becomes of the chunks that threads report: those they have appended are made durable and known; for those they left, because the
// shared set has their hash, an extent is found, and where there is none after all they are sealed. A wrong hint costs time, never data.
import { DezentError } from '../errors.ts';
import type { BlockId } from './block.ts';
import type { PackLanes } from './pack-lanes.ts';
import type { Extent } from './manifest.ts';
import type { ContentIndex, KeptChunk } from './pipeline.ts';
import type { PipelineThreads } from './pipeline-threads.ts';
import type { SealOptions } from './sealing.ts';
import type { AppendedRecord, ResealInput, SealedSolid, SealedWindow, WindowChunk } from './seal-windows.ts';
import type { PoolThread } from './thread-pool.ts';

export interface ChunkKeeperNeeds {
  lanes: Pick<PackLanes, 'adopt'>;
  index: ContentIndex;
  threads: PipelineThreads;
  /** Told of blocks that will be kept, before anybody can find them in the store. */
  beforeKeep?: ((ids: readonly BlockId[]) => Promise<void>) | undefined;
}

/** The file that is being sealed. */
export interface SealingFile {
  path: string;
  options: SealOptions & { owner: Uint8Array; signal: AbortSignal };
}

export interface ChunkKeeper {
  /** All chunks of the window, kept; what was appended is so also when this rejects for another chunk. */
  keep(window: SealedWindow, thread: PoolThread, file: SealingFile): Promise<KeptChunk[]>;
  /** The block of a solid. */
  keepSolid(solid: SealedSolid, thread: PoolThread, owner: Uint8Array): Promise<void>;
}

const hex = (hash: Uint8Array): string => Buffer.from(hash.buffer, hash.byteOffset, hash.length).toString('hex');

export function openChunkKeeper({ lanes, index, threads, beforeKeep }: ChunkKeeperNeeds): ChunkKeeper {
  /** Chunks that were appended and are not in the index yet. */
  const inFlight = new Map<string, Promise<KeptChunk>>();

  function note(plainHash: Uint8Array, keeping: Promise<KeptChunk>): Promise<KeptChunk> {
    const name = hex(plainHash);
    inFlight.set(name, keeping);
    const done = (): void => {
      if (inFlight.get(name) === keeping) inFlight.delete(name);
    };
    keeping.then(done, done);
    return keeping;
  }

  async function adoptRecords(records: readonly AppendedRecord[], owner: Uint8Array): Promise<void> {
    await beforeKeep?.(records.map(({ id }) => id));
    await lanes.adopt(records.map(({ id, pack, loan, offset, length }) => ({ id, pack, loan, offset, length, owner })));
  }

  async function adopt(chunks: readonly WindowChunk[], { owner, onKept }: SealingFile['options']): Promise<void> {
    const records = chunks.flatMap(({ record }) => record ?? []);
    if (records.length === 0) return;
    await adoptRecords(records, owner);
    await index.addExtents(
      chunks.flatMap(({ plainHash, length, record }) =>
        record ? [{ plainHash, extent: extentOf(record, length) }] : [],
      ),
    );
    onKept?.(records.map(({ id, length }) => ({ id, length })));
  }

  async function known({ plainHash, length }: WindowChunk): Promise<KeptChunk | undefined> {
    const keeping = await inFlight.get(hex(plainHash))?.catch(() => undefined); // then it is as if nobody had begun
    const extent = keeping?.extent ?? (await index.extent(plainHash));
    return extent?.length === length ? { plainHash, extent, newBytes: 0 } : undefined;
  }

  async function answerFor(
    chunk: WindowChunk,
    again: Omit<ResealInput, 'owner' | 'path'>,
    file: SealingFile,
  ): Promise<KeptChunk> {
    const found = await known(chunk);
    if (found !== undefined) return found;
    await threads.barrier(); // whoever has just put the hash into the set has told of it now
    return (await known(chunk)) ?? note(chunk.plainHash, sealAgain(again, file));
  }

  async function sealAgain(again: Omit<ResealInput, 'owner' | 'path'>, file: SealingFile): Promise<KeptChunk> {
    const { path, options } = file;
    let sealed: WindowChunk | undefined;
    const onEvent = async ({ chunks, full }: SealedWindow, thread: PoolThread): Promise<void> => {
      await adopt(chunks, options);
      threads.replaceLanes(thread, full);
      sealed = chunks[0];
    };
    const input: ResealInput = { ...again, path, owner: options.owner };
    await threads.run('sealAgain', input, { signal: options.signal, urgent: true, onEvent });
    if (sealed?.record === undefined) throw new DezentError('INTERNAL', `a chunk of ${path} was not sealed`);
    return keptOf(sealed);
  }

  async function keep(
    { position, chunks, stats, full }: SealedWindow,
    thread: PoolThread,
    file: SealingFile,
  ): Promise<KeptChunk[]> {
    const adopting = adopt(chunks, file.options);
    let at = position;
    const keeping = chunks.map((chunk) => {
      const place = at;
      at += chunk.length;
      const { plainHash, length } = chunk;
      if (chunk.record === undefined) return answerFor(chunk, { stats, position: place, length, plainHash }, file);
      return note(
        plainHash,
        adopting.then(() => keptOf(chunk)),
      );
    });
    const all = Promise.allSettled(keeping);
    await adopting;
    threads.replaceLanes(thread, full);
    await all;
    return Promise.all(keeping);
  }

  return {
    keep,
    async keepSolid({ record, full }, thread, owner) {
      await adoptRecords([record], owner);
      threads.replaceLanes(thread, full);
    },
  };
}

function extentOf({ id, key }: NonNullable<WindowChunk['record']>, length: number): Extent {
  return { block: id, offset: 0, length, key };
}

function keptOf({ plainHash, length, record }: WindowChunk): KeptChunk {
  if (record === undefined) throw new DezentError('INTERNAL', 'a chunk without a record has no extent');
  return { plainHash, extent: extentOf(record, length), newBytes: record.length };
}
