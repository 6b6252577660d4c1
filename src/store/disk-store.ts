// The disk store: blocks in packs, found through an index, acknowledged when both survive a power cut. Reads are checked by id: a
// damaged block is an error (BAD_BLOCK), never absence and never wrong bytes.
import { blockIdOf, MAX_BLOCK_BYTES, type BlockId } from './block.ts';
import { NO_OWNER, type CallOptions, type LocalStore, type PutOptions } from './block-store.ts';
import { changeBytes, COMMIT_BYTES, freeBytesOf, openCommitter, type CommitSettings } from './pack-commit.ts';
import { openCompactor } from './pack-compact.ts';
import { decodeRecordHeader, RECORD_HEADER_BYTES } from './pack-file.ts';
import type { Location } from './pack-index.ts';
import type { LoadedPacks, Notify, StoreNotice } from './pack-load.ts';
import type { Change } from './pack-plan.ts';
import { openPackReader } from './pack-reader.ts';
import { storePaths } from './pack-rebuild.ts';
import { openPackSession } from './pack-session.ts';
import { asDezentError, DezentError, isDezentError, systemCode } from '../errors.ts';

export type { StoreNotice };

export interface DiskStoreSettings extends CommitSettings {
  /** Told of damage found and mended. */
  onNotice?: Notify;
}

export interface Upkeep {
  /** Makes the index again from the packs; the old one is set aside. */
  rebuild(): Promise<{ blocks: number }>;
  /** Reads every block and checks it; the ids of those that cannot be read. A `put` of such a block keeps it anew. */
  verifyAll(options?: CallOptions): Promise<{ checkedBlocks: number; checkedBytes: number; bad: BlockId[] }>;
  /** Gives the space of deleted blocks back where it pays; `now` also where little is to be had. Returns when it is done. */
  compact(options?: CallOptions & { now?: boolean }): Promise<{ freedBytes: number }>;
}

export type DiskStore = LocalStore & Upkeep;

/** Changes of one batch: a `deleteMany` of any size goes in commits of so many. */
const BATCH_CHANGES = 8192;

/**
 * Opens or makes the store in a directory of its own. Throws ALREADY_RUNNING when another process has it, NEWER_VERSION, IO, DISK_FULL.
 * `put` throws DISK_FULL while the disk has no room, and goes on once it has. Bytes given to `put` are not to be changed until it settles.
 */
