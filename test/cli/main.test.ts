import assert from 'node:assert/strict';
import { once } from 'node:events';
import { execFileSync } from 'node:child_process';
import { mkdirSync, realpathSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { DezentError } from '../../src/errors.ts';
import type { CallContext, NodeApi, StatusValue } from '../../src/node/control/control-api.ts';
import { newDir, runCli, serveFake, spawnCli } from './cli-process.ts';

const STATUS: StatusValue = {
  deviceId: '12D3KooWdevice',
  ownerId: 'bowner',
  groupId: 'bgroup',
  folder: '/home/a/files',
  port: 8080,
  uptimeMs: 3_725_000,
  peers: { connected: 1, known: 2 },
  files: { total: 3, working: 0, waiting: 1, protected: 0, stubbed: 2, restored: 0, failed: 0 },
  store: { usedBytes: 1024, quotaBytes: 2 ** 30 },
  heldForOthersBytes: 512,
  freedBytes: 5_000_000,
  transfers: [
    { id: 't1', path: 'a.bin', direction: 'upload', doneBytes: 1, totalBytes: 2, rateBytesPerS: 3, peer: 'laptop' },
  ],
  warnings: ['peer laptop sent \u001b[2Jwrong bytes'],
};

test('status: one JSON value on one line, or a readable screen without control characters', async (t) => {
  const home = newDir(t);
  await serveFake(t, home, { status: async () => STATUS });
  const json = await runCli(['--json', 'status', '--home', home]);
  assert.equal(json.code, 0);
  assert.equal(json.stdout.trimEnd().includes('\n'), false);
  assert.deepEqual(JSON.parse(json.stdout), STATUS);
  assert.equal(json.stderr, '');
  const human = await runCli(['status'], { env: { DEZENT_HOME: home } });
  assert.match(human.stdout, /1 of 2 connected/);
  assert.match(human.stdout, /3: 1 waiting, 2 stubbed/);
  assert.match(human.stdout, /up 1h 2m/);
  assert.match(human.stdout, /wrong bytes/);
  assert.ok(!human.stdout.includes('\u001b'));
});

test('global options stand anywhere on the line', async (t) => {
  const home = newDir(t);
  await serveFake(t, home, { peers: async () => [] });
  for (const line of [
    ['--home', home, '--json', 'peers'],
    ['peers', '--json', `--home=${home}`],
    ['--json', 'peers', '--home', home, '--quiet'],
  ]) {
    assert.deepEqual(await runCli(line), { code: 0, stdout: '[]\n', stderr: '' });
  }
});

test('wrong usage exits 2, in words or as JSON', async (t) => {
  const home = newDir(t);
  const bad = [
    ['nonsense'],
    ['status', '--nonsense'],
    ['add'],
    ['open', 'a', 'b'],
    ['restore'],
    ['restore', '--all', 'x'],
    ['restore', 'x', '--at', 'yesterday'],
    ['restore', 'x', '--version', '0'],
    ['invite', '--uses', 'many'],
    ['invite', '--ttl', '1fortnight'],
    ['add', 'x', '--timeout', '0'],
    ['service'],
    ['config', 'nonsense'],
    ['logs', '--last', '-1'],
    ['--home'],
    [],
  ];
  const ran = await Promise.all(bad.map((line) => runCli([...line, '--json'], { env: { DEZENT_HOME: home } })));
  for (const [index, { code, stdout, stderr }] of ran.entries()) {
    assert.equal(code, 2, `${bad[index]?.join(' ')}: ${stdout}`);
    assert.equal((JSON.parse(stdout) as { error: { code: string } }).error.code, 'USAGE');
    assert.equal(stderr, '');
  }
  const human = await runCli(['statsu']);
  assert.equal(human.code, 2);
  assert.equal(human.stdout, '');
  assert.equal(human.stderr, "dezent: unknown command 'statsu'\n  Did you mean status?\n");
});

test('every command that talks to a node exits 5 without one', async (t) => {
  const home = newDir(t);
  const lines = [
    ['status'],
    ['stop'],
    ['add', 'x'],
    ['free', 'x'],
    ['open', 'x.f'],
    ['restore', '--all'],
    ['ls'],
    ['whereis', 'x'],
    ['why', 'x'],
    ['peers'],
    ['invite'],
    ['verify'],
    ['config'],
    ['logs'],
  ];
  const ran = await Promise.all(lines.map((line) => runCli([...line, '--json', '--home', home])));
  for (const [index, { code, stdout }] of ran.entries()) {
    assert.equal(code, 5, lines[index]?.join(' '));
    assert.equal((JSON.parse(stdout) as { error: { code: string } }).error.code, 'NOT_RUNNING');
  }
});

test('every command has help with an example', async () => {
  const names = [
    'demo',
    'init',
    'run',
    'stop',
    'status',
    'add',
    'upload',
    'free',
    'open',
    'restore',
    'ls',
    'list',
    'whereis',
    'why',
    'peers',
    'invite',
    'verify',
    'config',
    'logs',
    'service',
    'service install',
    'config set',
  ];
  const ran = await Promise.all(names.map((name) => runCli([...name.split(' '), '--help'])));
  for (const [index, { code, stdout, stderr }] of ran.entries()) {
    assert.equal(code, 0, names[index]);
    assert.match(stdout, /Examples?:\n {2}\$ (?:sudo )?dezent/, names[index]);
    assert.equal(stderr, '');
  }
  const top = await runCli(['--help']);
  assert.equal(top.code, 0);
  for (const name of names.filter((each) => !each.includes(' '))) assert.ok(top.stdout.includes(name), name);
  assert.match((await runCli(['--version'])).stdout, /^\d+\.\d+\.\d+\n$/);
});

test('an error of the node keeps its words and gives its exit code', async (t) => {
  const home = newDir(t);
  const fail = (code: 'UNSAFE' | 'UNREACHABLE' | 'NAME_TAKEN') => () =>
    Promise.reject(new DezentError(code, 'one \u001b[1m copy', { hint: 'start it' }));
  await serveFake(t, home, { free: fail('UNSAFE'), open: fail('UNREACHABLE'), restore: fail('NAME_TAKEN') });
  const cases: [string[], number][] = [
    [['free', 'x'], 3],
    [['open', 'x'], 4],
    [['restore', 'x'], 1],
  ];
  for (const [line, exit] of cases) {
    const { code, stderr, stdout } = await runCli([...line, '--home', home]);
    assert.equal(code, exit);
    assert.equal(stdout, '');
    assert.equal(stderr, 'dezent: one \\u{1b}[1m copy\n  start it\n');
  }
});

test('paths are taken from the working directory, odd names and dashes included', async (t) => {
  const home = newDir(t);
  const asked: unknown[] = [];
  const note = (name: string, value: unknown) => async (request: unknown) => {
    asked.push([name, request]);
    return value as never;
  };
  await serveFake(t, home, {
    add: note('add', []),
    free: note('free', []),
    restore: note('restore', []),
    ls: note('ls', []),
    verify: note('verify', { checkedBlocks: 0, badBlocks: 0, repaired: 0 }),
  });
  const cwd = realpathSync(home);
  const run = async (...line: string[]) => assert.equal((await runCli(['--home', home, ...line], { cwd })).code, 0);
  await run('add', '--no-wait', '--', '-x y', '--json', 'ü/../ö');
  await run('upload', 'a', '--timeout', '1m30s');
  await run('free', '--', '-f');
  await run('restore', 'a', '--to', 'out', '--at', '2026-01-31', '--version', '3');
  await run('list', 'sub', '--find', 'Be');
  await run('verify', '--remote');
  assert.deepEqual(asked, [
    ['add', { paths: ['-x y', '--json', 'ö'].map((name) => join(cwd, name)), wait: false }],
    ['add', { paths: [join(cwd, 'a')], wait: true, timeoutMs: 90_000 }],
    ['free', { paths: [join(cwd, '-f')] }],
    [
      'restore',
      { paths: [join(cwd, 'a')], all: false, to: join(cwd, 'out'), at: '2026-01-31T00:00:00.000Z', version: 3 },
    ],
    ['ls', { dir: join(cwd, 'sub'), find: 'Be' }],
    ['verify', { remote: true }],
  ]);
});

async function slowAdd(_request: unknown, { progress }: CallContext): ReturnType<NodeApi['add']> {
  progress({ phase: 'store', path: 'a', doneBytes: 1, totalBytes: 4, rateBytesPerS: 1024, leftMs: 3000 });
  await new Promise(setImmediate);
  return [{ path: 'a', fileId: 'f', root: 'r', sizeBytes: 4, newBytes: 4, copies: 2, state: 'protected' }];
}

test('progress: events with --progress --json, lines with --progress, else nothing without a terminal', async (t) => {
  const home = newDir(t);
  await serveFake(t, home, { add: slowAdd });
  const events = await runCli(['add', 'a', '--progress', '--json', '--home', home]);
  const lines = events.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { event: string });
  assert.deepEqual(
    lines.map(({ event }) => event),
    ['progress', 'result'],
  );
  assert.equal(events.stderr, '');
  const plain = await runCli(['add', 'a', '--json', '--home', home]);
  assert.equal((JSON.parse(plain.stdout) as unknown[]).length, 1);
  const human = await runCli(['add', 'a', '--home', home]);
  assert.equal(human.stderr, '');
  assert.match(human.stdout, /protected {2}2 copies {2}4 B {2}a\n1 file, 4 B \(4 B new\), at least 2 copies of each\./);
  const shown = await runCli(['add', 'a', '--progress', '--home', home]);
  assert.match(shown.stderr, /store.* 25 %.*1 B of 4 B.*1 KiB\/s.*3s left.*a\n/);
  assert.deepEqual(await runCli(['add', 'a', '--quiet', '--home', home]), { code: 0, stdout: '', stderr: '' });
});

