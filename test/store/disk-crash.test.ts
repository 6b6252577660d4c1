// What the disk store has acknowledged is there after its process was killed at any moment, with and without its index.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { blockIdOf, type BlockId } from '../../src/store/block.ts';
import { openDiskStore, type DiskStore } from '../../src/store/disk-store.ts';
import { isDezentError } from '../../src/errors.ts';

const CHILD: string = join(import.meta.dirname, 'disk-crash-child.ts');

interface Said {
  put: Set<BlockId>;
  deleting: Set<BlockId>;
  deleted: Set<BlockId>;
}

/** Runs a child on the directory and kills it after it has said so many lines. */
async function killedAfter(dir: string, lines: number, said: Said): Promise<void> {
  const child = spawn(process.execPath, [CHILD, dir], { stdio: ['ignore', 'pipe', 'inherit'] });
  for await (const line of createInterface({ input: child.stdout })) {
    const [what, id] = line.split(' ') as [keyof Said | 'ready', BlockId];
    if (what !== 'ready') said[what].add(id);
    if (--lines === 0) child.kill('SIGKILL');
  }
}

async function check(store: DiskStore, said: Said): Promise<void> {
  for (const id of said.put) {
    const bytes = await store.get(id);
    if (said.deleted.has(id)) assert.equal(bytes, undefined, `${id} was deleted`);
    else if (bytes === undefined) assert.ok(said.deleting.has(id), `${id} is lost`);
    else assert.equal(blockIdOf(bytes), id);
  }
}

test('kill -9 at any moment loses nothing that was acknowledged', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-crash-'));
  t.after(() => rm(dir, { recursive: true }));
  const said: Said = { put: new Set(), deleting: new Set(), deleted: new Set() };
  for (let round = 0; round < 6; round++) {
    await killedAfter(dir, 20 + randomInt(400), said);
    if (round % 2 === 1) await rm(join(dir, 'index'), { recursive: true });
    const store = await openDiskStore(dir);
    await check(store, said);
    assert.deepEqual((await store.verifyAll()).bad, []);
    await store[Symbol.asyncDispose]();
  }
});

test('a second process on the same store is refused, until the first has ended', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-crash-'));
  t.after(() => rm(dir, { recursive: true }));
  const child = spawn(process.execPath, [CHILD, dir], { stdio: ['ignore', 'pipe', 'inherit'] });
  for await (const line of createInterface({ input: child.stdout })) {
    if (line !== 'ready') continue;
    await assert.rejects(openDiskStore(dir), (error) => isDezentError(error, 'ALREADY_RUNNING'));
    child.kill('SIGKILL');
  }
  const store = await openDiskStore(dir);
  await assert.rejects(openDiskStore(dir), (error) => isDezentError(error, 'ALREADY_RUNNING'));
  await store[Symbol.asyncDispose]();
});
