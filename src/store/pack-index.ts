// Where each block lies: a `level` database that can always be made again from the packs. `level` does not check what it reads and
// may drop damaged records silently, so each value carries a crc over its key and itself, and counts per pack tell what is missing.
//
// Index, version 1; integers are big-endian; each value ends with crc32 over (key as UTF-8 ‖ the bytes before):
//   key BlockId text     pack id (8) ‖ offset (4) ‖ length (4) ‖ owner (32) ‖ crc (4)
//   key "p" + pack id    end: indexed up to here (4) ‖ live blocks (4) ‖ bytes of live records (4) ‖ bytes of tombstones (4) ‖ flags (1) ‖ crc (4)
//                        flags: 1 sealed (nobody appends), 2 doubtful (has a gap that may have been a block: never unlinked)
//   key "m"              version (1) ‖ crc (4); absent in an index that `level` has just made
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { Level } from 'level';
import type { BlockId } from './block.ts';
import { checkLevelTables } from './level-check.ts';
import { levelError } from './level-error.ts';
import { OWNER_BYTES } from './block-store.ts';
import type { PackId, Place } from './pack-file.ts';
import { DezentError, systemCode } from '../errors.ts';

const INDEX_VERSION = 1;
const META_KEY = 'm';
const PACK_PREFIX = 'p';
const FIRST_ID = 'bafkr4i';
const BEHIND_IDS = 'bafkr4j';
const [SEALED, DOUBTFUL] = [1, 2];
const CRC_BYTES = 4;
const PLACE_BYTES = 16;
const PACK_STATE_BYTES = 17;
/** Entries fetched from level at a time; a few hundred KiB. */
export const PAGE_ENTRIES = 2048;
/** Above level's 8 MiB: an index of a million blocks is ~120 MiB, and look-ups are spread evenly. */
const CACHE_BYTES: number = 16 * 1024 * 1024;

/** Where a block lies and whose it is. */
export interface Location extends Place {
  length: number;
  owner: Uint8Array;
}

/** What is known of a pack. Bytes of neither live records nor tombstones are dead. */
export interface PackState {
  pack: PackId;
  /** All before this offset is in the index; the rest was never acknowledged, unless the index has lost something. */
  end: number;
  liveBlocks: number;
  liveBytes: number;
  tombstoneBytes: number;
  sealed: boolean;
  doubtful: boolean;
}

export interface IndexChange {
  id: BlockId;
  /** undefined: the block is gone. */
  location: Location | undefined;
}

/** All reading calls throw BAD_INDEX where a value or the database is damaged. */
export interface PackIndex {
  get(id: BlockId): Location | undefined;
  getMany(ids: readonly BlockId[]): Promise<(Location | undefined)[]>;
  /** Ids in ascending order behind `after`, at most a page. */
  page(after: BlockId | undefined): Promise<BlockId[]>;
  /** All of them, a page at a time. */
  entries(): AsyncIterable<[BlockId, Location][]>;
  packs(): Promise<PackState[]>;
  /** False for an index that has just been made. */
  isKnown(): Promise<boolean>;
  /** All or nothing; durable when it returns, unless `sync` is false. */
  write(
    changes: readonly IndexChange[],
    packs: readonly PackState[],
    options?: { sync?: boolean; drop?: PackId },
  ): Promise<void>;
  usedBytes(): Promise<number>;
  clear(): Promise<void>;
  close(): Promise<void>;
}

/** Opens or makes the index, under a lock of the caller; throws BAD_INDEX, NEWER_VERSION, IO, DISK_FULL. */
export async function openPackIndex(dir: string): Promise<PackIndex> {
  await checkLevelTables(dir); // before a Level is made: that begins to open at once
  const db = new Level<string, Uint8Array>(dir, {
    keyEncoding: 'utf8',
    valueEncoding: 'view',
    compression: false,
    cacheSize: CACHE_BYTES,
  });
  await read(db.open());
  const index = overLevel(db, dir);
  try {
    await index.isKnown();
  } catch (error) {
    await index.close();
    throw error;
  }
  return index;
}

/** Moves the counts of a pack by one block or tombstone. */
export function countBlock(state: PackState, recordBytes: number, by: 1 | -1): void {
  state.liveBlocks += by;
  state.liveBytes += by * recordBytes;
}

type Db = Level<string, Uint8Array>;

const ALL_IDS = { gte: FIRST_ID, lt: BEHIND_IDS };