test('a reader of stdout that leaves ends the command quietly', async (t) => {
  const home = newDir(t);
  const file = {
    fileId: 'f',
    kind: 'file' as const,
    sizeBytes: 1,
    state: 'stubbed' as const,
    root: 'r',
    copies: 2,
    modifiedAt: '2026-01-01T00:00:00.000Z',
  };
  await serveFake(t, home, {
    ls: async () =>
      Array.from({ length: 50_000 }, (_, index) => ({ ...file, path: `file-${index}-${'x'.repeat(50)}` })),
  });
  const child = spawnCli(['ls', '--home', home]);
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  child.stdout?.once('data', () => child.stdout?.destroy());
  const [code] = (await once(child, 'close')) as [number];
  assert.equal(code, 0);
  assert.equal(stderr, '');
});

test('leaving a command aborts its work in the node', async (t) => {
  const home = newDir(t);
  const started = Promise.withResolvers<void>();
  const aborted = Promise.withResolvers<void>();
  await serveFake(t, home, {
    add: (_request, { signal }) => {
      started.resolve();
      signal.addEventListener('abort', () => aborted.resolve());
      return new Promise(() => undefined);
    },
  });
  const child = spawnCli(['add', 'a', '--home', home]);
  await started.promise;
  child.kill('SIGINT');
  await aborted.promise;
});

