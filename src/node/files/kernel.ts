// The few Linux calls that Node lacks, through koffi. Where koffi (an optional dependency) or a call is missing, or the file system
// cannot do it, the answer is 'unsupported': the caller then takes the longer way. Any other failure throws like Node's own calls do.
import { getSystemErrorName } from 'node:util';
import { DezentError } from '../../errors.ts';

/** From <fcntl.h> and <linux/fs.h>; the same on x64 and arm64. */
const [F_SETLEASE, F_GETLEASE, F_WRLCK, F_UNLCK] = [1024, 1025, 1, 2];
const AT_FDCWD = -100;
const RENAME_NOREPLACE = 1;

/** Linux itself keeps names and values of one file within 64 KiB each (xattr(7)); this is what an entry of the catalog carries. */
const MAX_XATTRS = 64;
const MAX_XATTR_NAMES_BYTES: number = 64 * 1024;
const MAX_XATTR_VALUE_BYTES: number = 64 * 1024;
const USER_PREFIX = 'user.';

export interface Lease {
  /** False once somebody waits to open the file: the kernel takes the lease away after /proc/sys/fs/lease-break-time (45 s). */
  isHeld(): boolean;
  release(): void;
}

export interface Kernel {
  /**
   * Asks that nobody else has this file open, and that whoever opens or truncates it waits until the release. 'busy': somebody has it
   * open now (also this process, by another descriptor). 'unsupported': not the file's owner, or a file system without leases.
   */
  writeLease(fd: number): Lease | 'busy' | 'unsupported';
  /** rename(2) that never overwrites. 'exists': there is something at `to`, and nothing was done. */
  renameNoReplace(from: string, to: string): 'done' | 'exists' | 'unsupported';
  /** The names of the `user.*` attributes, sorted; of a link itself, which has none. UNSAFE when there are more than fit. */
  listXattrs(path: string): string[] | 'unsupported';
  /** undefined when there is no such attribute. UNSAFE when it is larger than MAX_XATTR_VALUE_BYTES. */
  getXattr(path: string, name: string): Uint8Array | undefined | 'unsupported';
  setXattr(path: string, name: string, value: Uint8Array): 'done' | 'unsupported';
}

const NO_KERNEL: Kernel = {
  writeLease: () => 'unsupported',
  renameNoReplace: () => 'unsupported',
  listXattrs: () => 'unsupported',
  getXattr: () => 'unsupported',
  setXattr: () => 'unsupported',
};

type Koffi = (typeof import('koffi'))['default'];
type Call = (...args: unknown[]) => number;

let loading: Promise<Kernel> | undefined;

/** Loads koffi at the first call; on other systems, and without koffi, everything is 'unsupported'. */
export function loadKernel(): Promise<Kernel> {
  loading ??= load();
  return loading;
}

async function load(): Promise<Kernel> {
  if (process.platform !== 'linux') return NO_KERNEL;
  try {
    const { default: koffi } = await import('koffi');
    return kernelThrough(koffi);
  } catch (error) {
    if (isMissing(error)) return NO_KERNEL;
    throw error;
  }
}

/** koffi is not installed, or has no build for this machine. */
function isMissing(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = 'code' in error ? error.code : undefined;
  return (
    code === 'ERR_MODULE_NOT_FOUND' ||
    code === 'MODULE_NOT_FOUND' ||
    code === 'ERR_DLOPEN_FAILED' ||
    /native koffi module/i.test(error.message)
  );
}

function kernelThrough(koffi: Koffi): Kernel {
  const libc = koffi.load(null);
  const find = (prototype: string): Call | undefined => {
    try {
      return libc.func(prototype) as Call;
    } catch (error) {
      if (error instanceof Error && /find function|symbol/i.test(error.message)) return undefined;
      throw error;
    }
  };
  /** The result, or the name of the error ("EAGAIN"). */
  const run = (call: Call, ...args: unknown[]): number | string => {
    const result = call(...args);
    return result === -1 ? getSystemErrorName(-koffi.errno()) : result;
  };
  return { ...leases(find, run), ...renames(find, run), ...xattrs(find, run) };
}

type Find = (prototype: string) => Call | undefined;
type Run = (call: Call, ...args: unknown[]) => number | string;

