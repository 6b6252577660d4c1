// Deletions: a file or stub that its owner removes while the node watches is deleted (history keeps it). Anything doubtful is not: a folder
// that is unreadable, unmounted or empty, files that went while nobody watched, or very many at once. Absent is not failed.
import { readdir } from 'node:fs/promises';
import { systemCode } from '../../errors.ts';
import type { BlockId } from '../../store/block.ts';
import type { CatalogEntry } from '../../store/catalog.ts';
import type { CatalogLog } from './catalog-log.ts';
import type { Folder } from './folder.ts';
import { lstatIfPresent } from './identity.ts';
import { OWN_PREFIX } from './ignore-rules.ts';
import type { PathLocks } from './path-locks.ts';
import { openTable, type StateDb } from '../home/state.ts';
import type { Tree, TreeItem } from './tree.ts';
import type { Warnings } from '../home/warnings.ts';

/** More than this many at once wait for the owner's word … */
const MANY_FILES = 500;
/** … and so does more than this share of the tree, when it is more than a handful. */
const MANY_SHARE = 0.2;
const HANDFUL_FILES = 10;

export interface DeletionsNeeds {
  folder: Folder;
  tree: Tree;
  locks: PathLocks;
  log: CatalogLog;
  db: StateDb;
  deviceId: string;
  warnings: Warnings;
  /** The folder is the one we know, and not an empty mount point. */
  isFolderThere(): Promise<boolean>;
  /** True while paths are still settling: a rename's new name may be among them. */
  busy(): boolean;
  onDeleted(paths: readonly string[]): void;
}

export interface Deletions {
  /** The path was seen to be gone while we watched. */
  gone(path: string): void;
  /** Something was seen to be there: perhaps what was held back. */
  present(): void;
  /** Decides about what has been reported since, when nothing is settling any more. Rejects when a folder cannot be read: nothing is deleted. */
  decide(): Promise<void>;
  /** What was deleted at or below this path, as it was last: history keeps it. */
  deletedAt(path: string): Promise<TreeItem[]>;
}

/** A deleted item has no state in the tree any more. */
const NO_ITEM: Omit<TreeItem, 'entry'> = {
  state: 'stubbed',
  reason: '',
  seen: '',
  segment: { id: '' as BlockId, seq: 0 },
  copies: 0,
  since: 0,
};

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
    return [];
  }
}

