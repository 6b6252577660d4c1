// The thread of thread-pool.test.ts.
import { openSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { DezentError, type ErrorCode } from '../../src/errors.ts';
import { serveJobs, type Given, type JobContext } from '../../src/store/thread-jobs.ts';

const given = (value: unknown): Given => ({ value, transfer: [] });

if (parentPort === null) throw new Error('this is a thread of a test');
serveJobs(
  parentPort,
  {
    double: (value: number) => given(value * 2),
    fail(code: ErrorCode) {
      throw new DezentError(code, 'told to');
    },
    open: (path: string) => given(openSync(path, 'r')),
    bug() {
      throw new TypeError('a bug');
    },
    async count(to: number, context: JobContext) {
      for (let at = 0; at < to; at += 1) {
        context.event(at);
        await context.turn();
      }
      return given(to);
    },
    /** Synchronous for so many ms, then an event. */
    async busy(ms: number, context: JobContext) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
      context.event('done');
      await context.turn();
      return given(undefined);
    },
    die: () => process.exit(1),
  },
  {},
);
