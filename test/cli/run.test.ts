// The node as a process: how it starts, ends, and what it bears.
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test, type TestContext } from 'node:test';
import { newDir, runCli, spawnCli, type Ended } from './cli-process.ts';

interface Device {
  home: string;
  folder: string;
  cli(...line: string[]): Promise<Ended>;
}

async function newDevice(context: TestContext, port = 0): Promise<Device> {
  const top = newDir(context, 'run');
  const [home, folder] = [join(top, 'home'), join(top, 'files')];
  mkdirSync(folder);
  const cli = (...line: string[]): Promise<Ended> => runCli([...line, '--json', '--home', home]);
  const made = await cli('init', folder, '--port', String(port), '--listen', '127.0.0.1', '--machine', 'run-test');
  assert.equal(made.code, 0, made.stdout);
  return { home, folder, cli };
}

interface Running {
  child: ChildProcess;
  ready: { port: number; deviceId: string };
  ended: Promise<number | null>;
}

async function start(context: TestContext, { home }: Device): Promise<Running> {
  const child = spawnCli(['run', '--json', '--home', home]);
  context.after(() => child.kill('SIGKILL'));
  child.stderr?.resume();
  const ended = once(child, 'exit').then(([code]) => code as number | null);
  const [line] = (await once(createInterface({ input: child.stdout ?? assert.fail('no pipe') }), 'line')) as [string];
  const ready = JSON.parse(line) as { event: string; port: number; deviceId: string };
  assert.equal(ready.event, 'ready');
  return { child, ready, ended };
}

test('init, run, status, stop: one life of a node', async (t) => {
  const device = await newDevice(t);
  const { ready, ended } = await start(t, device);
  const status = JSON.parse((await device.cli('status')).stdout) as { deviceId: string; port: number; folder: string };
  assert.deepEqual([status.deviceId, status.port, status.folder], [ready.deviceId, ready.port, device.folder]);
  assert.ok(ready.port > 0);
  assert.equal(statSync(join(device.home, 'control.sock')).mode & 0o777, 0o600);
  assert.deepEqual(await device.cli('stop'), { code: 0, stdout: '{"ok":true}\n', stderr: '' });
  assert.equal(await ended, 0);
  assert.equal((await device.cli('status')).code, 5);
  assert.match(readFileSync(join(device.home, 'log/dezent.log'), 'utf8'), /"stopped"/);
});

test('SIGTERM and SIGINT end it cleanly; after SIGKILL it starts again', async (t) => {
  const device = await newDevice(t);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const { child, ended } = await start(t, device);
    child.kill(signal);
    assert.equal(await ended, 0);
  }
  const killed = await start(t, device);
  killed.child.kill('SIGKILL');
  await killed.ended;
  assert.ok(existsSync(join(device.home, 'control.sock')));
  assert.equal((await device.cli('status')).code, 5);
  await start(t, device);
  assert.equal((await device.cli('status')).code, 0);
});

test('one home has one node, one port one listener', async (t) => {
  const device = await newDevice(t);
  await start(t, device);
  const second = await device.cli('run');
  assert.equal(second.code, 1);
  assert.match(second.stdout, /"ALREADY_RUNNING"/);
  assert.equal((await device.cli('status')).code, 0);

  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  t.after(() => taken.close());
  const other = await newDevice(t, (taken.address() as AddressInfo).port);
  const refused = await other.cli('run');
  assert.equal(refused.code, 1);
  assert.match(refused.stdout, /"PORT_IN_USE".*listen\.port/);
  assert.equal((await other.cli('config', 'set', 'listen.port', '0')).code, 0);
  await start(t, other);
});

test('readers that leave do not end the node', async (t) => {
  const device = await newDevice(t);
  const { child, ended } = await start(t, device);
  child.stdout?.destroy();
  child.stderr?.destroy();
  for (let index = 0; index < 20; index += 1) writeFileSync(join(device.folder, `file-${index}`), `content ${index}`);
  assert.equal((await device.cli('add', device.folder, '--no-wait')).code, 0);
  assert.equal((await device.cli('status')).code, 0);
  assert.equal((await device.cli('stop')).code, 0);
  assert.equal(await ended, 0);
});

test('events of a running node reach its reader', async (t) => {
  const device = await newDevice(t);
  const { child } = await start(t, device);
  const seen = Promise.withResolvers<void>();
  createInterface({ input: child.stdout ?? assert.fail('no pipe') }).on('line', (line) => {
    const event = JSON.parse(line) as { event: string; path?: string };
    if (event.event === 'file' && event.path === 'note.txt') seen.resolve();
  });
  writeFileSync(join(device.folder, 'note.txt'), 'x'.repeat(10_000));
  await device.cli('add', join(device.folder, 'note.txt'), '--no-wait');
  await seen.promise;
});
