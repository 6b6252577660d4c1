import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openMemoryStore } from '../../src/store/memory-store.ts';
import { isDezentError } from '../../src/errors.ts';
import { blockStoreSuite, randomBlock } from '../suites/block-store.ts';

blockStoreSuite('memory store', async () => ({ store: openMemoryStore() }));

test('a full memory store refuses and goes on once there is room', async () => {
  const store = openMemoryStore({ maxBytes: 1000 });
  const [first, second] = [randomBlock(600), randomBlock(600)];
  await store.put(first.id, first.bytes);
  await assert.rejects(store.put(second.id, second.bytes), (error) => isDezentError(error, 'DISK_FULL'));
  await store.delete(first.id);
  await store.put(second.id, second.bytes);
  assert.equal((await store.space()).freeBytes, 400);
});
