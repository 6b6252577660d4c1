// The main thread's side of the pipeline threads: starts them when there is work, gives each job to the least busy one, replaces one that
// dies and ends them all when they have been idle for a while, so that a quiet node pays nothing for them.
import type { Transferable, Worker } from 'node:worker_threads';
import { DezentError } from '../errors.ts';
import { errorFromData, type FromThread, type ToThread } from './thread-messages.ts';

/** Jobs on one thread at a time: the next one is there when one ends, and a long one (which takes turns) does not hold up short ones. */
const JOBS_PER_THREAD = 3;
/** Starting a thread takes about 60 ms, keeping one 30 MiB. */
const IDLE_MS = 20_000;
/** A job whose thread dies is run again so often; more often it is the job that kills threads. */
const RUNS = 3;

/** A thread, for those who give it what its jobs need. */
export interface PoolThread {
  give(name: string, value: unknown): void;
}

export interface PoolNeeds {
  /** A new worker thread that serves jobs. */
  start(): Worker;
  /** Before each job of this name: gives the thread what it needs and does not have yet. */
  prepare(thread: PoolThread, name: string): Promise<void>;
  /** The thread has ended and does nothing any more. */
  ended(thread: PoolThread): void;
}

export interface JobOptions {
  signal?: AbortSignal | undefined;
  /** Awaited before the job is done; the job is ended when it rejects. */
  onEvent?: (value: never, thread: PoolThread) => Promise<void>;
  transfer?: () => Transferable[];
  /** Not kept waiting behind other jobs: others wait for it. */
  urgent?: boolean;
}

export interface ThreadPool extends AsyncDisposable {
  readonly threads: number;
  /** The job's result. Rejects with its error, with the signal's reason, or so that {@link isThreadLost} when its thread died. */
  run<Out>(name: string, input: unknown, options?: JobOptions): Promise<Out>;
  /** Resolves when every thread has told what it was doing when this was called. */
  barrier(): Promise<void>;
  /** Ends the threads that have nothing to do now; they are gone when it resolves. */
  endIdle(): Promise<void>;
}

interface Job {
  id: number;
  name: string;
  input: unknown;
  options: JobOptions;
  /** What onEvent is still busy with, and the first error of it. */
  events: Promise<void>;
  failure: { error: unknown } | undefined;
  done: PromiseWithResolvers<unknown>;
}

interface Thread extends PoolThread {
  worker: Worker;
  jobs: Map<number, Job>;
  /** Done on the thread, while what they told of is still being dealt with. */
  settling: Set<Job>;
  pings: Map<number, () => void>;
  error: unknown;
  post(message: ToThread, transfer?: Transferable[]): void;
}

const LOST: unique symbol = Symbol('thread lost');

/** True for the error of a job whose thread died; the job may be run again. */
export function isThreadLost(error: unknown): boolean {
  return error instanceof DezentError && typeof error.cause === 'object' && error.cause !== null && LOST in error.cause;
}

/** Runs the work again when its thread died. */
export async function againWhenLost<T>(work: () => Promise<T>): Promise<T> {
  for (let run = 1; ; run += 1) {
    try {
      return await work();
    } catch (error) {
      if (!isThreadLost(error) || run === RUNS) throw error;
    }
  }
}

const isIdle = ({ jobs, settling }: Thread): boolean => jobs.size + settling.size === 0;

