// What tells one state of a file from another without reading it: inode, size, mtime (ns) and mode, as one text. The device number is
// left out: it changes over reboots on some file systems.
import type { BigIntStats } from 'node:fs';
import { lstat } from 'node:fs/promises';
import { systemCode } from '../../errors.ts';

type FileIdentity = Pick<BigIntStats, 'ino' | 'size' | 'mtimeNs' | 'mode'>;

export function identityOf(stats: FileIdentity): string {
  return `${stats.ino}:${stats.size}:${stats.mtimeNs}:${stats.mode}`;
}

/** lstat with nanoseconds, or undefined when nothing has that name. Every other error is thrown: absent is not failed. */
export async function lstatIfPresent(path: string): Promise<BigIntStats | undefined> {
  try {
    return await lstat(path, { bigint: true });
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}

export const mtimeUsOf = (stats: Pick<BigIntStats, 'mtimeNs'>): number => Number(stats.mtimeNs / 1000n);
export const birthtimeUsOf = (stats: Pick<BigIntStats, 'birthtimeNs'>): number => Number(stats.birthtimeNs / 1000n);

/**
 * What utimes() takes for a time of microseconds since 1970, so that {@link mtimeUsOf} gives the same microseconds back: half of one is added,
 * because the seconds of a double are cut off, which would lose one in every second file. Node turns negative seconds into "now"; a Date
 * keeps such times, to the millisecond.
 */
export const utimeOf = (timeUs: number): number | Date => (timeUs < 0 ? new Date(timeUs / 1000) : (timeUs + 0.5) / 1e6);

export const modeOf = (stats: Pick<BigIntStats, 'mode'>): number => Number(stats.mode) & 0o7777;

/** The size part of an identity, bytes. */
export const sizeOfIdentity = (identity: string): number => Number(identity.split(':')[1]);
