// A damaged value is left out; the others are read.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Level } from 'level';
import { readSound, soundValue } from '../../../src/node/home/sound-table.ts';
import { openTable } from '../../../src/node/home/state.ts';

test('sound values are read, damaged ones left out', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'dezent-sound-'));
  const db = new Level(directory);
  const table = openTable<{ n: number }>(db, 't');
  await table.put('a', { n: 1 });
  await table.put('b', { n: 2 });
  await table.put<string, Uint8Array>('b', Uint8Array.of(1, 2, 3, 4, 5), { valueEncoding: 'view' });
  assert.deepEqual(await readSound(table), new Map([['a', { n: 1 }]]));
  assert.equal(soundValue(table, 'b'), undefined);
  assert.equal(soundValue(table, 'absent'), undefined);
  await db.close();
  await rm(directory, { recursive: true, force: true });
});
