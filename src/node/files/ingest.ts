// Ingest: what lies at a path → kept blocks, manifest, catalog entry; durable on this machine when it returns. It never changes
// anything in FOLDER. Same content, a touch or a rename store and send no content: only a catalog entry.
import { randomBytes } from 'node:crypto';
import { readlink } from 'node:fs/promises';
import type { BigIntStats } from 'node:fs';
import pLimit from 'p-limit';
import { DezentError, isDezentError } from '../../errors.ts';
import { FILE_ID_BYTES, PATH_MAX_BYTES, type CatalogEntry, type EntryKind } from '../../store/catalog.ts';
import type { BlockId } from '../../store/block.ts';
import { INLINE_MAX_BYTES, type Root } from '../../store/manifest.ts';
import type { FileStats, SealedFile } from '../../store/sealing.ts';
import type { CatalogBatch, Change } from './catalog-batch.ts';
import { rootKey, type ContentTable } from './content-index.ts';
import type { FileState } from '../control/control-api.ts';
import type { Folder } from './folder.ts';
import { birthtimeUsOf, identityOf, lstatIfPresent, modeOf, mtimeUsOf } from './identity.ts';
import type { ReadContent } from './read-content.ts';
import type { Tree, TreeItem } from './tree.ts';

/** Files read at once; a small one costs its content of at most 32 KiB, a large one some chunks, whatever its size. */
const SMALL_IN_FLIGHT = 1024;
const LARGE_IN_FLIGHT = 8;
/** A file that changes while it is read is read again so many times before it is left for later. */
const READ_TRIES = 3;

export interface Ingested {
  item: TreeItem;
  newBytes: number;
  /** False when everything was known already. */
  changed: boolean;
}

export interface IngestOptions {
  signal?: AbortSignal;
  onBytes?: (count: number) => void;
}

export interface Ingest {
  /**
   * Takes in what lies at this path; the caller holds its lock. Undefined when nothing is there or it is of a kind that is not kept
   * (socket, device). Throws CHANGED when it is still being written.
   */
  ingest(path: string, options?: IngestOptions): Promise<Ingested | undefined>;
}

export interface IngestNeeds {
  folder: Folder;
  tree: Tree;
  contents: ContentTable;
  batch: CatalogBatch;
  readContent: ReadContent;
  deviceId: string;
  minCopies(): number;
  /** True when each of these blocks is here or with a holder: only then is known content reused. */
  obtainable(ids: readonly BlockId[]): Promise<boolean>;
  xattrsOf(absolute: string): Promise<Record<string, Uint8Array> | undefined>;
}

function kindOf(stats: BigIntStats): EntryKind | undefined {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'folder';
  return stats.isSymbolicLink() ? 'link' : undefined;
}

/** Names that UTF-8 cannot carry come as U+FFFD from the file system and could not be given back. */
function checkPath(path: string): void {
  if (path.includes('\uFFFD'))
    throw new DezentError('USAGE', `the name ${JSON.stringify(path)} is not valid UTF-8`, {
      hint: 'Rename the file; it is left as it is until then.',
    });
  if (Buffer.byteLength(path) > PATH_MAX_BYTES)
    throw new DezentError('USAGE', `a path of more than ${PATH_MAX_BYTES} bytes cannot be kept`);
}

/** Read, but not yet in the catalog: an item that needs no entry, or the change to make. */
type Prepared = { item: TreeItem; seen: string } | { change: Change; newBytes: number };

type Meta = Omit<CatalogEntry, 'root' | 'fileId' | 'versions' | 'path'>;

function sameMeta(entry: CatalogEntry, meta: Meta): boolean {
  const attributes = (of: Meta): string =>
    JSON.stringify(Object.entries(of.xattrs ?? {}).map(([name, value]) => [name, Buffer.from(value).toString('hex')]));
  return (
    entry.kind === meta.kind &&
    entry.mode === meta.mode &&
    entry.link === meta.link &&
    attributes(entry) === attributes(meta) &&
    (entry.kind === 'folder' || entry.mtimeUs === meta.mtimeUs)
  );
}