export function openDeletions(needs: DeletionsNeeds): Deletions {
  const { folder, tree, locks, log, deviceId, warnings } = needs;
  const trash = openTable<{ path: string; at: number }>(needs.db, 'trash');
  const reported = new Set<string>();
  /** False: everything reported has been looked at, and nothing has come since. */
  let isNews = false;
  let deciding: Promise<void> | undefined;

  /** The path's nearest folder that is still there. */
  async function standingFolderOf(path: string): Promise<string> {
    for (let above = path; above.includes('/');) {
      above = above.slice(0, above.lastIndexOf('/'));
      if ((await lstatIfPresent(folder.absolute(above)))?.isDirectory()) return above;
    }
    return '';
  }

  /**
   * The folder can be read, and it still holds something or is the one that we knew: an unmounted disk leaves the empty folder that it was
   * mounted on. FOLDER itself is never believed to have been emptied.
   */
  async function isSound(path: string): Promise<boolean> {
    const names = await namesIn(folder.absolute(path));
    if (names.some((name) => !name.startsWith(OWN_PREFIX))) return true;
    const stats = path === '' ? undefined : await lstatIfPresent(folder.absolute(path));
    return stats !== undefined && tree.get(path)?.seen.startsWith(`${stats.ino}:`) === true;
  }

  async function isGone(path: string): Promise<boolean> {
    return (
      (await lstatIfPresent(folder.absolute(path))) === undefined &&
      (await lstatIfPresent(folder.absolute(folder.stubOf(path)))) === undefined
    );
  }

  /** The items that are really gone, below folders too; each once. */
  async function goneItems(paths: Iterable<string>): Promise<TreeItem[]> {
    const gone = new Map<string, TreeItem>();
    for (const path of paths) {
      for await (const item of tree.items(path)) if (await isGone(item.entry.path)) gone.set(item.entry.path, item);
    }
    return [...gone.values()];
  }

  /** Those that went from a folder that may be a missing disk. */
  async function doubtful(items: readonly TreeItem[]): Promise<Set<TreeItem>> {
    const sound = new Map<string, boolean>();
    const found = new Set<TreeItem>();
    for (const item of items) {
      const above = await standingFolderOf(item.entry.path);
      const isBelieved = sound.get(above) ?? (await isSound(above));
      sound.set(above, isBelieved);
      if (!isBelieved) found.add(item);
    }
    return found;
  }

  function deleted({ entry }: TreeItem): CatalogEntry {
    return {
      ...entry,
      deletedUs: Date.now() * 1000,
      versions: { ...entry.versions, [deviceId]: (entry.versions[deviceId] ?? 0) + 1 },
    };
  }

  async function carryOut(items: readonly TreeItem[]): Promise<void> {
    const entries = items.map(deleted);
    for (let at = 0; at < entries.length; at += MANY_FILES) await log.append(entries.slice(at, at + MANY_FILES));
    for (const { fileId, path } of entries)
      await trash.put(Buffer.from(fileId).toString('hex'), { path, at: Date.now() });
    const paths = entries.map(({ path }) => path);
    await tree.set([], paths);
    needs.onDeleted(paths);
  }

  async function carryOutLocked(items: readonly TreeItem[]): Promise<void> {
    const certain: TreeItem[] = [];
    for (const item of items) {
      const still = await locks.run(item.entry.path, () => isGone(item.entry.path));
      if (still) certain.push(item);
    }
    if (certain.length > 0) await carryOut(certain);
  }

  const countFiles = (items: Iterable<TreeItem>): number =>
    [...items].filter(({ entry }) => entry.kind === 'file').length;

  function isMany(items: readonly TreeItem[]): boolean {
    const files = countFiles(items);
    return files > MANY_FILES || (files > HANDFUL_FILES && files > MANY_SHARE * tree.counts().total);
  }

  async function decideNow(paths: readonly string[]): Promise<void> {
    const items = await goneItems(paths);
    const isHeldBack = isMany(items) || (items.length > 0 && !(await needs.isFolderThere()));
    const held = isHeldBack ? new Set(items) : await doubtful(items);
    for (const { entry } of held) reported.add(entry.path);
    if (held.size === 0) warnings.clear('deletions');
    else {
      warnings.raise(
        'deletions',
        `${countFiles(held)} files are gone from ${folder.root} at once; nothing is forgotten. If a disk is missing, bring it back; "dezent restore PATH" gives each file back.`,
      );
    }
    await carryOutLocked(items.filter((item) => !held.has(item)));
  }

  /** What could not be decided is reported still. */
  async function decideReported(): Promise<void> {
    const paths = [...reported];
    reported.clear();
    isNews = false;
    try {
      await decideNow(paths);
    } catch (error) {
      for (const path of paths) reported.add(path);
      throw error;
    }
  }

  async function deletedAt(path: string): Promise<TreeItem[]> {
    const found: TreeItem[] = [];
    for await (const [fileId, trashed] of trash.iterator()) {
      if (trashed.path !== path && !trashed.path.startsWith(`${path}/`)) continue;
      const last = (await tree.versions(Buffer.from(fileId, 'hex'))).at(-1);
      if (last !== undefined) found.push({ ...NO_ITEM, entry: { ...last.entry, path: trashed.path } });
    }
    return found;
  }

  return {
    deletedAt,
    gone(path) {
      reported.add(path);
      isNews = true;
    },
    present() {
      isNews = reported.size > 0;
    },
    async decide() {
      if (!isNews || needs.busy() || deciding !== undefined) return deciding;
      deciding = decideReported().finally(() => {
        deciding = undefined;
      });
      return deciding;
    },
  };
}
