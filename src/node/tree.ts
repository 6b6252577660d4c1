// The tree: what this node knows of every path in FOLDER: its catalog entry, its state and what lay there when it was last looked at.
// Durable, one row per path; what is going on right now (working, failed attempts) is an overlay in memory.
import { Buffer } from 'node:buffer';
import { DezentError } from '../errors.ts';
import { blockIdFromBytes, blockIdToBytes, type BlockId } from '../store/block.ts';
import { decodeEntry, encodeEntry, type CatalogEntry } from '../store/catalog.ts';
import type { FileState } from './control-api.ts';
import { openTable, SYNC, type StateDb } from './state.ts';

export interface TreeItem {
  entry: CatalogEntry;
  state: FileState;
  /** Why it is in this state, in plain words; empty when there is nothing to say. */
  reason: string;
  /** What lay at the path (or at the stub's path) when we last read or wrote it: see identity.ts. Empty: nothing does. */
  seen: string;
  /** The catalog segment that holds the entry, and its seq in this device's log. */
  segment: { id: BlockId; seq: number };
  /** Copies when they were last counted. */
  copies: number;
  /** When it came into its state, ms since 1970. */
  since: number;
}

/** An attempt that is under way or did not succeed; gone when the node ends. */
export interface Activity {
  state: 'working' | 'failed';
  reason: string;
  nextAt: number | undefined;
}

export interface PastVersion {
  version: number;
  at: number;
  entry: CatalogEntry;
}

export interface Tree {
  get(path: string): TreeItem | undefined;
  /** Durable when it returns. Listeners hear of each change. */
  set(items: readonly TreeItem[], removed?: readonly string[]): Promise<void>;
  /** Everything at or below this path ('' is all), in path order; a snapshot. */
  items(below?: string): AsyncIterable<TreeItem>;
  pathOf(fileId: Uint8Array): string | undefined;
  pathOfInode(inode: string): string | undefined;
  counts(): Record<FileState, number> & { total: number };
  /** Sizes of all originals that a stub stands for. */
  stubbedBytes(): number;
  /** `undefined` ends the activity. */
  mark(path: string, activity: Activity | undefined): void;
  activity(path: string): Activity | undefined;
  activities(): ReadonlyMap<string, Activity>;
  /** Contents that a file had, oldest first, the present one included. */
  versions(fileId: Uint8Array): Promise<PastVersion[]>;
  onChange(listener: (item: TreeItem) => void): void;
}

