// The demo is the product's first impression: it must hold what it promises and leave no trace, whatever happens.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { newDir, runCli, spawnCli } from './cli-process.ts';

/** Command lines of processes that work in this directory. */
function processesIn(dir: string): string[] {
  return execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(dir) && !line.includes('ps -eo'));
}

test('three nodes, a stopped holder, everything identical, nothing left', async (t) => {
  const top = newDir(t, 'demo-test');
  const { code, stdout } = await runCli(['demo', '--json'], { env: { TMPDIR: top, HOME: top } });
  assert.equal(code, 0, stdout);
  const value = JSON.parse(stdout) as Record<string, unknown>;
  assert.equal(value['identical'], true);
  assert.ok(Number(value['files']) >= 20 && Number(value['stubbed']) >= 15);
  assert.equal(value['restored'], value['stubbed']);
  assert.ok(Number(value['freedBytes']) >= 200 * 2 ** 20, `${String(value['freedBytes'])} bytes freed`);
  assert.match(String(value['stoppedHolder']), /^12D3KooW/);
  assert.deepEqual(readdirSync(top), []);
  assert.deepEqual(processesIn(top), []);
});

test('interrupted, it says so and leaves nothing', async (t) => {
  const top = newDir(t, 'demo-test');
  mkdirSync(join(top, 'tmp'));
  const child = spawnCli(['demo'], { env: { TMPDIR: join(top, 'tmp'), HOME: top } });
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  let stdout = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
    if (stdout.includes('found each other')) child.kill('SIGINT');
  });
  const [code] = (await once(child, 'close')) as [number];
  assert.equal(code, 1, stdout);
  assert.match(stderr, /interrupted/);
  assert.deepEqual(readdirSync(join(top, 'tmp')), []);
  assert.deepEqual(processesIn(top), []);
});
