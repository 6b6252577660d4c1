// What the paths of a command mean: a file by its own name or its stub's, or a folder with all in it; absolute names are mapped into FOLDER.
import { DezentError } from '../../errors.ts';
import { STUB_SUFFIX } from '../../store/stub.ts';
import type { Folder } from '../files/folder.ts';
import { lstatIfPresent } from '../files/identity.ts';
import type { Tree, TreeItem } from '../files/tree.ts';

export interface Selection {
  /** The path in the tree that this absolute name means; throws OUTSIDE_FOLDER. Known ones win over what a stub's suffix suggests. */
  pathOf(absolute: string): string;
  /** The files known at or below these names; throws NOT_FOUND for a name that means nothing. */
  files(absolutes: readonly string[]): Promise<TreeItem[]>;
  /** The same with folders and links, in path order. */
  items(absolutes: readonly string[]): Promise<TreeItem[]>;
}

export function openSelection(folder: Folder, tree: Tree): Selection {
  function pathOf(absolute: string): string {
    const path = folder.relative(absolute);
    if (tree.get(path) !== undefined || !path.endsWith(STUB_SUFFIX)) return path;
    const original = path.slice(0, -STUB_SUFFIX.length);
    return tree.get(original) === undefined ? path : original;
  }

  async function itemsAt(absolute: string): Promise<TreeItem[]> {
    const path = pathOf(absolute);
    const items: TreeItem[] = [];
    for await (const item of tree.items(path)) items.push(item);
    if (items.length > 0 || path === '') return items;
    const there = await lstatIfPresent(absolute);
    if (there?.isDirectory() === true) return [];
    const state = tree.activity(path);
    if (state !== undefined)
      throw new DezentError('NOT_FOUND', `${path} is not stored yet: ${state.reason}`, {
        hint: 'Wait a moment, or run "dezent add" on it.',
      });
    const why = there === undefined ? 'there is no such file' : 'it is not stored yet';
    throw new DezentError('NOT_FOUND', `${absolute}: ${why}`);
  }

  async function items(absolutes: readonly string[]): Promise<TreeItem[]> {
    const byPath = new Map<string, TreeItem>();
    for (const absolute of absolutes) for (const item of await itemsAt(absolute)) byPath.set(item.entry.path, item);
    return [...byPath.values()];
  }

  return {
    pathOf,
    items,
    files: async (absolutes) => (await items(absolutes)).filter(({ entry }) => entry.kind === 'file'),
  };
}