interface Row {
  e: Uint8Array;
  s: FileState;
  r: string;
  i: string;
  g: [Uint8Array, number];
  c: number;
  t: number;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
/** Sorts after every path below `path/`: 0x30 follows '/'. */
const below = (path: string): { gte: string; lt: string } => ({ gte: `${path}/`, lt: `${path}0` });

function toRow({ entry, state, reason, seen, segment, copies, since }: TreeItem): Row {
  return {
    e: encodeEntry(entry),
    s: state,
    r: reason,
    i: seen,
    g: [blockIdToBytes(segment.id), segment.seq],
    c: copies,
    t: since,
  };
}

function fromRow({ e, s, r, i, g, c, t }: Row): TreeItem {
  return {
    entry: decodeEntry(e),
    state: s,
    reason: r,
    seen: i,
    segment: { id: blockIdFromBytes(g[0]), seq: g[1] },
    copies: c,
    since: t,
  };
}

const sameContent = (a: CatalogEntry, b: CatalogEntry): boolean =>
  a.root?.block === b.root?.block && a.root?.offset === b.root?.offset && a.root?.length === b.root?.length;

function emptyCounts(): Record<FileState, number> {
  return { working: 0, waiting: 0, protected: 0, stubbed: 0, restored: 0, failed: 0 };
}

export async function openTree(db: StateDb): Promise<Tree> {
  const rows = openTable<Row>(db, 'tree');
  const fileIds = openTable<string>(db, 'tree-file-ids');
  const inodes = openTable<string>(db, 'tree-inodes');
  const history = openTable<{ e: Uint8Array; t: number }>(db, 'versions');
  const durable = emptyCounts();
  let stubbedBytes = 0;
  const overlay = new Map<string, Activity>();
  const listeners = new Set<(item: TreeItem) => void>();
  for await (const row of rows.values()) count(fromRow(row), 1);

  const get = (path: string): TreeItem | undefined => {
    const row = rows.getSync(path);
    return row && fromRow(row);
  };

  function count(item: TreeItem | undefined, by: 1 | -1): void {
    if (item?.entry.kind !== 'file') return;
    durable[item.state] += by;
    if (item.state === 'stubbed') stubbedBytes += by * item.entry.sizeBytes;
  }

  /** The next number in a file's history; versions are counted from 1. */
  async function nextVersion(fileId: Uint8Array): Promise<number> {
    const last = await history.keys({ ...below(hex(fileId)), reverse: true, limit: 1 }).next();
    return last === undefined ? 1 : Number(last.slice(last.indexOf('/') + 1)) + 1;
  }

  async function record(items: readonly TreeItem[]): Promise<void> {
    for (const { entry } of items) {
      if (entry.kind !== 'file') continue;
      const earlier = get(fileIds.getSync(hex(entry.fileId)) ?? '');
      if (earlier !== undefined && hex(earlier.entry.fileId) === hex(entry.fileId) && sameContent(earlier.entry, entry))
        continue;
      const version = String(await nextVersion(entry.fileId)).padStart(10, '0');
      await history.put(`${hex(entry.fileId)}/${version}`, { e: encodeEntry(entry), t: Date.now() });
    }
  }

  async function set(items: readonly TreeItem[], removed: readonly string[] = []): Promise<void> {
    await record(items);
    const gone = removed.map((path) => get(path)).filter((item) => item !== undefined);
    const before = items.map(({ entry }) => get(entry.path));
    const batch = db.batch();
    for (const { entry } of gone) batch.del(entry.path, { sublevel: rows });
    for (const item of items) {
      batch.put(hex(item.entry.fileId), item.entry.path, { sublevel: fileIds });
      if (item.seen !== '') batch.put(inodeOf(item.seen), item.entry.path, { sublevel: inodes });
      batch.put(item.entry.path, toRow(item), { sublevel: rows });
    }
    await batch.write(SYNC);
    for (const item of gone) count(item, -1);
    for (const item of before) count(item, -1);
    for (const item of items) {
      count(item, 1);
      for (const listener of listeners) listener(item);
    }
  }

  return {
    get,
    set,
    async *items(path = '') {
      if (path === '') {
        for await (const row of rows.values()) yield fromRow(row);
        return;
      }
      const own = get(path);
      if (own !== undefined) yield own;
      for await (const row of rows.values(below(path))) yield fromRow(row);
    },
    pathOf: (fileId) => fileIds.getSync(hex(fileId)),
    pathOfInode: (inode) => inodes.getSync(inode),
    counts() {
      const counts = { ...durable };
      for (const [path, { state }] of overlay) {
        const item = get(path);
        if (item?.entry.kind === 'file') counts[item.state] -= 1;
        counts[state] += 1;
      }
      return { ...counts, total: Object.values(counts).reduce((sum, value) => sum + value, 0) };
    },
    stubbedBytes: () => stubbedBytes,
    mark(path, activity) {
      if (activity === undefined) overlay.delete(path);
      else overlay.set(path, activity);
    },
    activity: (path) => overlay.get(path),
    activities: () => overlay,
    async versions(fileId) {
      const past: PastVersion[] = [];
      for await (const [key, { e, t }] of history.iterator(below(hex(fileId)))) {
        past.push({ version: Number(key.slice(key.indexOf('/') + 1)), at: t, entry: decodeEntry(e) });
      }
      return past;
    },
    onChange(listener) {
      listeners.add(listener);
    },
  };
}

/** The inode part of an identity: see identity.ts. */
function inodeOf(seen: string): string {
  const end = seen.indexOf(':');
  if (end < 1) throw new DezentError('INTERNAL', `not an identity: ${seen}`);
  return seen.slice(0, end);
}

/** The state to show: an attempt under way covers the durable one. */
export function shownState(item: TreeItem | undefined, activity: Activity | undefined): FileState {
  return activity?.state ?? item?.state ?? 'working';
}
