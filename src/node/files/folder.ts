// FOLDER and the paths in it. Inside the node a path is relative to FOLDER with `/` between its parts; it names the original, also
// where a stub stands for it.
import { constants, realpathSync } from 'node:fs';
import { access, lstat, mkdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, extname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { DezentError, systemCode } from '../../errors.ts';
import { STUB_SUFFIX } from '../../store/stub.ts';

/** Originals wait here between the swap for their stub and the moment their space is given back. */
export const QUARANTINE = '.dezent/quarantine';
/** Files that the node writes beside their place, before they get their name. */
export const OWN_TMP_PREFIX = '.dezent-new-';
/** NAME_MAX of every file system we know. */
export const NAME_MAX_BYTES = 255;

export interface Folder {
  readonly root: string;
  absolute(path: string): string;
  /** The path of an absolute name in FOLDER ('' for FOLDER itself); throws OUTSIDE_FOLDER, also where a symlinked directory leads out. */
  relative(absolute: string): string;
  stubOf(path: string): string;
  /** The directory of quarantine, made if it is missing. */
  quarantine(): Promise<string>;
}

/** A longer "extension" is a part of the name. */
const MAX_ENDING_BYTES = 32;

const isWithin = (outer: string, inner: string): boolean => {
  const way = relative(outer, inner);
  return way === '' || (!way.startsWith(`..${sep}`) && way !== '..' && !isAbsolute(way));
};

/** Checks what `init` and `run` need of a folder: a directory, writable, neither holding the home nor inside it. Gives its real path. */
export async function checkFolder(folder: string, home: string): Promise<string> {
  let real: string;
  try {
    real = await realpath(folder);
    if (!(await stat(real)).isDirectory()) throw new DezentError('FOLDER', `${folder} is not a folder`);
    await access(real, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    if (systemCode(error) === 'ENOENT')
      throw new DezentError('FOLDER', `the folder ${folder} does not exist`, { cause: error });
    if (systemCode(error) === 'EACCES' || systemCode(error) === 'EROFS') {
      throw new DezentError('FOLDER', `the folder ${folder} cannot be written to`, { cause: error });
    }
    throw error;
  }
  const realHome = await realHomeOf(home);
  if (isWithin(real, realHome))
    throw new DezentError('FOLDER', `the home ${home} lies in the folder ${folder}`, {
      hint: 'Choose a --home outside of the folder.',
    });
  if (isWithin(realHome, real))
    throw new DezentError('FOLDER', `the folder ${folder} lies in the home ${home}`, {
      hint: 'Choose a folder outside of the home.',
    });
  return real;
}

/** The real path that a home has or, where it does not exist yet, will have. */
async function realHomeOf(home: string): Promise<string> {
  const full = resolve(home);
  try {
    return await realpath(full);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT' || dirname(full) === full) throw error;
    return join(await realHomeOf(dirname(full)), relative(dirname(full), full));
  }
}

/** The absolute name with its directory resolved as far as it exists; the name itself may be a symlink and is not followed. */
function resolveParent(absolute: string): string {
  const parent = dirname(absolute);
  if (parent === absolute) return absolute;
  try {
    return join(realpathSync(parent), basename(absolute));
  } catch (error) {
    if (systemCode(error) !== 'ENOENT' && systemCode(error) !== 'ENOTDIR') throw error;
    return join(resolveParent(parent), basename(absolute));
  }
}

/** A name for the same file beside one that is taken: `x (words).txt`, its own name shortened where the whole would be too long. */
export function nameBeside(path: string, words: string): string {
  const ending = extname(path);
  const more = ` (${words})${Buffer.byteLength(ending) <= MAX_ENDING_BYTES ? ending : ''}`;
  let stem = basename(path, ending);
  while (Buffer.byteLength(stem + more) > NAME_MAX_BYTES) stem = Array.from(stem).slice(0, -1).join('');
  return join(dirname(path), stem + more);
}

export function openFolder(root: string): Folder {
  return {
    root,
    absolute: (path) => join(root, path),
    relative(absolute) {
      const named = resolve(absolute);
      const found = named === root ? root : resolveParent(named);
      if (!isWithin(root, found)) throw new DezentError('OUTSIDE_FOLDER', `${absolute} is outside of ${root}`);
      return relative(root, found).split(sep).join('/');
    },
    stubOf: (path) => `${path}${STUB_SUFFIX}`,
    async quarantine() {
      const dir = join(root, QUARANTINE);
      await mkdir(dir, { recursive: true, mode: 0o700 });
      if (!(await lstat(dir)).isDirectory()) throw new DezentError('FOLDER', `${dir} is not a folder`);
      return dir;
    },
  };
}
