// Looks through the whole tree, counts copies anew and has done what is to be done: at start, when the group or a setting changes, when a holder
// broke its word, and daily. It gives way to other work between items.
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { AutoOffload } from '../offload/auto-offload.ts';
import type { Replicate } from './replicate.ts';
import type { Tree } from '../files/tree.ts';

/** Several reasons within this time are one. */
const GATHER_MS = 1_000;
const DAILY_MS = 86_400_000;
const ITEMS_A_TURN = 64;

export interface LookThrough extends AsyncDisposable {
  soon(): void;
}

export interface LookThroughNeeds {
  tree: Tree;
  replicate: Replicate;
  autoOffload: AutoOffload;
  onError(error: unknown): void;
}

export function openLookThrough({ tree, replicate, autoOffload, onError }: LookThroughNeeds): LookThrough {
  const stopping = new AbortController();
  let waiting: NodeJS.Timeout | undefined;
  let running: Promise<void> = Promise.resolve();

  async function look(): Promise<void> {
    let looked = 0;
    for await (const item of tree.items()) {
      if (stopping.signal.aborted) return;
      const counted = await replicate.recount(item);
      replicate.wake([counted.entry.path]);
      autoOffload.consider(counted);
      looked += 1;
      if (looked % ITEMS_A_TURN === 0) await nextTurn();
    }
    replicate.wakeLog();
  }

  function soon(): void {
    if (stopping.signal.aborted) return;
    waiting ??= setTimeout(() => {
      waiting = undefined;
      running = running.then(look).catch(onError);
    }, GATHER_MS);
  }

  const daily = setInterval(soon, DAILY_MS);
  running = look().catch(onError);

  return {
    soon,
    async [Symbol.asyncDispose]() {
      stopping.abort();
      clearTimeout(waiting);
      clearInterval(daily);
      await running;
    },
  };
}
