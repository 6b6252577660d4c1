import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  newOperationId,
  openJournal,
  type OffloadRecord,
  type RestoreRecord,
} from '../../../src/node/offload/journal.ts';
import { openState } from '../../../src/node/home/state.ts';
import { blockIdOf } from '../../../src/store/block.ts';
import { testBytes } from '../../suites/content.ts';

const ROOT = { block: blockIdOf(testBytes(10, 1)), offset: 0, length: 10 };

const offload = (more: Partial<OffloadRecord> = {}): OffloadRecord => ({
  v: 1,
  op: 'offload',
  id: newOperationId(),
  step: 'intent',
  path: 'a',
  name: 'a',
  fileId: new Uint8Array(testBytes(16, 2)),
  root: ROOT,
  segment: { id: ROOT.block, seq: 1 },
  seen: '1:2:3:4',
  dueAt: 5,
  ...more,
});

const restore: RestoreRecord = {
  v: 1,
  op: 'restore',
  id: newOperationId(),
  tmp: 't',
  target: 'x',
  stub: 's',
  stubSeen: '',
};

test('what is written is there after a restart, what is removed is not', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-journal-'));
  const first = offload();
  const second = offload({ fileId: new Uint8Array(testBytes(16, 3)), step: 'stubbed' });
  {
    const db = await openState(dir);
    const journal = await openJournal(db, () => assert.fail('a record is damaged'));
    for (const record of [first, second, restore]) await journal.write(record);
    await journal.write({ ...first, step: 'stubbed' });
    await journal.remove(second.id);
    await journal.remove('never there');
    await db.close();
  }
  const db = await openState(dir);
  const journal = await openJournal(db, () => assert.fail('a record is damaged'));
  const records = await Array.fromAsync(journal.all());
  assert.deepEqual(records.map(({ id }) => id).sort(), [first.id, restore.id].sort());
  assert.deepEqual(
    [...journal.offloads()].map(({ id, step }) => [id, step]),
    [[first.id, 'stubbed']],
  );
  assert.equal(journal.quarantined(first.fileId, ROOT)?.id, first.id);
  assert.equal(journal.quarantined(second.fileId, ROOT), undefined);
  assert.equal(journal.quarantined(first.fileId, { ...ROOT, offset: 1 }), undefined);
  await db.close();
  await rm(dir, { recursive: true });
});

test('a later operation on the same content is not forgotten with an earlier one', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-journal-'));
  const db = await openState(dir);
  const journal = await openJournal(db, () => assert.fail('a record is damaged'));
  const [first, second] = [offload(), offload()];
  await journal.write(first);
  await journal.write(second);
  await journal.remove(first.id);
  assert.equal(journal.quarantined(first.fileId, ROOT)?.id, second.id);
  assert.deepEqual(
    [...journal.offloads()].map(({ id }) => id),
    [second.id],
  );
  await journal.remove(second.id);
  assert.deepEqual([...journal.offloads()], []);
  await db.close();
  await rm(dir, { recursive: true });
});

test('both of two operations on the same content are finished', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-journal-'));
  const db = await openState(dir);
  const journal = await openJournal(db, () => assert.fail('a record is damaged'));
  const [first, second] = [offload(), offload()];
  await journal.write(first);
  await journal.write(second);
  assert.deepEqual([...journal.offloads()].map(({ id }) => id).sort(), [first.id, second.id].sort());
  await journal.remove(second.id);
  assert.equal(journal.quarantined(first.fileId, ROOT)?.id, first.id);
  await db.close();
  await rm(dir, { recursive: true });
});
