// The single moves of which every swap of an original and its stub is made. None of them overwrites: a name is taken with link(), which
// fails when it exists, and a file leaves its name only by rename into quarantine.
import { constants } from 'node:fs';
import { link, mkdir, open, readdir, rename, rmdir, unlink, utimes } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DezentError, systemCode } from '../../errors.ts';
import { loadKernel } from '../files/kernel.ts';
import { STUB_MAX_BYTES } from '../../store/stub.ts';
import { syncDirectory } from '../home/durable-file.ts';
import { identityOf, lstatIfPresent, utimeOf } from '../files/identity.ts';

/** Writes a new file beside its place: O_EXCL, fsynced. Leaves nothing when it fails. */
export async function writeNew(path: string, bytes: Uint8Array, mode: number, mtimeS: number): Promise<void> {
  const file = await open(path, 'wx', mode);
  try {
    await file.writeFile(bytes);
    await file.chmod(mode);
    // atime 0: a reader that is more than a probe moves it (relatime), which is how opens are noticed.
    await file.utimes(0, mtimeS);
    await file.sync();
  } catch (error) {
    await unlink(path);
    throw error;
  } finally {
    await file.close();
  }
}

/** What link() answers where the file system has no hard links (FAT, some network shares). */
const NO_LINKS: ReadonlySet<string | undefined> = new Set(['EPERM', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS', 'EMLINK']);

/**
 * Gives the file a name that must be free: as a second one (`linked`) or, where the file system has no hard links, instead of the first one
 * (`moved`). `taken`: something has it, nothing changed. Throws UNSAFE where neither can be done without the danger of overwriting.
 */
export async function nameNew(from: string, to: string): Promise<'linked' | 'moved' | 'taken'> {
  try {
    await link(from, to);
    return 'linked';
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return 'taken';
    if (!NO_LINKS.has(systemCode(error))) throw error;
    const moved = (await loadKernel()).renameNoReplace(from, to);
    if (moved === 'unsupported') {
      throw new DezentError(
        'UNSAFE',
        `${to} cannot be named safely: its file system has neither hard links nor renames that never overwrite`,
        {
          cause: error,
        },
      );
    }
    return moved === 'done' ? 'moved' : 'taken';
  }
}

/** Gives `tmp` its final name, which must be free; durable when it returns. Throws NAME_TAKEN and leaves `tmp`. */
export async function takeName(tmp: string, path: string): Promise<void> {
  const named = await nameNew(tmp, path);
  if (named === 'taken') throw new DezentError('NAME_TAKEN', `${path} exists already`);
  if (named === 'linked') await unlink(tmp);
  await syncDirectory(dirname(path));
}

/** Removes the name if it still is the file with this identity; false when something else (or nothing) is there. */
export async function unlinkIfSame(path: string, identity: string): Promise<boolean> {
  const stats = await lstatIfPresent(path);
  if (stats === undefined || identityOf(stats) !== identity) return false;
  await unlink(path);
  await syncDirectory(dirname(path));
  return true;
}

/** A place in quarantine of its own for one operation: quarantine/ID/NAME, so that a person finds the file by its name. */
export interface QuarantinePlace {
  dir: string;
  original: string;
  /** Where a stub goes that stood there before. */
  oldStub: string;
}

export function quarantinePlace(quarantine: string, id: string, name: string): QuarantinePlace {
  const dir = join(quarantine, id);
  return { dir, original: join(dir, name), oldStub: join(dir, '.earlier-stub') };
}

/** Moves a file into quarantine, durable on both sides. Throws UNSAFE when it lies on another disk: then nothing changed. */
export async function moveInto(place: QuarantinePlace, from: string, to: string): Promise<void> {
  await mkdir(place.dir, { recursive: true, mode: 0o700 });
  try {
    await rename(from, to);
  } catch (error) {
    if (systemCode(error) !== 'EXDEV') throw error;
    throw new DezentError('UNSAFE', `${from} stays a file: it lies on another disk than ${dirname(place.dir)}`, {
      cause: error,
    });
  }
  await syncDirectory(place.dir);
  await syncDirectory(dirname(place.dir));
  await syncDirectory(dirname(from));
}

/**
 * Links a quarantined file back under a name that must be free (or its own already, from an attempt that was interrupted), then drops it
 * from quarantine. False: something else has the name, nothing changed.
 */
export async function moveBack(place: QuarantinePlace, from: string, to: string): Promise<boolean> {
  const named = await nameNew(from, to);
  if (named === 'taken' && !(await isSameFile(from, to))) return false;
  await syncDirectory(dirname(to));
  if (named !== 'moved') await unlink(from);
  await syncDirectory(place.dir);
  return true;
}

/** True when both names are there and mean one file. */
export async function isSameFile(one: string, other: string): Promise<boolean> {
  const stats = await lstatIfPresent(one);
  return stats !== undefined && stats.ino === (await lstatIfPresent(other))?.ino;
}

/** Removes the place if nothing is left in it. */
export async function dropPlace(place: QuarantinePlace): Promise<void> {
  try {
    await rmdir(place.dir);
    await syncDirectory(dirname(place.dir));
  } catch (error) {
    if (systemCode(error) !== 'ENOENT' && systemCode(error) !== 'ENOTEMPTY' && systemCode(error) !== 'EEXIST')
      throw error;
  }
}

/** The places in quarantine, by operation id. */
export async function quarantineIds(quarantine: string): Promise<string[]> {
  return readdir(quarantine);
}

/** The bytes of what may be a stub (at most one more than a stub can have), or undefined when it is absent or no regular file. */
export async function readStubBytes(path: string): Promise<{ bytes: Buffer; identity: string } | undefined> {
  const stats = await lstatIfPresent(path);
  if (stats === undefined || !stats.isFile()) return undefined;
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const buffer = Buffer.alloc(STUB_MAX_BYTES + 1);
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
    return { bytes: buffer.subarray(0, bytesRead), identity: identityOf(await file.stat({ bigint: true })) };
  } finally {
    await file.close();
  }
}

/** Sets times in microseconds since 1970 (what utimes keeps). */
export async function setTimes(path: string, mtimeUs: number): Promise<void> {
  await utimes(path, new Date(), utimeOf(mtimeUs));
}
