// Fail-points: every change to the file system below a directory, and whatever else a test counts as a step, is numbered; at the k-th one the
// program stops as if it had been killed (everything after it fails too), fails once as a disk does, or kills its own process. Production
// code knows nothing of it: the functions of node:fs/promises are replaced for the whole process. A power cut can be played after a stop:
// what was not synced by then is undone.
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { systemCode } from '../../src/errors.ts';

export type Mode =
  /** This step and all after it throw: nothing more is changed. */
  | 'dead'
  /** Only this step throws. */
  | 'fails'
  /** SIGKILL to this process. */
  | 'kill';

export interface FailPoints extends Disposable {
  /** Steps so far, by name. */
  readonly steps: readonly string[];
  /** From now on steps are counted from 1; the k-th one stops the program. Without `k` they are only counted. */
  arm(k?: number, mode?: Mode): void;
  /** Steps do not count any more and none fails. */
  disarm(): void;
  /** From now on this function always fails so, armed or not. */
  refuse(name: string, code: string): void;
  /** Undoes every change since `arm` that no sync has made durable: names until their directories are, contents until the file is. */
  cutPower(): Promise<void>;
  /** One more step, made elsewhere (a database). */
  step(name: string): void;
}

type AnyFunction = (...args: unknown[]) => unknown;

/** A change that a power cut undoes until all of these, directories or the file itself, have been synced. */
interface Unsynced {
  waitsFor: Set<string>;
  undo(): Promise<unknown>;
}

/** What changes something, with the number of arguments that are paths. */
const CHANGES: Readonly<Record<string, number>> = {
  chmod: 1,
  link: 2,
  mkdir: 1,
  rename: 2,
  rm: 1,
  rmdir: 1,
  symlink: 2,
  unlink: 1,
  utimes: 1,
};
/** What an undo may find already undone. */
const UNDONE_CODES = new Set(['ENOENT', 'EEXIST', 'ENOTEMPTY']);
const HANDLE_CHANGES = ['chmod', 'datasync', 'sync', 'truncate', 'utimes', 'write', 'writeFile', 'writev'];

/** An error as a dying disk gives it; `dead` for tests to tell it from others. */
export class StoppedHere extends Error {
  readonly code: string;
  readonly syscall = 'write';

  constructor(message: string, code = 'EIO') {
    super(`${code}: ${message}`);
    this.code = code;
  }
}

