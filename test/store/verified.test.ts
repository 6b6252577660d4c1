import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BlockId } from '../../src/store/block.ts';
import { openMemoryStore } from '../../src/store/memory-store.ts';
import { verified } from '../../src/store/verified.ts';
import { isDezentError } from '../../src/errors.ts';
import { blockStoreSuite, randomBlock } from '../suites/block-store.ts';

const never = (): void => assert.fail('no block is bad here');
const isBadBlock = (error: unknown): boolean => isDezentError(error, 'BAD_BLOCK');

blockStoreSuite('verified store', async () => ({ store: verified(openMemoryStore(), never) }));

test('wrong bytes from behind are reported and thrown, never given and never absence', async () => {
  const inner = openMemoryStore();
  const [block, other] = [randomBlock(100), randomBlock(100)];
  await inner.put(block.id, other.bytes);
  const bad: BlockId[] = [];
  const store = verified(inner, (id) => bad.push(id));
  await assert.rejects(store.get(block.id), isBadBlock);
  assert.deepEqual(bad, [block.id]);
});

test('wrong bytes are not put, alone or among others', async () => {
  const store = verified(openMemoryStore(), never);
  const [block, other] = [randomBlock(100), randomBlock(100)];
  await assert.rejects(store.put(block.id, other.bytes), isBadBlock);
  await assert.rejects(store.putMany([other, { id: block.id, bytes: other.bytes }]), isBadBlock);
  assert.equal(await store.has(block.id), false);
});
