// safePath: the one check for every name that comes from somewhere else (catalog, archive) before it is used below a directory of ours.
import { DezentError } from '../../errors.ts';

const MAX_PATH_BYTES = 4096;
const MAX_NAME_BYTES = 255;
const WINDOWS_RESERVED = /^(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)/iu;

/** Throws UNSAFE unless the path stays below the directory it is joined to, whatever the names in it are. NUL and `..` on every system. */
export function checkSafePath(path: string): string {
  const refuse = (why: string): never => {
    throw new DezentError('UNSAFE', `the name ${JSON.stringify(path.slice(0, 200))} is not used: ${why}`);
  };
  if (path === '' || Buffer.byteLength(path) > MAX_PATH_BYTES) refuse('it is empty or too long');
  if (path.startsWith('/') || path.includes('\0')) refuse('it is absolute or has a NUL byte');
  for (const part of path.split('/')) {
    if (part === '' || part === '.' || part === '..') refuse('it has an empty part, "." or ".."');
    if (Buffer.byteLength(part) > MAX_NAME_BYTES) refuse('a part of it is too long');
    if (process.platform === 'win32' && (WINDOWS_RESERVED.test(part) || /[\\:*?"<>|]|[. ]$/u.test(part)))
      refuse('Windows cannot have it');
  }
  return path;
}
