// The tree: what this node knows of every path in FOLDER: its catalog entry, its state and what lay there when it was last looked at.
// Durable, one row per path; what is going on right now (working, failed attempts) is an overlay in memory.
import { Buffer } from 'node:buffer';
import { DezentError } from '../../errors.ts';
import { blockIdFromBytes, blockIdToBytes, type BlockId } from '../../store/block.ts';
import { decodeEntry, encodeEntry, type CatalogEntry } from '../../store/catalog.ts';
import type { FileState } from '../control/control-api.ts';
import { openTable, SYNC, type StateDb } from '../home/state.ts';

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
  /** Holds at once for `get`; durable when it returns. Many calls share one write. Listeners hear of each change. */
  set(items: readonly TreeItem[], removed?: readonly string[]): Promise<void>;
  /**
   * Changes what is at the path now, if `change` gives something for it: read and change are one step, so that two parts that change
   * one item cannot undo each other. Gives what is there afterwards.
   */
  update(path: string, change: (item: TreeItem) => TreeItem | undefined): Promise<TreeItem | undefined>;
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
  /** The number of its content among the file's versions. */
  n: number;
}

/** An item with the number of its content; `undefined` in a write means that the path leaves the tree. */
interface Kept {
  item: TreeItem;
  version: number;
}