export function openIngest(needs: IngestNeeds): Ingest {
  const { folder, tree, contents, batch, deviceId, minCopies, obtainable, xattrsOf } = needs;
  const small = pLimit(SMALL_IN_FLIGHT);
  const large = pLimit(LARGE_IN_FLIGHT);
  let reading = 0;

  async function readStable(path: string, sizeBytes: number, options: IngestOptions): Promise<SealedFile> {
    const earlier = tree.get(path)?.entry.root;
    const average = earlier && (await contents.contentAt(earlier))?.average;
    const request = {
      path: folder.absolute(path),
      sizeBytes,
      ...(average !== undefined && { earlierAverage: average }),
    };
    for (let tries = 1; ; tries += 1) {
      try {
        return await needs.readContent(request, options);
      } catch (error) {
        if (!isDezentError(error, 'CHANGED') || tries === READ_TRIES) throw error;
      }
    }
  }

  /** The item whose file was moved here: same inode, and nothing lies at its old path any more. */
  async function movedFrom(path: string, stats: FileStats): Promise<TreeItem | undefined> {
    const before = tree.pathOfInode(String(stats.ino));
    if (before === undefined || before === path) return undefined;
    const item = tree.get(before);
    if (item === undefined || !item.seen.startsWith(`${stats.ino}:`)) return undefined;
    return (await lstatIfPresent(folder.absolute(before))) === undefined ? item : undefined;
  }

  function nextEntry(path: string, before: TreeItem | undefined, meta: Meta): Omit<CatalogEntry, 'root'> {
    const versions = { ...before?.entry.versions, [deviceId]: (before?.entry.versions[deviceId] ?? 0) + 1 };
    return { fileId: before?.entry.fileId ?? randomBytes(FILE_ID_BYTES), path, ...meta, versions };
  }

  const unprotected = (): FileState => (minCopies() === 0 ? 'protected' : 'waiting');

  /** Nothing but the file's identity changed: a file beside its stub is a restored one. */
  const sameState = ({ state }: TreeItem): FileState => (state === 'stubbed' ? 'restored' : state);

  /** A new entry has to be protected, also one of known content; a restored file stays one. */
  function nextState(before: TreeItem | undefined, sameContent: boolean): FileState {
    const state = sameContent && before !== undefined ? sameState(before) : unprotected();
    return state === 'protected' ? unprotected() : state;
  }

  /** Reads under the limit; the last reader closes the batch, since nobody else would join it. */
  async function inTurn<T>(sizeBytes: number, work: () => Promise<T>): Promise<T> {
    reading += 1;
    try {
      return await (sizeBytes > INLINE_MAX_BYTES ? large : small)(work);
    } finally {
      reading -= 1;
      if (reading === 0) setImmediate(() => batch.flush());
    }
  }

  async function metaOf(path: string, kind: EntryKind, stats: FileStats): Promise<Meta> {
    const absolute = folder.absolute(path);
    const xattrs = kind === 'link' ? undefined : await xattrsOf(absolute);
    return {
      kind,
      mode: modeOf(stats),
      mtimeUs: mtimeUsOf(stats),
      birthtimeUs: birthtimeUsOf(stats),
      sizeBytes: kind === 'file' ? Number(stats.size) : 0,
      ...(kind === 'link' && { link: await readlink(absolute) }),
      ...(xattrs && { xattrs }),
    };
  }

  async function prepareFile(path: string, sizeBytes: number, options: IngestOptions): Promise<Prepared> {
    const { stats, ...content } = await readStable(path, sizeBytes, options);
    const known = await contents.content(content.contentHash);
    const reuse = known !== undefined && (await obtainable(known.blocks)) ? known.root : undefined;
    const before = tree.get(path) ?? (await movedFrom(path, stats));
    const meta = await metaOf(path, 'file', stats);
    const sameContent =
      reuse !== undefined && before?.entry.root !== undefined && rootKey(before.entry.root) === rootKey(reuse);
    const state = nextState(before, sameContent);
    const seen = identityOf(stats);
    if (sameContent && before?.entry.path === path && sameMeta(before.entry, meta)) {
      return { item: before, seen };
    }
    const partial = nextEntry(path, before, meta);
    const change = changeOf(before, { state, seen }, (root) => ({ ...partial, root: reuse ?? (root as Root) }));
    if (reuse !== undefined) return { change, newBytes: content.newBytes };
    return { change: { ...change, content }, newBytes: content.newBytes + content.manifest.length };
  }

  async function prepareOther(path: string, kind: EntryKind, stats: BigIntStats): Promise<Prepared> {
    const before = tree.get(path) ?? (await movedFrom(path, stats));
    const meta = await metaOf(path, kind, stats);
    if (before?.entry.path === path && sameMeta(before.entry, meta)) {
      // Another folder under the same name, such as a disk that is mounted now: deletions.ts goes by it.
      const isSame = before.seen.startsWith(`${stats.ino}:`);
      return { item: before, seen: isSame ? before.seen : identityOf(stats) };
    }
    const entry = nextEntry(path, before, meta);
    return {
      change: changeOf(before, { state: unprotected(), seen: identityOf(stats) }, () => entry),
      newBytes: 0,
    };
  }

  async function finish(prepared: Prepared): Promise<Ingested> {
    if ('change' in prepared)
      return { item: await batch.add(prepared.change), newBytes: prepared.newBytes, changed: true };
    const { item, seen } = prepared;
    const kept = await tree.update(item.entry.path, (now) => {
      const state = sameState(now);
      if (now.seen === seen && now.state === state) return undefined;
      return { ...now, seen, state, since: state === now.state ? now.since : Date.now() };
    });
    return { item: kept ?? item, newBytes: 0, changed: false };
  }

  return {
    async ingest(path, options = {}) {
      checkPath(path);
      const stats = await lstatIfPresent(folder.absolute(path));
      const kind = stats && kindOf(stats);
      if (stats === undefined || kind === undefined) return undefined;
      if (kind !== 'file') return finish(await inTurn(0, () => prepareOther(path, kind, stats)));
      const before = tree.get(path);
      const unchanged =
        before?.entry.kind === 'file' && before.seen === identityOf(stats) && before.state !== 'stubbed';
      if (unchanged) return { item: before, newBytes: 0, changed: false };
      return finish(await inTurn(Number(stats.size), () => prepareFile(path, Number(stats.size), options)));
    },
  };
}

/** The change that brings this entry into the tree, in place of what was there (or at the path it came from). */
function changeOf(
  before: TreeItem | undefined,
  to: { state: FileState; seen: string },
  entry: (root: Root | undefined) => CatalogEntry,
): Change {
  return {
    entry,
    item: (root, segment) => ({ ...to, entry: entry(root), reason: '', segment, copies: 0, since: Date.now() }),
    ...(before && before.entry.path !== entry(undefined).path && { leaves: before.entry.path }),
  };
}
