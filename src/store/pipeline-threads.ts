// The threads that sealers and openers share, and what each of them is given: keys, the set of known hashes, packs to append to.
import { Worker } from 'node:worker_threads';
import type { PackAccess } from './disk-store.ts';
import type { PackId } from './pack-file.ts';
import { plainKeysOf, type ContentKeys } from './secrets.ts';
import { enlargedSet, openSharedSet, type SharedSet } from './shared-set.ts';
import { openThreadPool, type PoolThread, type ThreadPool } from './thread-pool.ts';

/** Packs lent to a thread: the one in use and the next, so that it never waits for one. */
const LANES_PER_THREAD = 2;

export interface PipelineThreadsNeeds {
  store: Pick<PackAccess, 'lanes'>;
  /** Asked before each job: a new epoch is used from the next one on. */
  keys: () => ContentKeys;
}

export interface PipelineThreadsSettings {
  threads: number;
  /** 0 to 19: how far others go first on a busy machine. Linux only, for as long as the thread lives. */
  niceness?: number;
  /** All threads end when there was nothing to do for so long. */
  idleMs?: number;
  /** For tests: told of each thread that is started. */
  onStart?: (worker: Worker) => void;
}

export interface PipelineThreads extends ThreadPool {
  /** Hashes of chunks that are known or being sealed; a larger one may take its place, so it is asked for anew each time. */
  known(): SharedSet;
  /** These packs of the thread are full, and all that it appended to them is adopted: others take their place. */
  replaceLanes(thread: PoolThread, full: readonly PackId[]): void;
}

interface Given {
  keys: ContentKeys | undefined;
  known: SharedSet | undefined;
  lanes: Set<PackId>;
  lending: Promise<void>;
}

export function openPipelineThreads(needs: PipelineThreadsNeeds, settings: PipelineThreadsSettings): PipelineThreads {
  const { lanes } = needs.store;
  const given = new Map<PoolThread, Given>();
  let known = openSharedSet();
  let returning: Promise<unknown> = Promise.resolve();

  const pool = openThreadPool({ start, prepare, ended }, settings);

  function start(): Worker {
    const ending = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    const worker = new Worker(new URL(`./pipeline-thread.${ending}`, import.meta.url), {
      workerData: { niceness: settings.niceness ?? 0 },
    });
    settings.onStart?.(worker);
    return worker;
  }

  async function prepare(thread: PoolThread, name: string): Promise<void> {
    const has = given.get(thread) ?? {
      keys: undefined,
      known: undefined,
      lanes: new Set(),
      lending: Promise.resolve(),
    };
    given.set(thread, has);
    const keys = needs.keys();
    if (has.keys !== keys) thread.give('keys', plainKeysOf(keys));
    has.keys = keys;
    giveKnown(thread, has);
    if (!name.startsWith('seal')) return;
    if (has.lanes.size === 0) await lendLanes(thread, has, 1);
    lendSpare(thread, has);
  }

  function giveKnown(thread: PoolThread, has: Given): void {
    if (has.known === known) return;
    thread.give('known', known.memory);
    has.known = known;
  }

  /** Until the thread has `count` packs. */
  function lendLanes(thread: PoolThread, has: Given, count: number): Promise<void> {
    const lending = has.lending.then(async () => {
      while (has.lanes.size < count && given.get(thread) === has) {
        const lane = await lanes.take();
        if (given.get(thread) !== has) return lanes.giveBack(lane.pack);
        has.lanes.add(lane.pack);
        thread.give('lane', lane);
      }
    });
    has.lending = lending.catch(() => undefined); // told to whoever asked for it; the next one tries again
    return lending;
  }

  /** Not waited for, and tried again before the next job when it fails. */
  function lendSpare(thread: PoolThread, has: Given): void {
    lendLanes(thread, has, LANES_PER_THREAD).catch(() => undefined);
  }

  /** Fails only when the store is closed, and then nothing is lent any more. */
  function giveBack(packs: Iterable<PackId>): void {
    returning = Promise.allSettled([returning, ...[...packs].map((pack) => lanes.giveBack(pack))]);
  }

  function ended(thread: PoolThread): void {
    const has = given.get(thread);
    given.delete(thread);
    if (has === undefined) return;
    giveBack(has.lanes);
    returning = Promise.allSettled([returning, has.lending]); // one that is being lent comes back by itself
  }

  /** For those who need the packs: a thread that has nothing to do gives its own back by ending. */
  const stopGivingBack = lanes.onRecall(async () => {
    await pool.endIdle();
    await returning;
  });

  return {
    ...pool,
    known() {
      if (known.isFull()) {
        known = enlargedSet(known);
        for (const [thread, has] of given) giveKnown(thread, has);
      }
      return known;
    },
    replaceLanes(thread, full) {
      const has = given.get(thread);
      if (has === undefined || full.length === 0) return;
      giveBack(full.filter((pack) => has.lanes.delete(pack)));
      lendSpare(thread, has);
    },
    async [Symbol.asyncDispose]() {
      stopGivingBack();
      await pool[Symbol.asyncDispose]();
      await returning;
    },
  };
}
