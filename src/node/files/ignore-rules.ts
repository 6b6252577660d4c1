// Which paths in FOLDER are none of our business: what the node makes itself, what editors and browsers make for a moment, and what
// the user's .dezentignore (gitignore syntax) names. The .dezentignore itself is kept for the user and never offloaded.
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import ignore from 'ignore';
import { systemCode } from '../../errors.ts';

export const IGNORE_FILE = '.dezentignore';
/** Everything the node makes in FOLDER besides stubs and restored files begins so. */
export const OWN_PREFIX = '.dezent';

/** Files that live for moments (or belong to the system); a `!pattern` in .dezentignore takes one back. */
const PASSING_FILES = String.raw`
*~ .*.sw[a-z] .#* \#*# 4913 .~lock.*# ~$* .goutputstream-* .kate-swp *.kate-swp
*.tmp *.temp *.part *.partial *.crdownload *.download *.opdownload
.DS_Store ._* Thumbs.db desktop.ini .nfs* .fuse_hidden* .Trash-* lost+found .syncthing.*
`
  .trim()
  .split(/\s+/);

export interface IgnoreRules {
  /** `path` relative to FOLDER, `/` between parts, '' is FOLDER itself. */
  ignores(path: string, isFolder: boolean): boolean;
  /** Reads .dezentignore again. */
  reload(): Promise<void>;
}

const isOwn = (path: string): boolean =>
  path.split('/').some((part) => part.startsWith(OWN_PREFIX)) && basename(path) !== IGNORE_FILE;

export async function openIgnoreRules(folder: string): Promise<IgnoreRules> {
  let rules = ignore();
  async function reload(): Promise<void> {
    const fresh = ignore({ ignorecase: false }).add(PASSING_FILES);
    try {
      fresh.add(await readFile(join(folder, IGNORE_FILE), 'utf8'));
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw error;
    }
    rules = fresh;
  }
  await reload();
  return {
    reload,
    ignores(path, isFolder) {
      if (path === '') return false;
      return isOwn(path) || rules.ignores(isFolder ? `${path}/` : path);
    },
  };
}
