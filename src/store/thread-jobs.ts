// The thread's side of the pool: runs jobs by their name. A job is synchronous between its turns, so one thread does one thing at a time;
// at each turn messages are taken in and other jobs go on.
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { MessagePort, Transferable } from 'node:worker_threads';
import { DezentError } from '../errors.ts';
import { errorToData, type FromThread, type ToThread } from './thread-messages.ts';

/** Events of one job that the main thread has not dealt with yet: what a job has done and nobody knows of is bounded. */
const MAX_EVENTS_AHEAD = 3;

export interface JobContext {
  /** Tells the main thread; to be dealt with before the job is done. */
  event(value: unknown): void;
  /** Lets others go on; waits while too many events are not dealt with. Throws CANCELLED. */
  turn(): Promise<void>;
}

/** A value to give back, with the memory that moves along. */
export interface Given {
  value: unknown;
  transfer: Transferable[];
}

export type Jobs = Readonly<Record<string, (input: never, context: JobContext) => Promise<Given> | Given>>;
export type Gifts = Readonly<Record<string, (value: never) => void>>;

interface Running {
  cancelled: boolean;
  eventsAhead: number;
  wake: () => void;
}

/** Serves jobs and gifts that come through this port until it closes. */
export function serveJobs(port: MessagePort, jobs: Jobs, gifts: Gifts): void {
  const running = new Map<number, Running>();
  const post = (message: FromThread, transfer: Transferable[] = []): void => port.postMessage(message, transfer);

  function contextOf(job: number, state: Running): JobContext {
    return {
      event(value) {
        state.eventsAhead += 1;
        post({ what: 'event', job, value });
      },
      async turn() {
        await nextTurn();
        while (!state.cancelled && state.eventsAhead > MAX_EVENTS_AHEAD)
          await new Promise<void>((resolve) => {
            state.wake = resolve;
          });
        if (state.cancelled) throw new DezentError('CANCELLED', 'the work was cancelled');
      },
    };
  }

  async function run({ job, name, input }: ToThread & { what: 'job' }): Promise<void> {
    const state: Running = { cancelled: false, eventsAhead: 0, wake: () => undefined };
    running.set(job, state);
    try {
      const work = jobs[name];
      if (work === undefined) throw new DezentError('INTERNAL', `no job is called ${name}`);
      const { value, transfer } = await work(input as never, contextOf(job, state));
      post({ what: 'done', job, value }, transfer);
    } catch (error) {
      post({ what: 'failed', job, error: errorToData(error) });
    } finally {
      running.delete(job);
    }
  }

  function change(job: number, by: (state: Running) => void): void {
    const state = running.get(job);
    if (state === undefined) return;
    by(state);
    state.wake();
  }

  port.on('message', (message: ToThread) => {
    if (message.what === 'job') void run(message);
    else if (message.what === 'give') gifts[message.name]?.(message.value as never);
    else if (message.what === 'ping') post({ what: 'pong', ping: message.ping });
    else if (message.what === 'cancel') change(message.job, (state) => (state.cancelled = true));
    else change(message.job, (state) => (state.eventsAhead -= message.events));
  });
}
