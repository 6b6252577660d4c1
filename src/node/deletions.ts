// Deletions: a file or stub that its owner removes while the node watches is deleted (history keeps it). Anything doubtful is not: a folder
// that is unreadable, unmounted or empty, files that went while nobody watched, or very many at once. Absent is not failed.
import { readdir } from 'node:fs/promises';
import type { CatalogEntry } from '../store/catalog.ts';
import type { CatalogLog } from './catalog-log.ts';
import type { Folder } from './folder.ts';
import { lstatIfPresent } from './identity.ts';
import { OWN_PREFIX } from './ignore-rules.ts';
import type { PathLocks } from './path-locks.ts';
import { openTable, type StateDb } from './state.ts';
import type { Tree, TreeItem } from './tree.ts';
import type { Warnings } from './warnings.ts';

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
  /** True while paths are still settling: a rename's new name may be among them. */
  busy(): boolean;
  onDeleted(paths: readonly string[]): void;
}

export interface Deletions {
  /** The path was seen to be gone while we watched. */
  gone(path: string): void;
  /** Decides about what has been reported, when nothing is settling any more. */
  decide(): Promise<void>;
}

export function openDeletions(needs: DeletionsNeeds): Deletions {
  const { folder, tree, locks, log, deviceId, warnings } = needs;
  const trash = openTable<{ path: string; at: number }>(needs.db, 'trash');
  const reported = new Set<string>();
  let deciding: Promise<void> | undefined;

  /** FOLDER can be read and still holds something: else a disk is missing, not the files. */
  async function isFolderSound(): Promise<boolean> {
    const names = await readdir(folder.root);
    return names.some((name) => !name.startsWith(OWN_PREFIX)) || tree.counts().total <= HANDFUL_FILES;
  }

  async function isGone(path: string): Promise<boolean> {
    return (
      (await lstatIfPresent(folder.absolute(path))) === undefined &&
      (await lstatIfPresent(folder.absolute(folder.stubOf(path)))) === undefined
    );
  }

  /** The items that are really gone, below folders too. */
  async function goneItems(): Promise<TreeItem[]> {
    const gone = new Map<string, TreeItem>();
    for (const path of reported) {
      for await (const item of tree.items(path)) if (await isGone(item.entry.path)) gone.set(item.entry.path, item);
    }
    return [...gone.values()];
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
    await log.append(entries);
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

  async function decideNow(): Promise<void> {
    const items = await goneItems();
    if (items.length === 0) {
      reported.clear();
      return;
    }
    const files = items.filter(({ entry }) => entry.kind === 'file').length;
    const many = files > MANY_FILES || (files > HANDFUL_FILES && files > MANY_SHARE * tree.counts().total);
    if (many || !(await isFolderSound())) {
      warnings.raise(
        'deletions',
        `${files} files are gone from ${folder.root} at once; nothing is forgotten. If a disk is missing, bring it back; "dezent restore PATH" gives each file back.`,
      );
      return;
    }
    reported.clear();
    warnings.clear('deletions');
    await carryOutLocked(items);
  }

  return {
    gone: (path) => void reported.add(path),
    async decide() {
      if (reported.size === 0 || needs.busy() || deciding !== undefined) return deciding;
      deciding = decideNow().finally(() => {
        deciding = undefined;
      });
      return deciding;
    },
  };
}