export async function openDiskStore(dir: string, settings: DiskStoreSettings = {}): Promise<DiskStore> {
  const notify: Notify = settings.onNotice ?? (() => undefined);
  const paths = storePaths(dir);
  const session = await openPackSession(paths, notify);
  const reader = openPackReader(paths.packs);
  const committer = openCommitter({ paths, session }, settings);
  const compactor = openCompactor({ paths, session, committer, reader, notify });
  compactor.nudge();

  /** Asks the index; where it is damaged it is rebuilt, and where it is being replaced the new one is asked. */
  async function ask<T>(
    options: CallOptions | undefined,
    question: (packs: LoadedPacks) => T | Promise<T>,
  ): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      options?.signal?.throwIfAborted();
      const packs = await session.loaded();
      try {
        return await question(packs);
      } catch (error) {
        if (attempt === 2) throw error;
        if (isDezentError(error, 'BAD_INDEX')) await session.rebuild(packs);
        else if (packs === (await session.loaded())) throw error;
      }
    }
  }

  const locate = (id: BlockId, options?: CallOptions): Promise<Location | undefined> =>
    ask(options, ({ index, uncertain }) => {
      certain(uncertain, id);
      return index.get(id);
    });

  async function get(id: BlockId, options?: CallOptions): Promise<Uint8Array | undefined> {
    let location = await locate(id, options);
    while (location) {
      const bytes = await read(id, location);
      options?.signal?.throwIfAborted();
      if (bytes instanceof Uint8Array) return bytes;
      const now = await locate(id, options);
      // Only what is still said to lie there is damaged; else a compaction has moved it meanwhile.
      if (now && isSamePlace(now, location)) throw await damage(id, bytes);
      location = now;
    }
    return undefined;
  }

  /** The block's bytes, or why they are not there. */
  async function read(id: BlockId, location: Location): Promise<Uint8Array | DezentError> {
    let record: Uint8Array;
    try {
      record = await reader.read(location.pack, location.offset, RECORD_HEADER_BYTES + location.length);
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw asDezentError(error);
      return new DezentError('IO', `pack ${location.pack} with block ${id} is not there`, { cause: error });
    }
    const head = decodeRecordHeader(location, record);
    const bytes = record.subarray(RECORD_HEADER_BYTES);
    const whole =
      head?.kind === 'block' && head.id === id && bytes.length === location.length && blockIdOf(bytes) === id;
    return whole
      ? bytes
      : new DezentError('BAD_BLOCK', `block ${id} is damaged in pack ${location.pack} at ${location.offset}`);
  }

  async function damage(id: BlockId, error: DezentError): Promise<DezentError> {
    (await session.loaded()).damaged.add(id);
    notify({ what: 'bad-block', message: error.message, id, error });
    return error;
  }

  const isHere = ({ damaged }: LoadedPacks, id: BlockId, location: Location | undefined): boolean =>
    location !== undefined && !damaged.has(id);

  async function putMany(
    blocks: Iterable<{ id: BlockId; bytes: Uint8Array }>,
    options: PutOptions = {},
  ): Promise<void> {
    options.signal?.throwIfAborted();
    await inBatches(
      mapped(blocks, (block) => putOf(block.id, block.bytes, options)),
      options,
    );
  }

  /** Two batches at a time: one is gathered while the other is written. Nothing is under way any more when it returns or throws. */
  async function inBatches(changes: Iterable<Change>, options: CallOptions): Promise<void> {
    let before: Promise<Failure> = Promise.resolve(undefined);
    let failure: Failure;
    try {
      for (const batch of batchesOf(changes)) {
        const now = failureOf(committer.submit(batch, options));
        failure = await before;
        before = now;
        if (failure) break;
      }
    } finally {
      const final = await before;
      failure ??= final;
    }
    if (failure) throw failure.error;
  }

  async function deleteMany(ids: readonly BlockId[], options: CallOptions = {}): Promise<void> {
    options.signal?.throwIfAborted();
    await inBatches(
      mapped(ids, (id) => ({ kind: 'delete', id })),
      options,
    );
    compactor.nudge();
  }

  async function* ids(options: CallOptions = {}): AsyncIterable<BlockId> {
    let last: BlockId | undefined;
    for (;;) {
      const page = await ask(options, ({ index }) => index.page(last));
      if (page.length === 0) return;
      for (const id of page) {
        options.signal?.throwIfAborted();
        yield id;
      }
      last = page.at(-1);
    }
  }

  async function verifyAll(options: CallOptions = {}): ReturnType<Upkeep['verifyAll']> {
    const result = { checkedBlocks: 0, checkedBytes: 0, bad: [] as BlockId[] };
    for await (const id of ids(options)) {
      try {
        const bytes = await get(id, options);
        if (bytes) result.checkedBlocks++;
        result.checkedBytes += bytes?.length ?? 0;
      } catch (error) {
        if (!isDezentError(error, 'BAD_BLOCK') && !isDezentError(error, 'IO')) throw error;
        result.bad.push(id);
      }
    }
    return result;
  }

  return {
    supports: { batches: true, owners: true, space: true },
    get,
    put: async (id, bytes, options = {}) => {
      options.signal?.throwIfAborted();
      await committer.submit([putOf(id, bytes, options)], options);
    },
    has: (id, options) =>
      ask(options, (packs) => {
        certain(packs.uncertain, id);
        return isHere(packs, id, packs.index.get(id));
      }),
    delete: (id, options) => deleteMany([id], options),
    ids,
    putMany,
    hasMany: (many, options) =>
      ask(options, async (packs) => {
        for (const id of many) certain(packs.uncertain, id);
        const locations = await packs.index.getMany(many);
        return new Set(many.filter((id, at) => isHere(packs, id, locations[at])));
      }),
    deleteMany,
    stat: async (id, options) => {
      const location = await locate(id, options);
      return location && { owner: location.owner, length: location.length };
    },
    space: () =>
      ask(undefined, async ({ index, states, missing }) => {
        const packs = [...states.values()].filter(({ pack }) => !missing.has(pack));
        const usedBytes = packs.reduce((sum, { end }) => sum + end, await index.usedBytes());
        return { usedBytes, freeBytes: await freeBytesOf(dir) };
      }),
    rebuild: () => session.rebuild(),
    verifyAll,
    compact: (options = {}) => compactor.compact(options),
    [Symbol.asyncDispose]: async () => {
      await compactor.close();
      await committer.idle();
      await session.close();
      await reader.close();
    },
  };
}

type Failure = { error: unknown } | undefined;

function failureOf(work: Promise<void>): Promise<Failure> {
  return work.then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
}

function putOf(id: BlockId, bytes: Uint8Array, options: PutOptions): Change {
  if (bytes.length > MAX_BLOCK_BYTES)
    throw new DezentError('BAD_BLOCK', `block ${id} has ${bytes.length} bytes, more than ${MAX_BLOCK_BYTES}`);
  return { kind: 'put', id, bytes, owner: options.owner ?? NO_OWNER };
}

function certain(uncertain: LoadedPacks['uncertain'], id: BlockId): void {
  if (uncertain.has(id))
    throw new DezentError('IO', `a change of block ${id} failed half-way`, { cause: uncertain.get(id) });
}

function isSamePlace(one: Location, other: Location): boolean {
  return one.pack === other.pack && one.offset === other.offset;
}

function* mapped<A, B>(all: Iterable<A>, map: (one: A) => B): Iterable<B> {
  for (const one of all) yield map(one);
}

function* batchesOf(changes: Iterable<Change>): Iterable<Change[]> {
  let batch: Change[] = [];
  let bytes = 0;
  for (const change of changes) {
    if (batch.length >= BATCH_CHANGES || bytes + changeBytes(change) > COMMIT_BYTES) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(change);
    bytes += changeBytes(change);
  }
  if (batch.length > 0) yield batch;
}