function overLevel(db: Db, dir: string): PackIndex {
  return {
    entries: () => entries(db),
    packs: async () => {
      const all = await read(db.iterator({ gte: PACK_PREFIX, lt: `${PACK_PREFIX}g` }).all());
      return all.map(([key, value]) => decodePackState(key, value));
    },
    isKnown: async () => {
      const value = await read(db.get(META_KEY));
      const version = value && checked(META_KEY, value, 1).readUInt8(0);
      if (version !== undefined && version > INDEX_VERSION) {
        throw new DezentError('NEWER_VERSION', `the index ${dir} has version ${version}`);
      }
      return version !== undefined;
    },
    write: (changes, states, options) => write(db, changes, states, options),
    get: (id) => {
      const value = readNow(() => db.getSync(id));
      return value && decodeLocation(id, value);
    },
    getMany: async (many) => {
      const values = await read(db.getMany([...many]));
      return values.map((value, at) => value && decodeLocation(many[at] ?? '', value));
    },
    page: async (after) => {
      const range = after === undefined ? ALL_IDS : { gt: after, lt: BEHIND_IDS };
      return (await read(db.keys({ ...range, limit: PAGE_ENTRIES }).all())) as BlockId[];
    },
    usedBytes: () => directoryBytes(dir),
    clear: () => read(db.clear()),
    close: () => read(db.close()),
  };
}

async function* entries(db: Db): AsyncIterable<[BlockId, Location][]> {
  const iterator = db.iterator({ ...ALL_IDS, fillCache: false });
  try {
    for (;;) {
      const page = await read(iterator.nextv(PAGE_ENTRIES));
      if (page.length === 0) return;
      yield page.map(([key, value]) => [key as BlockId, decodeLocation(key, value)]);
    }
  } finally {
    await iterator.close();
  }
}

async function write(
  db: Db,
  changes: readonly IndexChange[],
  states: readonly PackState[],
  options: { sync?: boolean; drop?: PackId } = {},
): Promise<void> {
  const batch = db.batch();
  for (const { id, location } of changes) {
    if (location) batch.put(id, encodeLocation(id, location));
    else batch.del(id);
  }
  for (const state of states) batch.put(PACK_PREFIX + state.pack, encodePackState(state));
  if (options.drop !== undefined) batch.del(PACK_PREFIX + options.drop);
  batch.put(META_KEY, withCrc(META_KEY, Buffer.of(INDEX_VERSION, 0, 0, 0, 0)));
  await read(batch.write({ sync: options.sync ?? true }));
}

/** What level says when it fails, in the words of the house. */
async function read<T>(reading: Promise<T>): Promise<T> {
  try {
    return await reading;
  } catch (error) {
    throw levelError(error);
  }
}

function readNow<T>(reading: () => T): T {
  try {
    return reading();
  } catch (error) {
    throw levelError(error);
  }
}

function encodeLocation(key: string, location: Location): Buffer {
  const value = Buffer.alloc(PLACE_BYTES + OWNER_BYTES + CRC_BYTES);
  value.write(location.pack, 'hex');
  value.writeUInt32BE(location.offset, 8);
  value.writeUInt32BE(location.length, 12);
  value.set(location.owner, PLACE_BYTES);
  return withCrc(key, value);
}

function decodeLocation(key: string, bytes: Uint8Array): Location {
  const value = checked(key, bytes, PLACE_BYTES + OWNER_BYTES);
  const owner = new Uint8Array(bytes.buffer, bytes.byteOffset + PLACE_BYTES, OWNER_BYTES);
  return { pack: value.toString('hex', 0, 8), offset: value.readUInt32BE(8), length: value.readUInt32BE(12), owner };
}

function encodePackState(state: PackState): Buffer {
  const value = Buffer.alloc(PACK_STATE_BYTES + CRC_BYTES);
  const numbers = [state.end, state.liveBlocks, state.liveBytes, state.tombstoneBytes];
  for (const [at, number] of numbers.entries()) value.writeUInt32BE(number, at * 4);
  value.writeUInt8((state.sealed ? SEALED : 0) | (state.doubtful ? DOUBTFUL : 0), 16);
  return withCrc(PACK_PREFIX + state.pack, value);
}

function decodePackState(key: string, bytes: Uint8Array): PackState {
  const value = checked(key, bytes, PACK_STATE_BYTES);
  const flags = value.readUInt8(16);
  return {
    pack: key.slice(PACK_PREFIX.length),
    end: value.readUInt32BE(0),
    liveBlocks: value.readUInt32BE(4),
    liveBytes: value.readUInt32BE(8),
    tombstoneBytes: value.readUInt32BE(12),
    sealed: (flags & SEALED) !== 0,
    doubtful: (flags & DOUBTFUL) !== 0,
  };
}

function withCrc(key: string, value: Buffer): Buffer {
  value.writeUInt32BE(crc32(value.subarray(0, -CRC_BYTES), crc32(key)), value.length - CRC_BYTES);
  return value;
}

function checked(key: string, bytes: Uint8Array, length: number): Buffer {
  const value = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const whole =
    value.length === length + CRC_BYTES && value.readUInt32BE(length) === crc32(value.subarray(0, length), crc32(key));
  if (!whole) throw new DezentError('BAD_INDEX', `the index entry ${JSON.stringify(key.slice(0, 80))} is damaged`);
  return value;
}

async function directoryBytes(dir: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(dir)) {
    bytes += await stat(join(dir, name)).then(
      ({ size }) => size,
      (error: unknown) => {
        if (systemCode(error) === 'ENOENT') return 0;
        throw error;
      },
    );
  }
  return bytes;
}
