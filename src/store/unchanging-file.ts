// A file of somebody else's, read by a thread with synchronous calls: opened without following links, and the same before and after, so
// that what was read is one state of it.
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { DezentError, systemCode } from '../errors.ts';
import type { FileStats } from './sealing.ts';

export interface UnchangingFile {
  readonly stats: FileStats;
  /** Fills the buffer from this place on. Throws CHANGED when the file ends before. */
  read(into: Uint8Array, position: number): void;
  /** Throws CHANGED when the file is not what it was. */
  check(): void;
  close(): void;
}

/** Opens a regular file. Throws CHANGED for a symlink or anything else, the system's own errors (ENOENT, EACCES). */
export function openUnchanging(path: string): UnchangingFile {
  const fd = openNow(path);
  const changed = (): DezentError => new DezentError('CHANGED', `${path} changed while it was read`);
  try {
    const stats = statsOf(fd);
    if ((Number(stats.mode) & constants.S_IFMT) !== constants.S_IFREG)
      throw new DezentError('CHANGED', `${path} is not a regular file any more`);
    return {
      stats,
      read(into, position) {
        for (let done = 0; done < into.length;) {
          const count = readSync(fd, into, done, into.length - done, position + done);
          if (count === 0) throw changed();
          done += count;
        }
      },
      check() {
        if (!isSameState(stats, statsOf(fd))) throw changed();
      },
      close: () => closeSync(fd),
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** True when a file has not been written to from one to the other (see identity.ts of the node). */
export function isSameState(one: FileStats, other: FileStats): boolean {
  return (
    one.ino === other.ino &&
    one.size === other.size &&
    one.mtimeNs === other.mtimeNs &&
    one.mode === other.mode &&
    one.dev === other.dev
  );
}

function openNow(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (systemCode(error) === 'ELOOP')
      throw new DezentError('CHANGED', `${path} has become a symlink`, { cause: error });
    throw error;
  }
}

function statsOf(fd: number): FileStats {
  const { dev, ino, mode, nlink, size, mtimeNs, ctimeNs, birthtimeNs } = fstatSync(fd, { bigint: true });
  return { dev, ino, mode, nlink, size, mtimeNs, ctimeNs, birthtimeNs };
}
