// Auto-offload: has protected files give way by themselves, restored ones when they have been idle, and finishes what waits in quarantine.
// A file that cannot give way now is tried again later, for ever, and `why` says what it waits for.
import pLimit from 'p-limit';
import { DezentError, isDezentError } from '../../errors.ts';
import type { Folder } from '../files/folder.ts';
import { lstatIfPresent } from '../files/identity.ts';
import type { Journal, OffloadRecord } from './journal.ts';
import type { Offload } from './offload.ts';
import { neverOffloaded } from './offload.ts';
import type { PathLocks } from '../files/path-locks.ts';
import type { Quarantine } from './quarantine.ts';
import type { Tree, TreeItem } from '../files/tree.ts';

const TICK_MS = 500;
/** Files giving way at once: each reads its blocks back. */
const IN_FLIGHT = 4;
/** After a failure, doubling up to the last. */
const RETRY_FIRST_MS = 5_000;
const RETRY_LAST_MS = 600_000;

export interface AutoOffloadNeeds {
  folder: Folder;
  tree: Tree;
  journal: Journal;
  locks: PathLocks;
  offload: Offload;
  quarantine: Quarantine;
  settings: { auto(): boolean; afterMs(): number; idleMs(): number; stubMinBytes(): number };
  /** The file changed while it gave way: it has to be taken in again. */
  onChanged(path: string): void;
  onError(path: string, error: unknown): void;
}

export interface AutoOffload extends AsyncDisposable {
  /** The item may be due now or later. */
  consider(item: TreeItem): void;
  /** Everything in the tree, once at start or after a setting changed. */
  considerAll(): Promise<void>;
  /** Why it has not given way yet, and when it is tried again. */
  waitsFor(path: string): { reason: string; at: number } | undefined;
}

interface Due {
  at: number;
  tries: number;
  reason: string;
  /** When the item came into the state that makes it due: another state has its own time. */
  since: number;
}

export function openAutoOffload(needs: AutoOffloadNeeds): AutoOffload {
  const { folder, tree, journal, locks, offload, quarantine, settings } = needs;
  const due = new Map<string, Due>();
  /** Operations in quarantine that could not be finished when they were due. */
  const retries = new Map<string, { at: number; tries: number }>();
  const limit = pLimit(IN_FLIGHT);
  const running = new Map<string, Promise<void>>();

  const backoff = (tries: number): number => Math.min(RETRY_LAST_MS, RETRY_FIRST_MS * 2 ** tries);

  function consider(item: TreeItem): void {
    const { path, kind, sizeBytes } = item.entry;
    if (kind !== 'file' || neverOffloaded(path, { sizeBytes, links: 1 }, settings.stubMinBytes()) !== undefined) return;
    const wait = { protected: settings.afterMs(), restored: settings.idleMs() }[item.state as string];
    if (wait === undefined) {
      due.delete(path);
      return;
    }
    const before = due.get(path);
    if (before?.since === item.since && before.tries > 0) return; // its next try is set
    due.set(path, { at: item.since + wait, tries: 0, reason: '', since: item.since });
  }

  /** A restored file is idle since it was last read or written. */
  async function idleUntil(item: TreeItem): Promise<number> {
    const stats = await lstatIfPresent(folder.absolute(item.entry.path));
    return Math.max(item.since, Number(stats?.atimeMs ?? 0n)) + settings.idleMs();
  }

  function postpone({ entry: { path }, since }: TreeItem, error: unknown): void {
    const before = due.get(path);
    if (isDezentError(error, 'CHANGED')) {
      due.delete(path);
      needs.onChanged(path);
      return;
    }
    const tries = before?.tries ?? 0;
    const reason = error instanceof Error ? error.message : String(error);
    due.set(path, { at: Date.now() + backoff(tries), tries: tries + 1, reason, since });
    if (!(error instanceof DezentError)) needs.onError(path, error);
  }

  /** Under the lock of the path: until then a command may have done it already. */
  async function offloadDue(path: string): Promise<void> {
    const item = tree.get(path);
    if (item === undefined || (item.state !== 'protected' && item.state !== 'restored')) {
      due.delete(path);
      return;
    }
    const until = item.state === 'restored' ? await idleUntil(item) : 0;
    if (until > Date.now()) {
      due.set(path, { at: until, tries: 0, reason: '', since: item.since });
      return;
    }
    try {
      await offload(path, false);
      due.delete(path);
    } catch (error) {
      postpone(item, error);
    }
  }

  async function finishOne(record: OffloadRecord): Promise<void> {
    try {
      await locks.run(record.path, () => quarantine.finish(record, false));
      retries.delete(record.id);
    } catch (error) {
      await keepOrBringBack(record, error);
    }
  }

  /** Written to in quarantine: it comes back as the file it now is. Too few proofs or busy: it waits there. */
  async function keepOrBringBack(record: OffloadRecord, error: unknown): Promise<void> {
    const tries = retries.get(record.id)?.tries ?? 0;
    retries.set(record.id, { at: Date.now() + backoff(tries), tries: tries + 1 });
    needs.onError(record.path, error);
    if (!isDezentError(error, 'CHANGED')) return;
    await locks.run(record.path, () => quarantine.settle(record));
    retries.delete(record.id);
    needs.onChanged(record.path);
  }

  function start(key: string, work: () => Promise<void>): void {
    if (running.has(key)) return;
    const one = limit(work)
      .catch((error: unknown) => needs.onError(key, error))
      .finally(() => running.delete(key));
    running.set(key, one);
  }

  function tick(): void {
    const now = Date.now();
    for (const record of journal.offloads()) {
      const at = retries.get(record.id)?.at ?? record.dueAt;
      if (record.step === 'stubbed' && at <= now) start(record.id, () => finishOne(record));
    }
    if (!settings.auto()) return;
    for (const [path, { at }] of due) if (at <= now) start(path, () => locks.run(path, () => offloadDue(path)));
  }

  const timer = setInterval(tick, TICK_MS);

  return {
    consider,
    async considerAll() {
      for await (const item of tree.items()) consider(item);
    },
    waitsFor(path) {
      const waiting = due.get(path);
      return waiting && { reason: waiting.reason, at: waiting.at };
    },
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      limit.clearQueue();
      await Promise.allSettled(running.values());
    },
  };
}
