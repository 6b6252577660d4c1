// The pool on threads that do as they are told: order, errors, cancelling, events, death.
import assert from 'node:assert/strict';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import { DezentError, isDezentError } from '../../src/errors.ts';
import { errorFromData, errorToData } from '../../src/store/thread-messages.ts';
import { againWhenLost, isThreadLost, openThreadPool, type PoolNeeds } from '../../src/store/thread-pool.ts';
import { withCode } from '../suites/content.ts';

const THREAD: URL = new URL('thread-pool-thread.ts', import.meta.url);

function openTestPool(t: TestContext, settings: { threads: number; idleMs?: number }, needs: Partial<PoolNeeds> = {}) {
  const workers: Worker[] = [];
  const ended: unknown[] = [];
  const pool = openThreadPool(
    {
      start() {
        const worker = new Worker(THREAD);
        workers.push(worker);
        return worker;
      },
      prepare: async () => undefined,
      ended: (thread) => void ended.push(thread),
      ...needs,
    },
    settings,
  );
  t.after(() => pool[Symbol.asyncDispose]());
  return { pool, workers, ended };
}

test('jobs give back what they give, on as many threads as there is work for', async (t) => {
  const { pool, workers } = openTestPool(t, { threads: 3 });
  assert.equal(workers.length, 0);
  assert.equal(await pool.run('double', 21), 42);
  assert.equal(workers.length, 1);
  const all = await Promise.all(Array.from({ length: 50 }, (_, at) => pool.run<number>('double', at)));
  assert.deepEqual(
    all,
    Array.from({ length: 50 }, (_, at) => at * 2),
  );
  assert.equal(workers.length, 3);
});

test('idle threads end when asked, busy ones go on', async (t) => {
  const { pool, workers, ended } = openTestPool(t, { threads: 2 });
  const gate = Promise.withResolvers<void>();
  const counted = pool.run('count', 3, { onEvent: () => gate.promise });
  assert.equal(await pool.run('double', 1), 2);
  assert.equal(workers.length, 2);
  await pool.endIdle();
  assert.equal(ended.length, 1);
  gate.resolve();
  await counted;
  await pool.endIdle();
  assert.equal(ended.length, 2);
  assert.equal(await pool.run('double', 2), 4);
});

test('errors cross with their code', async (t) => {
  const { pool } = openTestPool(t, { threads: 1 });
  await assert.rejects(pool.run('fail', 'DISK_FULL'), withCode('DISK_FULL'));
  await assert.rejects(pool.run('open', '/no/such/file'), { code: 'ENOENT', syscall: 'open', path: '/no/such/file' });
  await assert.rejects(pool.run('bug', undefined), withCode('INTERNAL'));
  await assert.rejects(pool.run('no such job', undefined), withCode('INTERNAL'));
  assert.equal(await pool.run('double', 1), 2);
});

test('error data is the inverse of errors', () => {
  const own = new DezentError('CHANGED', 'it changed', { hint: 'again' });
  const back = errorFromData(structuredClone(errorToData(own)));
  assert.ok(isDezentError(back, 'CHANGED') && back.message === 'it changed' && back.hint === 'again');
  assert.ok(isDezentError(errorFromData(errorToData('just a text')), 'INTERNAL'));
});

test('events are dealt with before the job is done, and hold it up when too many are not', async (t) => {
  const { pool } = openTestPool(t, { threads: 1 });
  const seen: number[] = [];
  const gate = Promise.withResolvers<void>();
  const job = pool.run('count', 10, {
    onEvent: async (value: number) => {
      seen.push(value);
      await gate.promise;
    },
  });
  while (seen.length < 4) await nextTurn();
  // The thread goes on with other jobs meanwhile.
  assert.equal(await pool.run('double', 4), 8);
  assert.equal(seen.length, 4);
  gate.resolve();
  assert.equal(await job, 10);
  assert.equal(seen.length, 10);
});

test('an event that is not taken ends the job with its error', async (t) => {
  const { pool } = openTestPool(t, { threads: 1 });
  const broken = new Error('broken');
  const job = pool.run('count', 1e9, { onEvent: () => Promise.reject(broken) });
  await assert.rejects(job, (error) => error === broken);
});

test('cancelling: before it began, while it waits, while it runs', async (t) => {
  const { pool } = openTestPool(t, { threads: 1 });
  const reason = new Error('enough');
  await assert.rejects(pool.run('double', 1, { signal: AbortSignal.abort(reason) }), reason);
  const stop = new AbortController();
  const running = Array.from({ length: 6 }, () => pool.run('count', 1e9, { signal: stop.signal }));
  const ended = Promise.all(running.map((job) => assert.rejects(job, (error) => error === reason)));
  assert.equal(await pool.run('double', 2, { urgent: true }), 4);
  stop.abort(reason);
  await ended;
  assert.equal(await pool.run('double', 3), 6);
});

test('a thread that dies loses its jobs, which may run again on another', async (t) => {
  const { pool, workers, ended } = openTestPool(t, { threads: 1 });
  const lost = pool.run('count', 1e9);
  const barrier = pool.run('double', 1).then(() => pool.barrier());
  await assert.rejects(pool.run('die', undefined), isThreadLost);
  await assert.rejects(lost, isThreadLost);
  await barrier.catch(() => undefined);
  assert.equal(ended.length, 1);
  let tries = 0;
  const again = await againWhenLost(() => pool.run(tries++ === 0 ? 'die' : 'double', 4));
  assert.deepEqual([again, tries], [8, 2]);
  assert.equal(workers.length, 3);
  await assert.rejects(
    againWhenLost(() => pool.run('die', undefined)),
    isThreadLost,
  );
});

test('where a thread cannot be given what it needs, the job has the error', async (t) => {
  let fails = true;
  const { pool } = openTestPool(t, { threads: 1 }, { prepare: async () => assert.ok(!fails, 'no room') });
  await assert.rejects(pool.run('double', 1), /no room/);
  fails = false;
  assert.equal(await pool.run('double', 1), 2);
});

test('after a barrier all has been told that was done before it', async (t) => {
  const { pool } = openTestPool(t, { threads: 2 });
  let events = 0;
  const onEvent = async (): Promise<void> => void (events += 1);
  const jobs = [pool.run('busy', 20, { onEvent }), pool.run('busy', 20, { onEvent })];
  await nextTurn();
  await pool.barrier();
  assert.equal(events, 2);
  await Promise.all(jobs);
});

test('closing ends jobs that wait and run; later ones are refused', async (t) => {
  const { pool } = openTestPool(t, { threads: 1 });
  const jobs = Array.from({ length: 5 }, () => pool.run('count', 1e9));
  const ended = Promise.all(jobs.map((job) => assert.rejects(job, withCode('CANCELLED'))));
  await pool[Symbol.asyncDispose]();
  await ended;
  await assert.rejects(pool.run('double', 1), withCode('CANCELLED'));
});