test('stop returns when the process of the node has ended', async (t) => {
  const home = newDir(t);
  const script = `
    const { openControlServer } = await import(${JSON.stringify(new URL('../../src/node/control/control-server.ts', import.meta.url).href)});
    const { writeFileSync } = await import('node:fs');
    const server = await openControlServer({ api: {}, onFault() {}, stop: async () => { await server[Symbol.asyncDispose](); setTimeout(() => { writeFileSync(${JSON.stringify(join(home, 'ended'))}, ''); process.exit(0); }, 300); } }, { home: ${JSON.stringify(home)} });
    console.log('up');`;
  const { spawn } = await import('node:child_process');
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  const { code, stdout } = await runCli(['stop', '--json', '--home', home]);
  assert.deepEqual([code, stdout], [0, '{"ok":true}\n']);
  assert.ok(realpathSync(join(home, 'ended')));
  assert.equal((await runCli(['stop', '--home', home])).code, 5);
});

test('config goes to the node, or to the file of a device whose node does not run', async (t) => {
  const home = newDir(t);
  writeFileSync(join(home, 'identity.json'), '{}');
  assert.equal(
    (await runCli(['config', 'set', 'listen.port', '9090', '--json', '--home', home])).stdout,
    '{"key":"listen.port","value":9090}\n',
  );
  assert.equal((await runCli(['config', 'get', 'listen.port', '--json', '--home', home])).stdout, '9090\n');
  const wrong = await runCli(['config', 'set', 'listen.port', '99999', '--home', home]);
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /listen\.port cannot be "99999"; allowed: a whole number, 0 to 65535/);
  await serveFake(t, home, {
    configGet: async () => 'from the node',
    configSet: async ({ key, value }) => ({ key, value }),
  });
  assert.equal((await runCli(['config', 'get', 'x', '--home', home])).stdout, 'from the node\n');
  assert.equal(
    (await runCli(['config', 'set', 'x', '-5', '--json', '--home', home])).stdout,
    '{"key":"x","value":"-5"}\n',
  );
});

