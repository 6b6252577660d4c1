// Reading a file that others may write: opened without following links, its identity compared before and after, so that what was read
// is one state of the file and not a mixture.
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import type { BigIntStats } from 'node:fs';
import { DezentError, systemCode } from '../../errors.ts';
import { identityOf } from './identity.ts';

/** One read: large enough for the disk, and the largest chunk spans at most four of them. */
const READ_BYTES: number = 1024 * 1024;

export interface StableFile extends AsyncDisposable {
  readonly stats: BigIntStats;
  readonly handle: FileHandle;
  /** The bytes in order; each piece has memory of its own. Throws CHANGED when the file is shorter than it was. */
  read(): AsyncGenerator<Uint8Array>;
  /** Throws CHANGED when the file is not what it was when it was opened. */
  checkUnchanged(): Promise<void>;
}

/** Opens a regular file. Throws ENOENT as it is, BUSY for a symlink or another kind that has come in its place. */
export async function openStable(absolute: string, flags: number = constants.O_RDONLY): Promise<StableFile> {
  let handle: FileHandle;
  try {
    handle = await open(absolute, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (systemCode(error) === 'ELOOP')
      throw new DezentError('CHANGED', `${absolute} has become a symlink`, { cause: error });
    throw error;
  }
  try {
    const stats = await handle.stat({ bigint: true });
    if (!stats.isFile()) throw new DezentError('CHANGED', `${absolute} is not a regular file any more`);
    return stableFile(absolute, handle, stats);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function stableFile(absolute: string, handle: FileHandle, stats: BigIntStats): StableFile {
  const changed = (): DezentError => new DezentError('CHANGED', `${absolute} changed while it was read`);
  return {
    stats,
    handle,
    async *read() {
      const size = Number(stats.size);
      for (let position = 0; position < size;) {
        const piece = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, size - position));
        const { bytesRead } = await handle.read(piece, 0, piece.length, position);
        if (bytesRead === 0) throw changed();
        position += bytesRead;
        yield piece.subarray(0, bytesRead);
      }
    },
    async checkUnchanged() {
      if (identityOf(await handle.stat({ bigint: true })) !== identityOf(stats)) throw changed();
    },
    [Symbol.asyncDispose]: () => handle.close(),
  };
}
