// One process per directory, by the lock of an empty `level` database in it: the system drops it with the process, however that ends.
import { rm } from 'node:fs/promises';
import { Level } from 'level';
import { innermostCause, levelError } from './level-error.ts';
import { DezentError, systemCode } from '../errors.ts';

export interface LevelLock {
  release(): Promise<void>;
}

/** Takes the lock, a directory of its own; throws ALREADY_RUNNING when somebody has it, IO, DISK_FULL. */
export async function takeLevelLock(dir: string): Promise<LevelLock> {
  try {
    return await take(dir);
  } catch (error) {
    if (systemCode(innermostCause(error)) === 'LEVEL_LOCKED') {
      throw new DezentError('ALREADY_RUNNING', `another process uses ${dir}`, { cause: error });
    }
    const known = levelError(error);
    if (known.code !== 'BAD_INDEX') throw known;
    await rm(dir, { recursive: true, force: true }); // it held nothing, and nobody has it: damage is found under the lock
    return take(dir);
  }
}

async function take(dir: string): Promise<LevelLock> {
  const db = new Level(dir);
  await db.open();
  return { release: () => db.close() };
}
