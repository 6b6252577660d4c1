// Opens index and packs together and makes them agree. The whole index is read and counted first, since `level` loses damaged entries
// without a word; then whatever lies in a pack behind its indexed end is looked at. Where the index is damaged it is rebuilt.
import { open, rm, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { blockIdOf, type BlockId } from './block.ts';
import {
  PACK_HEADER_BYTES,
  packName,
  RECORD_HEADER_BYTES,
  recordBytes,
  type PackId,
  type RecordHead,
} from './pack-file.ts';
import { countBlock, openPackIndex, type Location, type PackIndex, type PackState } from './pack-index.ts';
import { listPacks, newPackState, rebuildIndex, type StorePaths } from './pack-rebuild.ts';
import { readBytes, scanPack } from './pack-scan.ts';
import type { PackWriter } from './pack-writer.ts';
import { DezentError, isDezentError } from '../errors.ts';

/** Something the owner of the store may want to know. */
export interface StoreNotice {
  what: 'index-rebuilt' | 'bad-block' | 'pack-missing' | 'pack-damaged' | 'compaction-failed';
  message: string;
  id?: BlockId;
  error?: unknown;
}

export type Notify = (notice: StoreNotice) => void;

export interface LoadedPacks {
  index: PackIndex;
  /** Of every pack that the index or the directory knows. */
  states: Map<PackId, PackState>;
  /** Packs that the index names and that are not there. */
  missing: Set<PackId>;
  /** Blocks known to be unreadable: a `put` of one keeps it anew. */
  damaged: Set<BlockId>;
  /** Blocks of a change that failed half-way, so that nothing can be said of them until all is loaded again. */
  uncertain: Map<BlockId, unknown>;
  /** The pack that is appended to, once something was. */
  writer: PackWriter | undefined;
}

/** Packs that are `lent` are taken as the index knows them. Throws NEWER_VERSION, IO, DISK_FULL. */
export async function loadPacks(
  paths: StorePaths,
  notify: Notify,
  lent: ReadonlyMap<PackId, number> = new Map(),
): Promise<LoadedPacks> {
  try {
    return await load(paths, notify, lent);
  } catch (error) {
    if (!isDezentError(error, 'BAD_INDEX')) throw error;
    const { blocks } = await rebuildIndex(paths);
    notify({
      what: 'index-rebuilt',
      message: `the index was rebuilt from the packs: ${blocks} blocks (${error.message})`,
      error,
    });
    return load(paths, notify, lent);
  }
}

async function load(paths: StorePaths, notify: Notify, lent: ReadonlyMap<PackId, number>): Promise<LoadedPacks> {
  const sizes = await packSizes(paths);
  const index = await openPackIndex(paths.index);
  try {
    if (sizes.size > 0 && !(await index.isKnown())) throw new DezentError('BAD_INDEX', 'there are packs but no index');
    const states = new Map((await index.packs()).map((state) => [state.pack, state]));
    const packs: LoadedPacks = {
      index,
      states,
      missing: new Set(),
      damaged: new Set(),
      uncertain: new Map(),
      writer: undefined,
    };
    await countAll(packs, sizes);
    await dropUnused(packs, sizes, notify);
    for (const [pack, size] of sizes) {
      if (!lent.has(pack)) await readTail(packs, { paths, pack, size }, notify);
      else if (!states.has(pack)) states.set(pack, newPackState(pack, PACK_HEADER_BYTES));
    }
    return packs;
  } catch (error) {
    await index.close();
    throw error;
  }
}

async function packSizes(paths: StorePaths): Promise<Map<PackId, number>> {
  const sizes = new Map<PackId, number>();
  for (const pack of await listPacks(paths)) sizes.set(pack, (await stat(join(paths.packs, packName(pack)))).size);
  return sizes;
}

/** Compares the entries with the counts that were kept with them; BAD_INDEX where they differ. */
async function countAll({ index, states, damaged }: LoadedPacks, sizes: Map<PackId, number>): Promise<void> {
  const counted = new Map<PackId, PackState>();
  for await (const page of index.entries())
    for (const [id, location] of page) {
      const count = counted.get(location.pack) ?? newPackState(location.pack, 0);
      counted.set(location.pack, count);
      countBlock(count, RECORD_HEADER_BYTES + location.length, 1);
      if (location.offset + RECORD_HEADER_BYTES + location.length > (sizes.get(location.pack) ?? 0)) damaged.add(id);
    }
  for (const pack of new Set([...counted.keys(), ...states.keys()])) {
    const [count, state] = [counted.get(pack), states.get(pack)];
    const same =
      state !== undefined &&
      state.liveBlocks === (count?.liveBlocks ?? 0) &&
      state.liveBytes === (count?.liveBytes ?? 0);
    if (!same) throw new DezentError('BAD_INDEX', `the index has lost entries of pack ${pack}`);
  }
}

async function dropUnused(
  { index, states, missing }: LoadedPacks,
  sizes: Map<PackId, number>,
  notify: Notify,
): Promise<void> {
  for (const [pack, state] of states) {
    const size = sizes.get(pack);
    if (size === undefined && state.liveBlocks === 0) {
      states.delete(pack);
      await index.write([], [], { drop: pack });
    } else if (size === undefined) {
      missing.add(pack);
      notify({ what: 'pack-missing', message: `pack ${pack} with ${state.liveBlocks} blocks is not there` });
    } else if (size < state.end) {
      state.sealed = true;
      notify({ what: 'pack-damaged', message: `pack ${pack} is cut off at ${size} of ${state.end} bytes` });
    }
  }
}

interface PackTail {
  paths: StorePaths;
  pack: PackId;
  size: number;
}

/**
 * Takes into the index what is whole behind the pack's indexed end: written, but not acknowledged when the process ended. A tombstone
 * there is carried out too: nobody was told that its block is still kept, and it must not end one that is acknowledged later.
 */
async function readTail(packs: LoadedPacks, { paths, pack, size }: PackTail, notify: Notify): Promise<void> {
  const path = join(paths.packs, packName(pack));
  const known = packs.states.get(pack);
  if (known && size <= known.end) return;
  if (!known && size < PACK_HEADER_BYTES) return rm(path); // the unfinished beginning of a pack
  const state = known ?? newPackState(pack, 0);
  packs.states.set(pack, state);
  const tail = openTail(packs, state);
  const file = await open(path, 'r');
  try {
    for await (const found of scanPack({ pack, file, from: state.end, size })) {
      if (found.kind === 'record') await tail.take(file, found.offset, found.head);
      else if (!found.torn) {
        state.sealed = state.doubtful = true;
        notify({
          what: 'pack-damaged',
          message: `pack ${pack} has ${found.end - found.offset} unreadable bytes at ${found.offset}`,
        });
      }
    }
  } finally {
    await file.close();
  }
  // A torn end stays behind `end`: it is cut off when the pack is appended to.
  state.end = state.doubtful ? size : Math.max(state.end, PACK_HEADER_BYTES);
  await tail.write();
}

function openTail(
  packs: LoadedPacks,
  state: PackState,
): { take: (file: FileHandle, offset: number, head: RecordHead) => Promise<void>; write: () => Promise<void> } {
  const changes = new Map<BlockId, Location | undefined>();
  const touched = new Set<PackState>([state]);
  const locationOf = (id: BlockId): Location | undefined => (changes.has(id) ? changes.get(id) : packs.index.get(id));

  function replace(id: BlockId, next: Location | undefined): void {
    const before = locationOf(id);
    for (const [location, by] of [
      [before, -1],
      [next, 1],
    ] as const) {
      const counted = location && packs.states.get(location.pack);
      if (!counted) continue;
      countBlock(counted, RECORD_HEADER_BYTES + location.length, by);
      touched.add(counted);
    }
    changes.set(id, next);
    packs.damaged.delete(id);
  }

  async function take(file: FileHandle, offset: number, head: RecordHead): Promise<void> {
    state.end = offset + recordBytes(head);
    const location = locationOf(head.id);
    if (head.kind === 'tombstone') {
      state.tombstoneBytes += recordBytes(head);
      if (location?.pack === head.target.pack && location.offset === head.target.offset) replace(head.id, undefined);
      return;
    }
    const wanted = location === undefined || packs.damaged.has(head.id);
    if (!wanted || blockIdOf(await readBytes(file, offset + RECORD_HEADER_BYTES, head.length)) !== head.id) return;
    replace(head.id, { pack: state.pack, offset, length: head.length, owner: head.owner });
  }

  const write = (): Promise<void> =>
    packs.index.write(
      [...changes].map(([id, location]) => ({ id, location })),
      [...touched],
    );
  return { take, write };
}
