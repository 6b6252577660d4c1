// A process for sealers-disturbed.test.ts to kill: seals files for ever, two at a time, and writes "SEED MANIFEST" once each is
// acknowledged. Run: node sealers-child.ts DIR
import { writeSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openDiskStore } from '../../src/store/disk-store.ts';
import { openPipelineThreads } from '../../src/store/pipeline-threads.ts';
import { openSealers } from '../../src/store/sealers.ts';
import { testBytes, TEST_KEYS } from '../suites/content.ts';
import { openTestIndex } from '../suites/pipeline-of.ts';

const [dir] = process.argv.slice(2);
if (dir === undefined) throw new Error('which directory?');
const keys = (): typeof TEST_KEYS => TEST_KEYS;
const store = await openDiskStore(join(dir, 'store'), { packBytes: 3_000_000 });
const threads = openPipelineThreads({ store, keys }, { threads: 2 });
const sealers = openSealers({ lanes: store.lanes, store, keys, threads, index: openTestIndex() });

async function work(name: string): Promise<never> {
  for (;;) {
    const seed = Math.floor(Math.random() * 1e9);
    const bytes = testBytes(40_000 + Math.floor(Math.random() * 3_000_000), seed);
    const path = join(dir as string, name);
    await writeFile(path, bytes);
    const { manifest } = await sealers.seal({ path, sizeBytes: bytes.length });
    writeSync(1, `${seed} ${Buffer.from(manifest).toString('base64')}\n`);
  }
}

await Promise.all([work('one'), work('two')]);
