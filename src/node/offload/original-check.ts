// Is a file still exactly what was stored, and does nobody else have it open? Asked before an original gives way and before it is removed.
import { DezentError } from '../../errors.ts';
import type { Manifest } from '../../store/manifest.ts';
import { contentHashOf } from '../../store/pipeline.ts';
import type { ContentKeys } from '../../store/secrets.ts';
import type { StableFile } from '../files/stable-file.ts';

/** The part of kernel.ts that is needed: see there. */
export type TakeLease = (fd: number) => { release(): void } | 'busy' | 'unsupported';

/** Runs the work while no other program has the file open (where the system can tell: `leased`). Throws BUSY. */
export async function withLease<T>(
  file: StableFile,
  takeLease: TakeLease,
  work: (leased: boolean) => Promise<T>,
): Promise<T> {
  const lease = takeLease(file.handle.fd);
  if (lease === 'busy') throw new DezentError('BUSY', 'another program has the file open');
  try {
    return await work(lease !== 'unsupported');
  } finally {
    if (lease !== 'unsupported') lease.release();
  }
}

/** Throws CHANGED unless the file's bytes have the manifest's contentHash. */
export async function checkContent(file: StableFile, manifest: Manifest, keys: ContentKeys): Promise<void> {
  const found = await contentHashOf(file.read(), keys, {
    sizeBytes: Number(file.stats.size),
    average: manifest.average,
  });
  await file.checkUnchanged();
  if (!Buffer.from(found).equals(manifest.contentHash))
    throw new DezentError('CHANGED', 'the file is not what was stored');
}
