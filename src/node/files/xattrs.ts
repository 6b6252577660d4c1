// The `user.*` attributes of a file as the catalog carries them; absent where the system has none.
import { DezentError } from '../../errors.ts';
import type { Kernel } from './kernel.ts';

/** Names and values of one file together: an entry must stay small beside its neighbours in a segment. */
const MAX_XATTRS_BYTES: number = 64 * 1024;

/** Throws UNSAFE when there is more than an entry can carry: the file then stays as it is, and says so. */
export function readXattrs(kernel: Kernel, path: string): Record<string, Uint8Array> | undefined {
  const names = kernel.listXattrs(path);
  if (names === 'unsupported' || names.length === 0) return undefined;
  const found: Record<string, Uint8Array> = {};
  let bytes = 0;
  for (const name of names) {
    const value = kernel.getXattr(path, name);
    if (value === undefined || value === 'unsupported') continue;
    found[name] = value;
    bytes += Buffer.byteLength(name) + value.length;
  }
  if (bytes > MAX_XATTRS_BYTES) {
    throw new DezentError(
      'UNSAFE',
      `${path} has ${bytes} bytes of extended attributes; up to ${MAX_XATTRS_BYTES} can be kept`,
    );
  }
  return found;
}

/** Sets them all; a file system that has none keeps the file without. */
export function writeXattrs(kernel: Kernel, path: string, xattrs: Record<string, Uint8Array>): void {
  for (const [name, value] of Object.entries(xattrs)) if (kernel.setXattr(path, name, value) === 'unsupported') return;
}
