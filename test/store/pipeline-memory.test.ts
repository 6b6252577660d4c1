// Memory of the pipeline's threads: bounded by constants, whatever the size of the file. Measured in a process of its own, by the system.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

const MIB: number = 1024 * 1024;
const CHILD: string = join(import.meta.dirname, 'pipeline-memory-child.ts');
/** The bound for a node that seals with two threads. */
const MAX_RSS_MIB = 320;

test('sealing and opening a file of 600 MiB takes no more memory than is allowed', async (t) => {
  if (process.platform !== 'linux') {
    t.diagnostic('only Linux tells the most that a process had');
    return;
  }
  const dir = await mkdtemp(join(tmpdir(), 'dezent-memory-'));
  t.after(() => rm(dir, { recursive: true }));
  const file = await open(join(dir, 'file'), 'w');
  // Random bytes here and there in zeros: every kind of chunk, and little to write.
  for (let at = 0; at < 600; at += 4)
    await file.write(Buffer.alloc(MIB, crypto.getRandomValues(Buffer.alloc(65_536))), 0, MIB, at * MIB);
  await file.truncate(600 * MIB);
  await file.close();
  const { stdout } = await promisify(execFile)(process.execPath, [CHILD, dir]);
  const { peakMib, same } = JSON.parse(stdout) as { peakMib: number; same: boolean };
  assert.ok(same);
  assert.ok(peakMib < MAX_RSS_MIB, `${peakMib} MiB`);
});
