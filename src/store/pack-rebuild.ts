// Makes the index again from the packs alone. Nothing is deleted by it: the old index is set aside, unreadable stretches of packs stay
// where they are, and only a whole tombstone found in order ends the one record that it names.
import { open, readdir, rename, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { blockIdOf, type BlockId } from './block.ts';
import {
  packName,
  packOfName,
  RECORD_HEADER_BYTES,
  recordBytes,
  type BlockHead,
  type PackId,
  type Place,
} from './pack-file.ts';
import {
  countBlock,
  openPackIndex,
  PAGE_ENTRIES,
  type Location,
  type PackIndex,
  type PackState,
} from './pack-index.ts';
import { readBytes, scanPack, type Found } from './pack-scan.ts';
import { syncDirectory } from './pack-writer.ts';
import { systemCode } from '../errors.ts';

/** Where things lie in a disk store's directory. */
export interface StorePaths {
  dir: string;
  packs: string;
  index: string;
}

export function storePaths(dir: string): StorePaths {
  return { dir, packs: join(dir, 'packs'), index: join(dir, 'index') };
}

/** The packs there are, by their names. */
export async function listPacks(paths: StorePaths): Promise<PackId[]> {
  return (await readdir(paths.packs)).flatMap((name) => packOfName(name) ?? []).sort();
}

/** A pack's state before anything of it was read. */
export function newPackState(pack: PackId, end: number): PackState {
  return { pack, end, liveBlocks: 0, liveBytes: 0, tombstoneBytes: 0, sealed: false, doubtful: false };
}

/** Reads all packs, makes a new index of them and puts it in the place of the old one, which becomes `index.aside`. */
export async function rebuildIndex(paths: StorePaths): Promise<{ blocks: number }> {
  const building = `${paths.index}.building`;
  const index = await openPackIndex(building);
  let blocks: number;
  try {
    await index.clear();
    const packs = await listPacks(paths);
    blocks = await fill(index, paths, packs);
  } finally {
    await index.close();
  }
  await setAside(paths.index);
  await rename(building, paths.index);
  await syncDirectory(paths.dir);
  return { blocks };
}

async function setAside(index: string): Promise<void> {
  const aside = `${index}.aside`;
  await rm(aside, { recursive: true, force: true });
  await rename(index, aside).catch((error: unknown) => {
    if (systemCode(error) !== 'ENOENT') throw error;
  });
}

async function fill(index: PackIndex, paths: StorePaths, packs: readonly PackId[]): Promise<number> {
  const dead = await deadPlaces(paths, packs);
  const states = new Map<PackId, PackState>();
  const batch = openBatch(index);
  for (const pack of packs) {
    const state = newPackState(pack, 0);
    states.set(pack, state);
    const deadHere = new Set(dead.get(pack));
    dead.delete(pack);
    for await (const found of foundIn(paths, pack)) {
      state.end = endOf(found);
      if (found.kind === 'gap') {
        state.sealed = true;
        state.doubtful ||= !found.torn;
      } else if (found.head.kind === 'tombstone') {
        state.tombstoneBytes += recordBytes(found.head);
      } else if (!deadHere.has(found.offset)) {
        await take(found.head, { pack, offset: found.offset });
      }
    }
  }
  await batch.flush();
  const all = [...states.values()];
  await index.write([], all);
  return all.reduce((sum, { liveBlocks }) => sum + liveBlocks, 0);

  /** Of two records of one block the whole one counts; two are there when a compaction or a repair was cut short. */
  async function take(head: BlockHead, place: Place): Promise<void> {
    const location: Location = { ...place, length: head.length, owner: head.owner };
    const other = batch.get(head.id);
    if (other && (await isWhole(paths, head.id, other))) return;
    const otherState = other && states.get(other.pack);
    if (otherState) countBlock(otherState, recordBytes(head), -1);
    const state = states.get(place.pack);
    if (state) countBlock(state, recordBytes(head), 1);
    await batch.put(head.id, location);
  }
}

/** The offsets of dead records by pack, as the tombstones in all packs name them: 8 bytes of memory each. */
async function deadPlaces(paths: StorePaths, packs: readonly PackId[]): Promise<Map<PackId, number[]>> {
  const dead = new Map<PackId, number[]>();
  for (const pack of packs) {
    for await (const found of foundIn(paths, pack)) {
      if (found.kind !== 'record' || found.head.kind !== 'tombstone' || !found.sure) continue;
      const { target } = found.head;
      const offsets = dead.get(target.pack) ?? [];
      offsets.push(target.offset);
      dead.set(target.pack, offsets);
    }
  }
  return dead;
}

async function* foundIn(paths: StorePaths, pack: PackId): AsyncIterable<Found> {
  const file = await open(join(paths.packs, packName(pack)), 'r');
  try {
    yield* scanPack({ pack, file, from: 0, size: (await file.stat()).size });
  } finally {
    await file.close();
  }
}

function endOf(found: Found): number {
  return found.kind === 'gap' ? found.end : found.offset + recordBytes(found.head);
}

async function isWhole(paths: StorePaths, id: BlockId, location: Location): Promise<boolean> {
  const file: FileHandle = await open(join(paths.packs, packName(location.pack)), 'r');
  try {
    return blockIdOf(await readBytes(file, location.offset + RECORD_HEADER_BYTES, location.length)) === id;
  } finally {
    await file.close();
  }
}

/** Writes entries a page at a time, and knows those not yet written. */
function openBatch(index: PackIndex): {
  get(id: BlockId): Location | undefined;
  put(id: BlockId, location: Location): Promise<void>;
  flush(): Promise<void>;
} {
  const waiting = new Map<BlockId, Location>();
  const flush = async (): Promise<void> => {
    await index.write(
      [...waiting].map(([id, location]) => ({ id, location })),
      [],
      { sync: false },
    );
    waiting.clear();
  };
  return {
    flush,
    get: (id) => waiting.get(id) ?? index.get(id),
    put: async (id, location) => {
      waiting.set(id, location);
      if (waiting.size >= PAGE_ENTRIES) await flush();
    },
  };
}