function leases(find: Find, run: Run): Pick<Kernel, 'writeLease'> {
  const fcntl = find('int fcntl(int fd, int cmd, ...)');
  if (!fcntl) return { writeLease: NO_KERNEL.writeLease };
  return {
    writeLease: (fd) => {
      awaitBreaks();
      const result = run(fcntl, fd, F_SETLEASE, 'int', F_WRLCK);
      if (result === 'EAGAIN') return 'busy';
      if (result === 'EACCES' || result === 'EINVAL' || result === 'EOPNOTSUPP' || result === 'ENOLCK')
        return 'unsupported';
      if (result !== 0) throw failed('fcntl', result);
      return {
        isHeld: () => run(fcntl, fd, F_GETLEASE, 'int', 0) === F_WRLCK,
        release: () => {
          const released = run(fcntl, fd, F_SETLEASE, 'int', F_UNLCK);
          if (released !== 0 && released !== 'EAGAIN') throw failed('fcntl', released);
        },
      };
    },
  };
}

let awaiting = false;

/** The kernel says by SIGIO that somebody waits for a leased file, and that signal ends a process that does not take it. */
function awaitBreaks(): void {
  if (awaiting) return;
  process.on('SIGIO', () => undefined);
  awaiting = true;
}

function renames(find: Find, run: Run): Pick<Kernel, 'renameNoReplace'> {
  const renameat2 = find('int renameat2(int fromDir, const char *from, int toDir, const char *to, unsigned int flags)');
  if (!renameat2) return { renameNoReplace: NO_KERNEL.renameNoReplace };
  return {
    renameNoReplace: (from, to) => {
      const result = run(renameat2, AT_FDCWD, checkedPath(from), AT_FDCWD, checkedPath(to), RENAME_NOREPLACE);
      if (result === 'EEXIST') return 'exists';
      if (result === 'EINVAL' || result === 'ENOSYS') return 'unsupported';
      if (result !== 0) throw failed('renameat2', result);
      return 'done';
    },
  };
}

function xattrs(find: Find, run: Run): Pick<Kernel, 'listXattrs' | 'getXattr' | 'setXattr'> {
  const list = find('int64_t llistxattr(const char *path, void *list, size_t size)');
  const get = find('int64_t lgetxattr(const char *path, const char *name, void *value, size_t size)');
  const set = find('int lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)');
  if (!list || !get || !set) return NO_KERNEL;
  return {
    listXattrs: (path) => {
      const names = Buffer.alloc(MAX_XATTR_NAMES_BYTES);
      const result = run(list, checkedPath(path), names, names.length);
      if (result === 'EOPNOTSUPP') return 'unsupported';
      if (typeof result === 'string') throw failed('llistxattr', result);
      const all = names
        .toString('utf8', 0, result)
        .split('\0')
        .filter((name) => name.startsWith(USER_PREFIX));
      if (all.length > MAX_XATTRS)
        throw new DezentError('UNSAFE', `${path} has ${all.length} attributes, more than ${MAX_XATTRS} are not kept`);
      return all.sort();
    },
    getXattr: (path, name) => {
      const value = Buffer.alloc(MAX_XATTR_VALUE_BYTES);
      const result = run(get, checkedPath(path), userName(name), value, value.length);
      if (result === 'ENODATA') return undefined;
      if (result === 'EOPNOTSUPP') return 'unsupported';
      if (result === 'ERANGE')
        throw new DezentError('UNSAFE', `the attribute ${name} of ${path} is larger than is kept`);
      if (typeof result === 'string') throw failed('lgetxattr', result);
      return Uint8Array.from(value.subarray(0, result));
    },
    setXattr: (path, name, value) => {
      const result = run(set, checkedPath(path), userName(name), Buffer.from(value), value.length, 0);
      if (result === 'EOPNOTSUPP') return 'unsupported';
      if (result !== 0) throw failed('lsetxattr', result);
      return 'done';
    },
  };
}

/** A path that ends where it seems to end: for C it would end at a NUL. */
function checkedPath(path: string): string {
  if (path.includes('\0')) throw new DezentError('USAGE', `a path must not hold a NUL: ${JSON.stringify(path)}`);
  return path;
}

function userName(name: string): string {
  if (!name.startsWith(USER_PREFIX) || name.includes('\0'))
    throw new DezentError('USAGE', `not a user attribute: ${JSON.stringify(name)}`);
  return name;
}

/** An error of the form of Node's own: `code`, `syscall`. */
function failed(syscall: string, code: number | string): Error {
  return Object.assign(new Error(`${code}: ${syscall}`), { code: String(code), syscall });
}
