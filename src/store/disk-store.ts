// The disk store: blocks in packs, found through an index, acknowledged when both survive a power cut. This file joins its parts:
// session (what is loaded), committer (all changes, in groups), reads, compactor.
import { join } from 'node:path';
import { MAX_BLOCK_BYTES, type BlockId } from './block.ts';
import { NO_OWNER, OWNER_BYTES, type CallOptions, type LocalStore, type PutOptions } from './block-store.ts';
import { ask, openDiskReads } from './disk-reads.ts';
import { submitAll } from './pack-batches.ts';
import { freeBytesOf, openCommitter, type CommitSettings } from './pack-commit.ts';
import { openCompactor } from './pack-compact.ts';
import { packName, type PackId } from './pack-file.ts';
import { openPackLanes, type PackLanes } from './pack-lanes.ts';
import type { Notify, StoreNotice } from './pack-load.ts';
import type { Change } from './pack-plan.ts';
import { openPackReader } from './pack-reader.ts';
import { storePaths } from './pack-rebuild.ts';
import { openPackSession, type PackSession } from './pack-session.ts';
import { DezentError, isDezentError } from '../errors.ts';

export type { StoreNotice };

export interface DiskStoreSettings extends CommitSettings {
  /** Told of damage found and mended. */
  onNotice?: Notify;
}

export interface Upkeep {
  /** Makes the index again from the packs; the old one is set aside. */
  rebuild(): Promise<{ blocks: number }>;
  /** Reads every block and checks it; the ids of those that cannot be read. A `put` of such a block keeps it anew. */
  verifyAll(options?: CallOptions): Promise<Verified>;
  /** Gives the space of deleted blocks back where it pays; `now` also where little is to be had. Returns when it is done. */
  compact(options?: CallOptions & { now?: boolean }): Promise<{ freedBytes: number }>;
}

export interface Verified {
  checkedBlocks: number;
  checkedBytes: number;
  bad: BlockId[];
}

/** Where blocks lie, for threads that write and read packs on their own. */
export interface PackAccess {
  lanes: PackLanes;
  /** Where the block's record is: a hint that a compaction may make void, and no word on whether it can be read. */
  locate(ids: readonly BlockId[]): Promise<(RecordPlace | undefined)[]>;
}

/** A block's record in a pack file. */
export interface RecordPlace {
  pack: PackId;
  path: string;
  offset: number;
  /** Of the block's bytes. */
  length: number;
}

export type DiskStore = LocalStore & Upkeep & PackAccess;

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
  const reads = openDiskReads({ session, reader, notify });
  const lanes = openPackLanes({ paths, session, committer }, settings);
  compactor.nudge();

  async function change(changes: Iterable<Change>, options: CallOptions = {}): Promise<void> {
    options.signal?.throwIfAborted();
    await submitAll(committer, changes, options);
  }

  async function deleteMany(ids: readonly BlockId[], options?: CallOptions): Promise<void> {
    await change(deletionsOf(ids), options);
    compactor.nudge();
  }

  return {
    supports: { batches: true, owners: true, space: true },
    ...reads,
    put: (id, bytes, options) => change(putsOf([{ id, bytes }], options), options),
    putMany: (blocks, options) => change(putsOf(blocks, options), options),
    delete: (id, options) => deleteMany([id], options),
    deleteMany,
    space: () => spaceOf(session, dir),
    lanes,
    locate: (ids) => locate(session, paths.packs, ids),
    rebuild: () => session.rebuild(),
    verifyAll: (options) => verifyAll(reads, options),
    async compact(options = {}) {
      if (options.now === true) await lanes.recall();
      return compactor.compact(options);
    },
    [Symbol.asyncDispose]: async () => {
      await compactor.close();
      await committer.idle();
      await session.close();
      await reader.close();
    },
  };
}

function* putsOf(blocks: Iterable<{ id: BlockId; bytes: Uint8Array }>, options: PutOptions = {}): Iterable<Change> {
  const owner = options.owner ?? NO_OWNER;
  if (owner.length !== OWNER_BYTES)
    throw new DezentError('INTERNAL', `an owner has ${OWNER_BYTES} bytes, not ${owner.length}`);
  for (const { id, bytes } of blocks) {
    if (bytes.length > MAX_BLOCK_BYTES) {
      throw new DezentError('BAD_BLOCK', `block ${id} has ${bytes.length} bytes, more than ${MAX_BLOCK_BYTES}`);
    }
    yield { kind: 'put', id, bytes, owner };
  }
}

function* deletionsOf(ids: Iterable<BlockId>): Iterable<Change> {
  for (const id of ids) yield { kind: 'delete', id };
}

function locate(session: PackSession, dir: string, ids: readonly BlockId[]): Promise<(RecordPlace | undefined)[]> {
  return ask(session, undefined, async ({ index }) => {
    const locations = await index.getMany(ids);
    return locations.map((found) => {
      if (found === undefined) return undefined;
      const { pack, offset, length } = found;
      return { pack, path: join(dir, packName(pack)), offset, length };
    });
  });
}

function spaceOf(session: PackSession, dir: string): Promise<{ usedBytes: number; freeBytes: number }> {
  return ask(session, undefined, async ({ index, states, missing }) => {
    const packs = [...states.values()].filter(({ pack }) => !missing.has(pack));
    const usedBytes = packs.reduce((sum, { end }) => sum + end, await index.usedBytes());
    return { usedBytes, freeBytes: await freeBytesOf(dir) };
  });
}

async function verifyAll(reads: Pick<LocalStore, 'get' | 'ids'>, options: CallOptions = {}): Promise<Verified> {
  const result: Verified = { checkedBlocks: 0, checkedBytes: 0, bad: [] };
  for await (const id of reads.ids(options)) {
    try {
      const bytes = await reads.get(id, options);
      if (bytes) result.checkedBlocks++;
      result.checkedBytes += bytes?.length ?? 0;
    } catch (error) {
      if (!isDezentError(error, 'BAD_BLOCK') && !isDezentError(error, 'IO')) throw error;
      result.bad.push(id);
    }
  }
  return result;
}
