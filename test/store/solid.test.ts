import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { formatRoot, openRoot, sealSolid } from '../../src/store/solid.ts';
import { flipEach, OTHER_KEYS, testBytes, TEST_KEYS, withCode } from '../suites/content.ts';

test('openRoot gives each part that sealSolid was given', async () => {
  const parts = fc.array(fc.uint8Array({ maxLength: 500 }), { maxLength: 30 });
  await fc.assert(
    fc.asyncProperty(parts, async (all) => {
      const { block, roots } = await sealSolid(all, TEST_KEYS);
      assert.deepEqual(
        roots.map((root) => Buffer.from(openRoot(root, block.bytes, TEST_KEYS))),
        all.map((part) => Buffer.from(part)),
      );
      assert.ok(roots.every((root) => root.block === block.id));
    }),
  );
});

test('a root that points beyond its block is BAD_MANIFEST', async () => {
  const { block, roots } = await sealSolid([testBytes(100, 1), testBytes(50, 2)], TEST_KEYS);
  const last = roots[1];
  assert.ok(last);
  for (const wrong of [{ length: 51 }, { offset: 101 }, { offset: 4_000_000, length: 0 }]) {
    assert.throws(() => openRoot({ ...last, ...wrong }, block.bytes, TEST_KEYS), withCode('BAD_MANIFEST'));
  }
});

test('an altered block, or that of another owner, opens no root', async () => {
  const { block, roots } = await sealSolid([testBytes(100, 1)], TEST_KEYS);
  const [root] = roots;
  assert.ok(root);
  flipEach(block.bytes, (altered, at) => {
    assert.throws(
      () => openRoot(root, altered, TEST_KEYS),
      withCode(at === 0 ? 'NEWER_VERSION' : 'BAD_BLOCK', 'BAD_BLOCK'),
    );
  });
  assert.throws(() => openRoot(root, block.bytes, OTHER_KEYS), withCode('BAD_BLOCK'));
});

test('a root as text is block, offset and length', async () => {
  const { roots } = await sealSolid([testBytes(5, 1), testBytes(9, 2)], TEST_KEYS);
  assert.match(formatRoot(roots[1] as (typeof roots)[0]), /^bafkr4i[a-z2-7]{52} 5 9$/);
});
