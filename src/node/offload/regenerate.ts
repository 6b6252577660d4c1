// Regenerate: a manifest and its metadata → the original under a free name. Written beside its place as a file that only its owner can
// read, checked as a whole, then linked: a half-written file is never visible under a user's name.
import { mkdir, open, statfs, symlink, unlink, type FileHandle, readlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { asDezentError, DezentError, systemCode } from '../../errors.ts';
import type { CatalogEntry } from '../../store/catalog.ts';
import type { Manifest } from '../../store/manifest.ts';
import { checkedContent, contentHashOf } from '../../store/pipeline.ts';
import type { ContentKeys } from '../../store/secrets.ts';
import { syncDirectory } from '../home/durable-file.ts';
import { nameBeside, OWN_TMP_PREFIX } from '../files/folder.ts';
import { lstatIfPresent, utimeOf } from '../files/identity.ts';
import type { Fetch } from '../files/manifests.ts';
import { openStable } from '../files/stable-file.ts';
import { nameNew } from './swap.ts';

/** Blocks fetched at once for one file: keeps several holders busy. */
const FETCH_WIDTH = 8;
/** Names tried beside one that is taken. */
const CONFLICT_NAMES = 100;

export interface Meta {
  mode: number;
  mtimeUs: number;
  xattrs?: Record<string, Uint8Array>;
}

export interface RegenerateNeeds {
  keys: () => ContentKeys;
  setXattrs(absolute: string, xattrs: Record<string, Uint8Array>): Promise<void>;
}

export interface RegenerateOptions {
  fetch: Fetch;
  signal?: AbortSignal;
  onBytes?: (count: number) => void;
}

/** Throws DISK_FULL when the file system of `dir` has less room than this. */
export async function checkSpace(dir: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dir);
  if (bavail * bsize < bytes)
    throw new DezentError('DISK_FULL', `${dir} has ${bavail * bsize} bytes free, ${bytes} are needed`);
}

/** The name of the temporary file of an operation, beside `path`. */
export const tmpBeside = (path: string, id: string): string => join(dirname(path), `${OWN_TMP_PREFIX}${id}`);

/** A disk that is getting full takes a part before it refuses. */
async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}

async function writePieces(
  file: FileHandle,
  manifest: Manifest,
  { keys }: RegenerateNeeds,
  options: RegenerateOptions,
): Promise<void> {
  const fetch: Fetch = (id) => {
    options.signal?.throwIfAborted();
    return options.fetch(id);
  };
  for await (const { position, bytes } of checkedContent(manifest, { keys: keys(), fetch }, FETCH_WIDTH)) {
    await writeAll(file, bytes, position);
    options.onBytes?.(bytes.length);
  }
}

/** Writes the checked content to `tmp` (which must not exist), durable with mode, times and xattrs. Leaves nothing when it fails. */
export async function writeChecked(
  tmp: string,
  { manifest, meta }: { manifest: Manifest; meta: Meta },
  needs: RegenerateNeeds,
  options: RegenerateOptions,
): Promise<void> {
  await checkSpace(dirname(tmp), manifest.size);
  const file = await open(tmp, 'wx', 0o600);
  try {
    await writePieces(file, manifest, needs, options);
    if (meta.xattrs) await needs.setXattrs(tmp, meta.xattrs);
    await file.chmod(meta.mode & 0o7777);
    await file.utimes(new Date(), utimeOf(meta.mtimeUs));
    await file.sync();
  } catch (error) {
    await unlink(tmp);
    throw asDezentError(error);
  } finally {
    await file.close();
  }
}

/** True when the file at `path` has this content already. */
export async function hasContent(path: string, manifest: Manifest, keys: ContentKeys): Promise<boolean> {
  const stats = await lstatIfPresent(path);
  if (stats === undefined || !stats.isFile() || stats.size !== BigInt(manifest.size)) return false;
  await using file = await openStable(path);
  const found = await contentHashOf(file.read(), keys, { sizeBytes: manifest.size, average: manifest.average });
  return Buffer.from(manifest.contentHash).equals(found);
}

const conflictName = (path: string, number: number): string =>
  nameBeside(path, number === 1 ? 'restored' : `restored ${number}`);

/**
 * Links `tmp` to the name, or, when another content has it, to the first free one beside it; durable when it returns. Nothing is overwritten.
 * Gives the name that has the content now. `tmp` stays, so that an interrupted operation knows its own file by the inode.
 */
export async function linkFreeName(tmp: string, path: string, manifest: Manifest, keys: ContentKeys): Promise<string> {
  const at = await freeName(tmp, path, manifest, keys);
  await syncDirectory(dirname(path));
  return at;
}

async function freeName(tmp: string, path: string, manifest: Manifest, keys: ContentKeys): Promise<string> {
  if ((await nameNew(tmp, path)) !== 'taken' || (await hasContent(path, manifest, keys))) return path;
  for (let number = 1; number <= CONFLICT_NAMES; number += 1) {
    const beside = conflictName(path, number);
    if ((await nameNew(tmp, beside)) !== 'taken') return beside;
  }
  throw new DezentError('NAME_TAKEN', `${path} and ${CONFLICT_NAMES} names beside it are taken`);
}

/** The same, and `tmp` goes. */
export async function takeFreeName(tmp: string, path: string, manifest: Manifest, keys: ContentKeys): Promise<string> {
  const at = await linkFreeName(tmp, path, manifest, keys);
  await dropTmp(tmp);
  return at;
}

/**
 * Makes the folders of `path` below `root` that are missing. Throws UNSAFE when a part of it is something else, a symlink above all: what is
 * written below must not land elsewhere.
 */
export async function makeFolders(root: string, path: string): Promise<string> {
  let at = root;
  for (const part of path.split('/').filter((name) => name !== '' && name !== '.')) {
    at = join(at, part);
    const there = await lstatIfPresent(at);
    if (there === undefined) await makeOne(at);
    else if (!there.isDirectory())
      throw new DezentError('UNSAFE', `${at} is not a folder, so nothing is written below it`);
  }
  return at;
}

/** Two files of one folder may be written at the same time. */
async function makeOne(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error;
  }
}

/** Makes the symlink; an equal one already there is fine, anything else is NAME_TAKEN. The target is never followed. */
export async function makeLink(path: string, { link = '' }: Pick<CatalogEntry, 'link'>): Promise<void> {
  try {
    await symlink(link, path);
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error;
    const there = await lstatIfPresent(path);
    if (there?.isSymbolicLink() === true && (await readlink(path)) === link) return;
    throw new DezentError('NAME_TAKEN', `${path} exists already`, { cause: error });
  }
}

/** Removes a temporary file, durably: once the journal has forgotten it nobody would know whose it is. Absent is fine. */
export async function dropTmp(tmp: string): Promise<void> {
  try {
    await unlink(tmp);
    await syncDirectory(dirname(tmp));
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
  }
}
