// Watch: notices what changes in FOLDER and names each path once it has been quiet for `settleMs`. It knows no states: whoever it tells
// compares the path with what it knows, so own writes and repeated events cost one lstat.
import { relative, sep } from 'node:path';
import { watch as chokidarWatch } from 'chokidar';
import pLimit from 'p-limit';
import type { Folder } from './folder.ts';
import { IGNORE_FILE, type IgnoreRules } from './ignore-rules.ts';
import { lstatIfPresent } from './identity.ts';
import { walk } from './walk.ts';

/** Settled paths given out at once. */
const PATHS_IN_FLIGHT = 64;
/** How often settled paths are looked for, at most. */
const TICK_MS = 100;

export interface WatchNeeds {
  folder: Folder;
  rules: IgnoreRules;
  settings: { settleMs(): number; scanMs(): number };
  /** The path has been quiet (it may be gone). Rejections are reported and do not stop the watch. */
  onSettled(path: string): Promise<void>;
  /** Nothing is waiting to settle any more. */
  onQuiet(): void;
  onError(error: unknown, path: string): void;
}

export interface Watch extends AsyncDisposable {
  /** Resolves when changes from now on are noticed and the first scan is through. */
  ready: Promise<void>;
  /** Treats the path as changed just now. */
  touch(path: string): void;
  /** Paths that are waiting to settle or being looked at. */
  pending(): number;
}

export function openWatch({ folder, rules, settings, onSettled, onQuiet, onError }: WatchNeeds): Watch {
  const changedAt = new Map<string, number>();
  const limit = pLimit(PATHS_IN_FLIGHT);
  const stopping = new AbortController();
  let scanning: Promise<void> = Promise.resolve();

  /** What the watcher names lies in FOLDER by its own walk, which follows no links. */
  const toPath = (absolute: string): string => relative(folder.root, absolute).split(sep).join('/');
  const onUnreadable = (path: string, error: unknown): void => onError(error, path);

  function touch(path: string): void {
    if (path === '' || stopping.signal.aborted) return;
    if (path === IGNORE_FILE) void rules.reload().then(scan, (error: unknown) => onError(error, path));
    changedAt.set(path, Date.now());
  }

  /** Quiet by its own times too: a copy that keeps old mtimes has a fresh ctime. */
  async function isQuiet(path: string): Promise<boolean> {
    const stats = await lstatIfPresent(folder.absolute(path));
    return (
      stats === undefined ||
      Date.now() - Number(stats.ctimeMs > stats.mtimeMs ? stats.ctimeMs : stats.mtimeMs) >=
        settings.settleMs() - TICK_MS
    );
  }

  async function settle(path: string): Promise<void> {
    try {
      await onSettled(path);
    } catch (error) {
      onError(error, path);
    }
  }

  function tick(): void {
    const now = Date.now();
    for (const [path, at] of changedAt) {
      if (limit.pendingCount > PATHS_IN_FLIGHT) return;
      if (now - at < settings.settleMs()) continue;
      changedAt.delete(path);
      void limit(() => settle(path));
    }
    if (pending() === 0) onQuiet();
  }

  const pending = (): number => changedAt.size + limit.activeCount + limit.pendingCount;

  /** One path of a scan: known ones cost an lstat in onSettled, fresh ones wait until they are quiet. */
  async function look(path: string): Promise<void> {
    if (await isQuiet(path)) await settle(path);
    else if (!changedAt.has(path)) touch(path);
  }

  async function scanOnce(): Promise<void> {
    const running = new Set<Promise<void>>();
    for await (const path of walk({ folder, rules, onUnreadable })) {
      if (stopping.signal.aborted) break;
      const one = limit(() => look(path)).finally(() => running.delete(one));
      running.add(one);
      if (running.size > 4 * PATHS_IN_FLIGHT) await Promise.race(running);
    }
    await Promise.all(running);
  }

  function scan(): Promise<void> {
    scanning = scanning.then(scanOnce).catch((error: unknown) => onError(error, ''));
    return scanning;
  }

  const watcher = chokidarWatch(folder.root, {
    ignoreInitial: true,
    followSymlinks: false,
    ignorePermissionErrors: true,
    atomic: false,
    ignored: (absolute, stats) =>
      absolute !== folder.root && rules.ignores(toPath(absolute), stats?.isDirectory() ?? false),
  });
  for (const event of ['add', 'change', 'unlink', 'addDir', 'unlinkDir'] as const)
    watcher.on(event, (absolute: string) => touch(toPath(absolute)));
  watcher.on('error', (error) => onError(error, ''));
  const armed = new Promise<void>((resolve) => {
    watcher.once('ready', () => resolve());
  });

  const ticking = setInterval(tick, TICK_MS);
  let daily: NodeJS.Timeout | undefined;
  const again = (): void => {
    daily = setTimeout(() => void scan().then(again), settings.scanMs());
    daily.unref();
  };

  async function start(): Promise<void> {
    await scan();
    await armed;
    // What was made between the first scan and the moment the watcher was armed.
    await scan();
    again();
  }

  return {
    ready: start(),
    touch,
    pending,
    async [Symbol.asyncDispose]() {
      stopping.abort();
      clearInterval(ticking);
      clearTimeout(daily);
      limit.clearQueue();
      await watcher.close();
    },
  };
}
