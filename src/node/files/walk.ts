// Walks FOLDER (or a part of it) and gives every path that is not ignored, parents first. Links are reported, never followed.
import type { Dirent } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { systemCode } from '../../errors.ts';
import type { Folder } from './folder.ts';
import type { IgnoreRules } from './ignore-rules.ts';

export interface WalkNeeds {
  folder: Folder;
  rules: IgnoreRules;
  /** A folder that cannot be read: what is below it is unknown, not gone. */
  onUnreadable(path: string, error: unknown): void;
}

/** Paths relative to FOLDER; `below` itself is not among them. */
export async function* walk(needs: WalkNeeds, below = ''): AsyncGenerator<string> {
  const open = [below];
  for (let path = open.pop(); path !== undefined; path = open.pop()) {
    for (const entry of await entriesOf(needs, path)) {
      const child = path === '' ? entry.name : `${path}/${entry.name}`;
      if (needs.rules.ignores(child, entry.isDirectory())) continue;
      yield child;
      if (entry.isDirectory()) open.push(child);
    }
  }
}

async function entriesOf({ folder, onUnreadable }: WalkNeeds, path: string): Promise<Dirent[]> {
  try {
    return await readdir(folder.absolute(path), { withFileTypes: true });
  } catch (error) {
    // Gone meanwhile is no news; everything else is said.
    if (systemCode(error) !== 'ENOENT' || path === '') onUnreadable(path, error);
    return [];
  }
}
