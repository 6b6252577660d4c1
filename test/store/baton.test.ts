import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { endBaton, openBaton, passBaton, takeBaton } from '../../src/store/baton.ts';

/** A thread that runs this with takeBaton, passBaton and workerData at hand. */
function thread(code: string, data: unknown): { worker: Worker; message: Promise<unknown> } {
  const source = `
    import { parentPort, workerData } from 'node:worker_threads';
    import { takeBaton, passBaton } from '${new URL('../../src/store/baton.ts', import.meta.url).href}';
    ${code}`;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), { workerData: data });
  const message = new Promise((resolve, reject) => {
    worker.on('message', resolve);
    worker.on('error', reject);
  });
  return { worker, message };
}

test('it goes from 0 on, where each holder says, to the end', () => {
  const baton = openBaton();
  assert.equal(takeBaton(baton), 0);
  passBaton(baton, 0, 5_000_000_000_000);
  assert.equal(takeBaton(baton), 5_000_000_000_000);
  passBaton(baton, 5_000_000_000_000, undefined);
  assert.equal(takeBaton(baton), undefined);
  assert.equal(takeBaton(baton), undefined);
});

test('one at a time holds it: no offset is given twice, none is left out', async () => {
  const baton = openBaton();
  const code = `
    const taken = [];
    for (let at = takeBaton(workerData); at !== undefined; at = takeBaton(workerData)) {
      taken.push(at);
      passBaton(workerData, at, at === 9999 ? undefined : at + 1);
    }
    parentPort.postMessage(taken);`;
  const taken = (await Promise.all([0, 1, 2].map(() => thread(code, baton).message))) as number[][];
  assert.deepEqual(
    taken.flat().sort((a, b) => a - b),
    Array.from({ length: 10_000 }, (_, at) => at),
  );
});

test('where it is ended, those who wait get the end, also when its holder is dead', async () => {
  const baton = openBaton();
  const holder = thread('takeBaton(workerData); parentPort.postMessage(1); setInterval(() => {}, 1000);', baton);
  await holder.message;
  await holder.worker.terminate();
  const waiting = thread('parentPort.postMessage(takeBaton(workerData) ?? "end");', baton);
  endBaton(baton);
  assert.equal(await waiting.message, 'end');
});

test('a holder that passes it on after it was ended ends it too', () => {
  const baton = openBaton();
  assert.equal(takeBaton(baton), 0);
  endBaton(baton);
  passBaton(baton, 0, 7);
  assert.equal(takeBaton(baton), undefined);
});
