// The `user.*` attributes of a file as the catalog carries them; absent where the system has none.
import type { Kernel } from './kernel.ts';

export function readXattrs(kernel: Kernel, path: string): Record<string, Uint8Array> | undefined {
  const names = kernel.listXattrs(path);
  if (names === 'unsupported' || names.length === 0) return undefined;
  const found: Record<string, Uint8Array> = {};
  for (const name of names) {
    const value = kernel.getXattr(path, name);
    if (value !== undefined && value !== 'unsupported') found[name] = value;
  }
  return found;
}

/** Sets them all; a file system that has none keeps the file without. */
export function writeXattrs(kernel: Kernel, path: string, xattrs: Record<string, Uint8Array>): void {
  for (const [name, value] of Object.entries(xattrs)) if (kernel.setXattr(path, name, value) === 'unsupported') return;
}