/** Changes that are written together. Until they are durable, `get` reads them here. */
interface Write {
  rows: Map<string, Kept | undefined>;
  /** What was there before, to take back if the write fails. */
  before: Map<string, Kept | undefined>;
  fileIds: Map<string, string>;
  inodes: Map<string, string>;
  history: Map<string, { e: Uint8Array; t: number }>;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
/** Sorts after every path below `path/`: 0x30 follows '/'. */
const below = (path: string): { gte: string; lt: string } => ({ gte: `${path}/`, lt: `${path}0` });

function toRow({ item, version }: Kept): Row {
  const { entry, state, reason, seen, segment, copies, since } = item;
  const g: Row['g'] = [blockIdToBytes(segment.id), segment.seq];
  return { e: encodeEntry(entry), s: state, r: reason, i: seen, g, c: copies, t: since, n: version };
}

function fromRow({ e, s, r, i, g, c, t, n }: Row): Kept {
  const segment = { id: blockIdFromBytes(g[0]), seq: g[1] };
  return { item: { entry: decodeEntry(e), state: s, reason: r, seen: i, segment, copies: c, since: t }, version: n };
}

const sameContent = (a: CatalogEntry, b: CatalogEntry): boolean =>
  a.root?.block === b.root?.block && a.root?.offset === b.root?.offset && a.root?.length === b.root?.length;

function emptyCounts(): Record<FileState, number> {
  return { working: 0, waiting: 0, protected: 0, stubbed: 0, restored: 0, failed: 0 };
}

const newWrite = (): Write => ({
  rows: new Map(),
  before: new Map(),
  fileIds: new Map(),
  inodes: new Map(),
  history: new Map(),
});

/** The tables on disk with the writes under way on top: what is set holds at once, and many sets share one durable write. */
function openRows(db: StateDb, onBack: (now: Kept | undefined, before: Kept | undefined) => void) {
  const rows = openTable<Row>(db, 'tree');
  const fileIds = openTable<string>(db, 'tree-file-ids');
  const inodes = openTable<string>(db, 'tree-inodes');
  const history = openTable<{ e: Uint8Array; t: number }>(db, 'versions');
  let gathering = newWrite();
  let writing: Write | undefined;
  let next: Promise<void> | undefined;
  let current: Promise<void> = Promise.resolve();

  function get(path: string): Kept | undefined {
    for (const write of [gathering, writing]) if (write?.rows.has(path)) return write.rows.get(path);
    const row = rows.getSync(path);
    return row && fromRow(row);
  }

  async function commit(): Promise<void> {
    const write = gathering;
    writing = write;
    gathering = newWrite();
    next = undefined;
    const batch = db.batch();
    for (const [path, kept] of write.rows) {
      if (kept === undefined) batch.del(path, { sublevel: rows });
      else batch.put(path, toRow(kept), { sublevel: rows });
    }
    for (const [id, path] of write.fileIds) batch.put(id, path, { sublevel: fileIds });
    for (const [inode, path] of write.inodes) batch.put(inode, path, { sublevel: inodes });
    for (const [key, value] of write.history) batch.put(key, value, { sublevel: history });
    try {
      await batch.write(SYNC);
    } catch (error) {
      for (const [path, before] of write.before) if (!gathering.rows.has(path)) onBack(write.rows.get(path), before);
      throw error;
    } finally {
      writing = undefined;
    }
  }

  /** Durable when it resolves; starts when the write before it has ended. */
  function flush(): Promise<void> {
    next ??= current.then(commit);
    current = next.catch(() => undefined); // each caller of flush gets the error; the next write starts all the same
    return next;
  }

  return {
    get,
    flush,
    put(path: string, kept: Kept | undefined): void {
      if (!gathering.before.has(path)) gathering.before.set(path, get(path));
      gathering.rows.set(path, kept);
    },
    note(table: 'fileIds' | 'inodes', key: string, path: string): void {
      gathering[table].set(key, path);
    },
    noteVersion(fileId: string, { item, version }: Kept): void {
      gathering.history.set(`${fileId}/${String(version).padStart(10, '0')}`, {
        e: encodeEntry(item.entry),
        t: Date.now(),
      });
    },
    pathOf: (fileId: string) =>
      gathering.fileIds.get(fileId) ?? writing?.fileIds.get(fileId) ?? fileIds.getSync(fileId),
    pathOfInode: (inode: string) => gathering.inodes.get(inode) ?? writing?.inodes.get(inode) ?? inodes.getSync(inode),
    values: (range: { gte?: string; lt?: string } = {}) => rows.values(range),
    versions: (fileId: string) => history.iterator(below(fileId)),
    /** The highest number in a file's history on disk; 0 when it has none. */
    async lastVersion(fileId: string): Promise<number> {
      const key = await history.keys({ ...below(fileId), reverse: true, limit: 1 }).next();
      return key === undefined ? 0 : Number(key.slice(key.indexOf('/') + 1));
    },
  };
}

export async function openTree(db: StateDb): Promise<Tree> {
  const durable = emptyCounts();
  const overlay = new Map<string, Activity>();
  const listeners = new Set<(item: TreeItem) => void>();
  let stubbedBytes = 0;

  function count(kept: Kept | undefined, by: 1 | -1): void {
    if (kept?.item.entry.kind !== 'file') return;
    durable[kept.item.state] += by;
    if (kept.item.state === 'stubbed') stubbedBytes += by * kept.item.entry.sizeBytes;
  }

  const rows = openRows(db, (now, before) => {
    count(now, -1);
    count(before, 1);
  });
  for await (const row of rows.values()) count(fromRow(row), 1);
  const get = (path: string): TreeItem | undefined => rows.get(path)?.item;

  /** The file as it is known, wherever it lies. */
  function knownFile({ fileId }: CatalogEntry): Kept | undefined {
    const kept = rows.get(rows.pathOf(hex(fileId)) ?? '');
    return kept && hex(kept.item.entry.fileId) === hex(fileId) ? kept : undefined;
  }

  function put(path: string, kept: Kept | undefined): void {
    count(rows.get(path), -1);
    rows.put(path, kept);
    count(kept, 1);
  }

  /** `pastVersions`: of a file that comes back to the tree. */
  function putItem(item: TreeItem, pastVersions: number): void {
    const { entry, seen } = item;
    const known = knownFile(entry);
    const isNewContent = known === undefined || !sameContent(known.item.entry, entry);
    const kept = { item, version: (known?.version ?? pastVersions) + (isNewContent ? 1 : 0) };
    put(entry.path, kept);
    rows.note('fileIds', hex(entry.fileId), entry.path);
    if (seen !== '') rows.note('inodes', inodeOf(seen), entry.path);
    if (entry.kind === 'file' && isNewContent) rows.noteVersion(hex(entry.fileId), kept);
  }

  /** Deleted files that come back: their history goes on where it ended. */
  function returning(items: readonly TreeItem[]): TreeItem[] {
    return items.filter(({ entry }) => rows.pathOf(hex(entry.fileId)) !== undefined && knownFile(entry) === undefined);
  }

  async function pastVersionsOf(items: readonly TreeItem[]): Promise<Map<string, number>> {
    await rows.flush();
    const past = new Map<string, number>();
    for (const { entry } of items) past.set(hex(entry.fileId), await rows.lastVersion(hex(entry.fileId)));
    return past;
  }

  async function set(items: readonly TreeItem[], removed: readonly string[] = []): Promise<void> {
    const back = returning(items);
    const past = back.length === 0 ? undefined : await pastVersionsOf(back);
    for (const item of items) putItem(item, past?.get(hex(item.entry.fileId)) ?? 0);
    for (const path of removed) put(path, undefined);
    await rows.flush();
    for (const item of items) for (const listener of listeners) listener(item);
  }

  return {
    get,
    set,
    async update(path, change) {
      const before = get(path);
      const after = before && change(before);
      if (after === undefined) return before;
      await set([after]);
      return after;
    },
    async *items(path = '') {
      const own = path === '' ? undefined : get(path);
      if (own !== undefined) yield own;
      for await (const row of rows.values(path === '' ? {} : below(path))) yield fromRow(row).item;
    },
    pathOf: (fileId) => rows.pathOf(hex(fileId)),
    pathOfInode: rows.pathOfInode,
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
    async versions(fileId) {
      const past: PastVersion[] = [];
      for await (const [key, { e, t }] of rows.versions(hex(fileId))) {
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
