// The mark: a small file in FOLDER/.dezent that tells this folder from the empty mount point of a disk that is missing. Where it is not found,
// nothing about the files can be concluded: the node does not start on it, and deletions wait.
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DezentError, systemCode } from '../../errors.ts';
import { writeDurably } from '../home/durable-file.ts';
import { OWN_PREFIX } from './ignore-rules.ts';
import { openTable, SYNC, type StateDb } from '../home/state.ts';

export interface FolderMark {
  /** True while the folder that lies there is ours; throws when it cannot be told. */
  isThere(): Promise<boolean>;
}

/** Marks the folder at the first start; throws FOLDER when a marked one is empty now. */
export async function openFolderMark(root: string, db: StateDb): Promise<FolderMark> {
  const table = openTable<string>(db, 'mark');
  const file = join(root, '.dezent', 'folder');
  const known = await table.get('folder');
  const mark = known ?? randomBytes(16).toString('hex');

  async function write(): Promise<void> {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    await writeDurably(file, `${mark}\n`);
  }

  async function isMarked(): Promise<boolean> {
    try {
      return (await readFile(file, 'utf8')).trim() === mark;
    } catch (error) {
      if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return false;
      throw error;
    }
  }

  /** A mount point without its disk is empty; where files lie, somebody has only removed the mark. */
  async function isThere(): Promise<boolean> {
    if (await isMarked()) return true;
    const names = await readdir(root).catch((error: unknown) => {
      if (systemCode(error) !== 'ENOENT') throw error;
      return []; // gone altogether: a missing disk as well
    });
    if (!names.some((name) => !name.startsWith(OWN_PREFIX))) return false;
    await write();
    return true;
  }

  if (known === undefined) {
    await write();
    await table.put('folder', mark, SYNC);
  } else if (!(await isThere())) {
    throw new DezentError('FOLDER', `${root} is empty, and the mark ${file} is missing: its disk may not be mounted`, {
      hint: `Mount its disk. If you emptied the folder on purpose: mkdir -p ${dirname(file)} && echo ${mark} > ${file}`,
    });
  }
  return { isThere };
}