/** Counts changes below `root`. One at a time in a process. */
export function openFailPoints(root: string): FailPoints {
  const promises = createRequire(import.meta.url)('node:fs/promises') as Record<string, AnyFunction>;
  const originals = new Map<string, AnyFunction>();
  const undo: (() => void)[] = [];
  const steps: string[] = [];
  const refused = new Map<string, string>();
  let armed = false;
  let stopAt: number | undefined;
  let mode: Mode = 'dead';

  let unsynced: Unsynced[] = [];
  const shadow = mkdtempSync(join(dirname(root), '.shadow-'));
  let shadows = 0;

  const call = (name: string, ...args: unknown[]): Promise<unknown> =>
    originals.get(name)?.(...args) as Promise<unknown>;

  /** A further name outside of `root`, so that a file outlasts its last name there. */
  async function keep(path: string): Promise<string> {
    const kept = join(shadow, String((shadows += 1)));
    await call('link', path, kept);
    return kept;
  }

  const note = (waitsFor: string[], undo: Unsynced['undo']): void =>
    void unsynced.push({ waitsFor: new Set(waitsFor), undo });

  function synced(path: string): void {
    for (const { waitsFor } of unsynced) waitsFor.delete(path);
    unsynced = unsynced.filter(({ waitsFor }) => waitsFor.size > 0);
  }

  /** What undoes this change of names; asked before it is made. */
  async function undoOf(name: string, [from, to]: string[]): Promise<(() => void) | undefined> {
    if (from === undefined || !armed) return undefined;
    if (name === 'unlink') {
      const kept = await keep(from).catch(() => undefined);
      return () => note([dirname(from)], async () => kept && call('link', kept, from));
    }
    if (name === 'link' && to !== undefined) return () => note([dirname(to)], () => call('unlink', to));
    if (name === 'rename' && to !== undefined)
      return () => note([dirname(from), dirname(to)], () => call('rename', to, from));
    if (name === 'rmdir') return () => note([dirname(from)], () => call('mkdir', from));
    if (name === 'mkdir' && !existsSync(from)) return () => note([dirname(from)], () => call('rmdir', from));
    return undefined;
  }

  function step(name: string): void {
    if (!armed) return;
    steps.push(name);
    if (stopAt === undefined || steps.length < stopAt) return;
    if (steps.length > stopAt && mode === 'fails') return;
    if (mode === 'kill') process.kill(process.pid, 'SIGKILL');
    throw new StoppedHere(`stopped at step ${steps.length}: ${name}`);
  }

  const isBelow = (path: unknown): boolean => typeof path === 'string' && path.startsWith(root);
  const short = (path: unknown): string => String(path).slice(root.length);

  for (const [name, paths] of Object.entries(CHANGES)) {
    const original = promises[name] as AnyFunction;
    originals.set(name, original);
    promises[name] = async (...args) => {
      const code = refused.get(name);
      if (code !== undefined) throw new StoppedHere(`${name} is refused`, code);
      const named = args.slice(0, paths);
      if (!named.some(isBelow)) return original(...args);
      step(`${name} ${named.map(short).join(' ')}`);
      const done = await undoOf(name, named.map(String));
      const result = await original(...args);
      done?.();
      return result;
    };
  }

  /** Handles on paths below root; their common prototype is patched at the first one. */
  const handles = new WeakMap<object, string>();
  let patched = false;
  function patchHandles(handle: FileHandle): void {
    if (patched) return;
    patched = true;
    const prototype = Object.getPrototypeOf(handle) as Record<string, AnyFunction>;
    for (const name of HANDLE_CHANGES) {
      const original = prototype[name] as AnyFunction;
      prototype[name] = async function change(this: object, ...args: unknown[]) {
        const path = handles.get(this);
        if (path === undefined) return original.apply(this, args);
        step(`${name} ${short(path)}`);
        const result = await (original.apply(this, args) as Promise<unknown>);
        if (name === 'sync' || name === 'datasync') synced(path);
        return result;
      };
      undo.push(() => void (prototype[name] = original));
    }
  }

  const open = promises['open'] as AnyFunction;
  originals.set('open', open);
  originals.set('truncate', promises['truncate'] as AnyFunction);
  promises['open'] = async (...args) => {
    const creates = typeof args[1] === 'string' && args[1] !== 'r';
    if (creates && isBelow(args[0])) step(`open ${short(args[0])}`);
    const handle = (await open(...args)) as FileHandle;
    patchHandles(handle);
    if (!isBelow(args[0])) return handle;
    const path = String(args[0]);
    handles.set(handle, path);
    if (creates && armed) {
      const kept = await keep(path);
      note([dirname(path)], () => call('unlink', path));
      note([path], () => call('truncate', kept, 0));
    }
    return handle;
  };
  syncBuiltinESMExports();

  return {
    steps,
    step,
    refuse: (name, code) => void refused.set(name, code),
    arm(k, how = 'dead') {
      steps.length = 0;
      unsynced = [];
      stopAt = k;
      mode = how;
      armed = true;
    },
    disarm() {
      armed = false;
    },
    async cutPower() {
      for (const { undo: takeBack } of unsynced.toReversed()) {
        await takeBack().catch((error: unknown) => {
          if (!UNDONE_CODES.has(systemCode(error) ?? '')) throw error;
        });
      }
      unsynced = [];
    },
    [Symbol.dispose]() {
      for (const [name, original] of originals) promises[name] = original;
      for (const back of undo) back();
      syncBuiltinESMExports();
      rmSync(shadow, { recursive: true });
    },
  };
}
