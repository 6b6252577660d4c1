// A process for disk-crash.test.ts to kill: puts and deletes blocks for ever, alone and in batches, and writes a line to its output
// once each is acknowledged. Run: node disk-crash-child.ts DIR
import { writeSync } from 'node:fs';
import { openDiskStore } from '../../src/store/disk-store.ts';
import { randomBlock } from '../suites/block-store.ts';

const [dir] = process.argv.slice(2);
if (dir === undefined) throw new Error('which directory?');
const store = await openDiskStore(dir, { packBytes: 300_000 });
writeSync(1, 'ready\n');

async function work(): Promise<never> {
  for (;;) {
    const blocks = Array.from({ length: 1 + Math.floor(Math.random() * 5) }, () =>
      randomBlock(Math.floor(Math.random() * 20_000)),
    );
    await store.putMany(blocks);
    for (const { id } of blocks) writeSync(1, `put ${id}\n`);
    const [gone] = blocks;
    if (gone === undefined || Math.random() < 0.4) continue;
    writeSync(1, `deleting ${gone.id}\n`);
    await store.delete(gone.id);
    writeSync(1, `deleted ${gone.id}\n`);
  }
}

await Promise.all([work(), work(), work()]);
