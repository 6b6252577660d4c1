// What is known of sealed content: by its hash the newest root, by a root what belongs to that very root.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Level } from 'level';
import { openContentTable } from '../../../src/node/files/content-index.ts';
import { blockIdOf } from '../../../src/store/block.ts';

test('content that was sealed twice: each root keeps its own blocks', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'dezent-contents-'));
  const db = new Level(directory);
  const table = openContentTable(db);
  const contentHash = Uint8Array.of(7, 7);
  const [data, first, second] = [1, 2, 3].map((byte) => blockIdOf(Uint8Array.of(byte))) as [never, never, never];
  const under = (block: typeof first, offset: number) => ({
    contentHash,
    average: 1,
    sizeBytes: 2,
    root: { block, offset, length: 9 },
    blocks: [data, block],
  });
  await table.addContents([under(first, 0)]);
  await table.addContents([under(second, 5)]);
  assert.deepEqual(await table.contentAt({ block: first, offset: 0, length: 9 }), under(first, 0));
  assert.deepEqual(await table.contentAt({ block: second, offset: 5, length: 9 }), under(second, 5));
  assert.deepEqual(await table.content(contentHash), under(second, 5));
  assert.equal(await table.contentAt({ block: second, offset: 0, length: 9 }), undefined);
  await db.close();
  await rm(directory, { recursive: true, force: true });
});