test('logs shows records, on request one direction only, and skips a torn line', async (t) => {
  const home = newDir(t);
  mkdirSync(join(home, 'log'));
  const record = (direction: string, path: string) =>
    JSON.stringify({
      level: 'info',
      time: '2026-01-01T00:00:00.000Z',
      direction,
      path,
      peer: 'laptop',
      bytes: 2048,
      msg: 'sent',
    });
  writeFileSync(join(home, 'log', 'dezent.log.1'), `${record('upload', 'old')}\n`);
  writeFileSync(join(home, 'log', 'dezent.log'), `${record('download', 'b')}\n${record('upload', 'a')}\n{"level":"in`);
  const uploads = await runCli(['logs', '--uploads', '--json', '--home', home]);
  assert.deepEqual(
    (JSON.parse(uploads.stdout) as { path: string }[]).map(({ path }) => path),
    ['old', 'a'],
  );
  const last = await runCli(['logs', '--last', '1', '--home', home]);
  assert.equal(last.stdout, '2026-01-01T00:00:00.000Z info  sent direction=upload path=a peer=laptop bytes=2 KiB\n');
});

test('invite says what to type on the other machine', async (t) => {
  const home = newDir(t);
  await serveFake(t, home, {
    invite: async ({ uses }) => ({ invite: 'dezent-invite-1abc', uses, expiresAt: '2026-01-01T00:00:00.000Z' }),
  });
  const { stdout } = await runCli(['invite', '--uses', '2', '--ttl', '90', '--home', home]);
  assert.match(stdout, /dezent init FOLDER --invite dezent-invite-1abc\nIt can be used 2 times/);
});

test('open --launch hands the original to the opener as one argument', { timeout: 20_000 }, async (t) => {
  const home = newDir(t);
  const name = "a 'b' $HOME;c.txt";
  execFileSync('mkfifo', [join(home, 'told')]);
  mkdirSync(join(home, 'bin'));
  writeFileSync(join(home, 'bin', 'xdg-open'), `#!/bin/sh\nprintf '%s|%s' "$#" "$1" >${join(home, 'told')}\n`, {
    mode: 0o755,
  });
  await serveFake(t, home, { open: async () => ({ path: `sub/${name}`, sizeBytes: 1, tookMs: 1, from: [] }) });
  const told = readFile(join(home, 'told'), 'utf8');
  const env = { PATH: `${join(home, 'bin')}:${process.env['PATH']}` };
  const { code, stdout } = await runCli(['open', '--launch', `${home}/sub/${name}.f`, '--home', home], { env });
  assert.equal(code, 0);
  assert.match(stdout, /1 B from this device in 1ms\./);
  assert.equal(await told, `1|${home}/sub/${name}`);
});

test('run without a device says how to make one and writes nothing', async (t) => {
  const home = join(newDir(t), 'none');
  const { code, stdout } = await runCli(['run', '--json', '--home', home]);
  assert.equal(code, 4);
  assert.match((JSON.parse(stdout) as { error: { hint: string } }).error.hint, /dezent init/);
  assert.throws(() => realpathSync(home));
});

test('the home: option, then environment, then the installed service, then the data directory', async (t) => {
  const top = newDir(t);
  const homeOf = async (line: string[], env: Record<string, string>): Promise<string> => {
    const { stdout } = await runCli(['status', '--json', ...line], {
      env: { HOME: top, DESTDIR: top, XDG_CONFIG_HOME: '/config', XDG_DATA_HOME: '', ...env },
    });
    return /for (.*)$/.exec((JSON.parse(stdout) as { error: { message: string } }).error.message)?.[1] ?? '';
  };
  assert.equal(await homeOf([], {}), join(top, '.local/share/dezent'));
  assert.equal(await homeOf([], { XDG_DATA_HOME: '/data' }), '/data/dezent');
  mkdirSync(join(top, 'etc/systemd/system'), { recursive: true });
  writeFileSync(join(top, 'etc/systemd/system/dezent.service'), '[Service]\nEnvironment="DEZENT_HOME=/srv/a b%%c"\n');
  assert.equal(await homeOf([], {}), '/srv/a b%c');
  mkdirSync(join(top, 'config/systemd/user'), { recursive: true });
  writeFileSync(join(top, 'config/systemd/user/dezent.service'), '[Service]\nEnvironment="DEZENT_HOME=/home/me/d"\n');
  assert.equal(await homeOf([], {}), '/home/me/d');
  assert.equal(await homeOf([], { DEZENT_HOME: '/env' }), '/env');
  assert.equal(await homeOf(['--home', '/option'], { DEZENT_HOME: '/env' }), '/option');
});