export function openThreadPool(needs: PoolNeeds, settings: { threads: number; idleMs?: number }): ThreadPool {
  const threads = new Set<Thread>();
  const waiting: Job[] = [];
  let lastId = 0;
  let idle: NodeJS.Timeout | undefined;
  let closed = false;
  const endings = new Set<Promise<unknown>>();

  function startThread(): Thread {
    const worker = needs.start();
    const thread: Thread = {
      worker,
      jobs: new Map(),
      settling: new Set(),
      pings: new Map(),
      error: undefined,
      post: (message, transfer = []) => worker.postMessage(message, transfer),
      give: (name, value) => thread.post({ what: 'give', name, value }),
    };
    worker.on('message', (message: FromThread) => hear(thread, message));
    worker.on('error', (error) => (thread.error = error));
    worker.on('exit', () => lose(thread));
    threads.add(thread);
    return thread;
  }

  function hear(thread: Thread, message: FromThread): void {
    if (message.what === 'pong') return thread.pings.get(message.ping)?.();
    const job = thread.jobs.get(message.job);
    if (job === undefined) return;
    if (message.what === 'event') return hearEvent(thread, job, message.value);
    thread.jobs.delete(job.id);
    thread.settling.add(job);
    void settle(thread, job, message);
    advance();
  }

  function hearEvent(thread: Thread, job: Job, value: unknown): void {
    const handled = (async () => job.options.onEvent?.(value as never, thread))();
    job.events = Promise.all([job.events, handled]).then(
      () => thread.post({ what: 'credit', job: job.id, events: 1 }),
      (error: unknown) => {
        job.failure ??= { error };
        thread.post({ what: 'cancel', job: job.id });
      },
    );
  }

  async function settle(thread: Thread, job: Job, message: FromThread & { what: 'done' | 'failed' }): Promise<void> {
    await job.events;
    thread.settling.delete(job);
    advance();
    if (job.failure !== undefined) job.done.reject(job.failure.error);
    else if (message.what === 'done') job.done.resolve(message.value);
    else job.done.reject(job.options.signal?.aborted ? job.options.signal.reason : errorFromData(message.error));
  }

  function lose(thread: Thread): void {
    if (!threads.delete(thread)) return;
    const cause = { [LOST]: true, error: thread.error };
    for (const wake of thread.pings.values()) wake();
    for (const job of thread.jobs.values())
      job.done.reject(new DezentError('INTERNAL', `a thread died at the job ${job.name}`, { cause }));
    // What it had told of is still being dealt with.
    const told = [...thread.jobs.values(), ...thread.settling].map(({ events }) => events);
    const ending = Promise.allSettled(told)
      .then(() => needs.ended(thread))
      .finally(() => endings.delete(ending));
    endings.add(ending);
    advance();
  }

  const leastBusy = (): Thread | undefined => [...threads].sort((one, other) => one.jobs.size - other.jobs.size)[0];

  /** The thread for the next job, or undefined while all are busy. */
  function threadFor(job: Job): Thread | undefined {
    const free = leastBusy();
    if (threads.size < settings.threads && (free === undefined || free.jobs.size > 0)) return startThread();
    return free !== undefined && (job.options.urgent === true || free.jobs.size < JOBS_PER_THREAD) ? free : undefined;
  }

  function advance(): void {
    clearTimeout(idle);
    for (let job = waiting[0]; job !== undefined; job = waiting[0]) {
      const thread = threadFor(job);
      if (thread === undefined) break;
      waiting.shift();
      begin(thread, job);
    }
    for (const { worker, jobs } of threads) {
      if (jobs.size > 0) worker.ref();
      else worker.unref();
    }
    if ([...threads].every(isIdle)) idle = setTimeout(rest, settings.idleMs ?? IDLE_MS).unref();
  }

  function begin(thread: Thread, job: Job): void {
    const { id, name, input, options } = job;
    thread.jobs.set(id, job);
    const post = (): void => {
      if (!thread.jobs.has(id)) return;
      if (job.failure !== undefined) throw job.failure.error;
      if (options.signal?.aborted) throw options.signal.reason;
      thread.post({ what: 'job', job: id, name, input }, options.transfer?.() ?? []);
      cancelOnAbort(thread, job);
    };
    needs
      .prepare(thread, name)
      .then(post)
      .catch((error: unknown) => {
        thread.jobs.delete(id);
        job.done.reject(error);
        advance();
      });
  }

  function cancelOnAbort(thread: Thread, { id, done, options: { signal } }: Job): void {
    if (signal === undefined) return;
    const cancel = (): void => thread.post({ what: 'cancel', job: id });
    const forget = (): void => signal.removeEventListener('abort', cancel);
    signal.addEventListener('abort', cancel);
    done.promise.then(forget, forget);
  }

  /** Each is gone when its exit has been heard. */
  function end(some: readonly Thread[]): void {
    for (const thread of some) {
      thread.worker.ref(); // somebody may wait for its end and for nothing else
      const ending = thread.worker.terminate().finally(() => endings.delete(ending));
      endings.add(ending);
      lose(thread);
    }
  }

  const rest = (): void => end([...threads].filter(isIdle));

  return {
    threads: settings.threads,
    run<Out>(name: string, input: unknown, options: JobOptions = {}) {
      if (closed) return Promise.reject(new DezentError('CANCELLED', 'the pipeline is closed'));
      lastId += 1;
      const done = Promise.withResolvers<unknown>();
      const job: Job = { id: lastId, name, input, options, events: Promise.resolve(), failure: undefined, done };
      if (options.urgent === true) waiting.unshift(job);
      else waiting.push(job);
      advance();
      return done.promise as Promise<Out>;
    },
    async barrier() {
      await Promise.all(
        [...threads].map((thread) => {
          lastId += 1;
          const ping = lastId;
          const { promise, resolve } = Promise.withResolvers<void>();
          thread.pings.set(ping, resolve);
          thread.post({ what: 'ping', ping });
          return promise.finally(() => thread.pings.delete(ping));
        }),
      );
    },
    async endIdle() {
      rest();
      await Promise.allSettled(endings);
    },
    async [Symbol.asyncDispose]() {
      closed = true;
      clearTimeout(idle);
      const gone = new DezentError('CANCELLED', 'the pipeline is closed');
      for (const { done } of waiting.splice(0)) done.reject(gone);
      const running = [...threads].flatMap((thread) => [...thread.jobs.values()].map((job) => ({ thread, job })));
      for (const { thread, job } of running) {
        job.failure ??= { error: gone };
        thread.post({ what: 'cancel', job: job.id });
      }
      await Promise.allSettled(running.map(({ job }) => job.done.promise));
      end([...threads]);
      await Promise.allSettled(endings);
    },
  };
}
