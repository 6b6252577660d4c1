// How much disk a tree takes: allocated blocks, as `du` counts them, not apparent sizes.
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { systemCode } from '../errors.ts';

/** st_blocks counts units of 512 bytes on every system (stat(2)). */
const STAT_BLOCK_BYTES = 512;

/** Allocated bytes of everything below `path`; what vanishes meanwhile counts nothing. */
export async function diskUsage(path: string): Promise<number> {
  try {
    const stats = await lstat(path);
    const own = stats.blocks * STAT_BLOCK_BYTES;
    if (!stats.isDirectory()) return own;
    const names = await readdir(path);
    const parts = await Promise.all(names.map((name) => diskUsage(join(path, name))));
    return parts.reduce((sum, bytes) => sum + bytes, own);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return 0;
    throw error;
  }
}
