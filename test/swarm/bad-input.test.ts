// Bad input to real nodes, from the command line, the disk and the network: each gives a clear error with the exit code of its kind, the
// node goes on, and nothing is lost.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { appendFile, open, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { BLOCK_ID_BYTES, blockIdOf, blockIdToBytes } from '../../src/store/block.ts';
import { testBytes } from '../suites/content.ts';
import { openRealNodes, QUICK, until, untilState, type CliResult, type RealNode } from '../suites/real-nodes.ts';
import { playMember } from './real-member.ts';

const ALONE: string[] = ['--copies-min', '0', '--copies-target', '0'];
const MIB: number = 2 ** 20;
/** A user who owns nothing, on every Linux. */
const NOBODY = 65_534;
const LAUNCHER: string = fileURLToPath(new URL('../../dezent', import.meta.url));

/** The error as scripts see it: exit code and code, and a message with a hint. */
function assertError({ code, stdout, json }: CliResult, exit: number, errorCode: string): void {
  const { error } = (json ?? {}) as { error?: { code: string; message: string; hint: string } };
  assert.deepEqual([code, error?.code], [exit, errorCode], stdout);
  assert.ok(error && error.message.length > 10 && error.hint.length > 10, stdout);
}

test('homes and folders that cannot be', async (t) => {
  const nodes = openRealNodes(t);
  const node = await nodes.make('ada', { settings: QUICK, init: ALONE });
  const { home, folder } = node;
  await writeFile(node.path('a.bin'), testBytes(10_000, 1));
  await node.must('add', 'a.bin');
  const at = (...parts: string[]): string => join(nodes.top, ...parts);
  mkdirSync(at('empty'));
  writeFileSync(at('file'), 'x');
  await symlink(home, at('link-to-home'));
  mkdirSync(join(home, 'inside'));
  const init = (to: string, from: string): Promise<CliResult> => node.cli('init', from, '--home', to, '--port', '0');

  await t.test('init refuses them, and makes nothing', async () => {
    const refused = async (to: string, from: string, exit: number, code: string): Promise<void> =>
      assertError(await init(to, from), exit, code);
    await Promise.all([
      refused(at('new'), at('missing'), 2, 'FOLDER'),
      refused(at('new'), at('file'), 2, 'FOLDER'),
      refused(at('empty', 'home'), at('empty'), 2, 'FOLDER'),
      refused(at('empty'), at('empty'), 2, 'FOLDER'),
      refused(at('new'), at('new', 'files'), 2, 'FOLDER'),
      refused(nodes.top, at('empty'), 2, 'FOLDER'),
      refused(at('link-to-home', 'inside', 'home'), join(home, 'inside'), 2, 'FOLDER'),
      refused(home, at('empty'), 3, 'UNSAFE'),
    ]);
    assert.deepEqual(readdirSync(at('empty')), []);
    assert.ok(!readdirSync(nodes.top).includes('new'));
  });

  await t.test('a second node on one home, a port in use, no device', async () => {
    assertError(await node.cli('run'), 1, 'ALREADY_RUNNING');
    assert.equal((await node.status()).deviceId, node.deviceId);
    assertError(await node.cli('run', '--home', at('nobody')), 4, 'NOT_FOUND');
    await node.stop();
    assertError(await node.cli('status'), 5, 'NOT_RUNNING');
    const taken = createServer().listen(node.port, '127.0.0.1');
    await once(taken, 'listening');
    assert.equal((taken.address() as AddressInfo).port, node.port);
    assertError(await node.cli('run'), 1, 'PORT_IN_USE');
    taken.close();
    await once(taken, 'close');
  });

  await t.test('a folder that is gone is not a folder that was emptied', async () => {
    renameSync(folder, at('taken away'));
    assertError(run(home), 2, 'FOLDER');
    writeFileSync(folder, 'a file now');
    assertError(run(home), 2, 'FOLDER');
    rmSync(folder);
    await symlink(home, folder);
    assertError(run(home), 2, 'FOLDER');
    rmSync(folder);
    mkdirSync(folder); // what an unmounted disk leaves
    assertError(run(home), 2, 'FOLDER');
    rmdirSync(folder);
    renameSync(at('taken away'), folder);
    await node.run();
    assert.deepEqual(
      (await node.ls()).map(({ path }) => path),
      ['a.bin'],
    );
    await node.must('restore', '--all');
    assert.ok(testBytes(10_000, 1).equals(await readFile(node.path('a.bin'))));
  });

  await t.test('a folder that may not be written to, at once or later', async () => {
    const [before, theirs] = [asNobody(nodes.top), at('theirs')];
    const lock = (folder: string): void => {
      if (before.length > 0) chownSync(folder, 0, 0);
      chmodSync(folder, before.length > 0 ? 0o755 : 0o500);
    };
    lock(at('empty'));
    assertError(launch(before, ['init', at('empty'), '--home', theirs]), 2, 'FOLDER');
    mkdirSync(at('held'));
    if (before.length > 0) chownSync(at('held'), NOBODY, NOBODY);
    const made = launch(before, ['init', at('held'), '--home', theirs, '--port', '0']);
    assert.equal(made.code, 0, made.stdout);
    lock(at('held'));
    assertError(launch(before, ['run', '--home', theirs]), 2, 'FOLDER');
    for (const folder of ['empty', 'held']) chmodSync(at(folder), 0o700);
  });
});

const run = (home: string): CliResult => launch([], ['run', '--home', home]);

/** For a folder that is no working directory any more, and for other users. */
function launch(before: readonly string[], line: readonly string[]): CliResult {
  const all = [...before, LAUNCHER, ...line, '--json'];
  const { status, stdout, stderr } = spawnSync(all[0] ?? LAUNCHER, all.slice(1), { encoding: 'utf8' });
  assert.notEqual(stdout, '', stderr);
  return { code: status, stdout, stderr, json: JSON.parse(stdout) };
}

/** Runs what follows as a user who owns nothing here; that is who we are already unless we are root. */
function asNobody(top: string): string[] {
  if (process.getuid?.() !== 0) return [];
  chmodSync(top, 0o777);
  return ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', 'env', `HOME=${top}`];
}

/** A disk of this size at `at`, or false where tests may not mount. It goes before the directories are removed. */
function mountDisk(context: TestContext, at: string, bytes: number): boolean {
  mkdirSync(at, { recursive: true });
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes},mode=700`, 'tmpfs', at]).status !== 0) {
    context.diagnostic('no disk could be mounted here: not run');
    return false;
  }
  return true;
}

const resize = (at: string, bytes: number): unknown => execFileSync('mount', ['-o', `remount,size=${bytes}`, at]);

/** Takes all that is left, as another program may. */
async function fill(path: string): Promise<void> {
  await using file = await open(path, 'w');
  for (let step = MIB; step >= 512; step /= 4) {
    for (;;) {
      try {
        await file.write(Buffer.alloc(step));
      } catch {
        break;
      }
    }
  }
}

test('a disk that is full while files are added', async (t) => {
  const nodes = openRealNodes(t);
  const home = join(nodes.top, 'ada', 'home');
  if (!mountDisk(t, home, 48 * MIB)) return;
  try {
    const node = await nodes.make('ada', { settings: QUICK, init: ALONE });
    await writeFile(node.path('big.bin'), testBytes(60 * MIB, 1));
    assertError(await node.cli('add', 'big.bin'), 1, 'DISK_FULL');
    await until('the file to have failed', async () => (await node.status()).files.failed === 1);
    const why = await node.must<{ state: string; reason: string; nextAt: string | null }>('why', 'big.bin');
    assert.match(why.reason, /no room|space/);
    assert.ok(why.nextAt);
    await writeFile(node.path('small.bin'), testBytes(6000, 2));
    await node.must('add', 'small.bin');

    await fill(join(home, 'filler'));
    await writeFile(node.path('other.bin'), testBytes(50_000, 3));
    for (let tries = 0; tries < 3; tries += 1) assertError(await node.cli('add', 'other.bin'), 1, 'DISK_FULL');
    assert.equal((await node.status()).deviceId, node.deviceId);
    await node.stop();
    await rm(join(home, 'filler'));
    await node.run();
    resize(home, 300 * MIB);
    await untilState(node, ['big.bin', 'small.bin', 'other.bin'], 'stubbed');
    await node.must('restore', '--all');
    for (const [path, bytes] of [
      ['big.bin', testBytes(60 * MIB, 1)],
      ['small.bin', testBytes(6000, 2)],
    ] as const)
      assert.ok(bytes.equals(await readFile(node.path(path))), path);
    await node.stop();
  } finally {
    spawnSync('umount', ['-l', home]);
  }
});

test('a disk that is full while files are restored', async (t) => {
  const nodes = openRealNodes(t);
  const folder = join(nodes.top, 'ada', 'files');
  if (!mountDisk(t, folder, 64 * MIB)) return;
  try {
    const settings = { ...QUICK, 'offload.auto': false };
    const node = await nodes.make('ada', { settings, init: ALONE });
    const contents = ['a.bin', 'b.bin'].map((path, index) => ({ path, bytes: testBytes(24 * MIB, index) }));
    for (const { path, bytes } of contents) await writeFile(node.path(path), bytes);
    await node.must('add', folder);
    await node.must('free', folder);
    resize(folder, 20 * MIB);
    assertError(await node.cli('open', 'a.bin.f'), 1, 'DISK_FULL');
    // Each alone has room; one of the two does not, whenever it finds out.
    resize(folder, 40 * MIB);
    const opens = await Promise.all(contents.map(({ path }) => node.cli('open', `${path}.f`)));
    for (const result of opens) if (result.code !== 0) assertError(result, 1, 'DISK_FULL');
    assert.ok(opens.some(({ code }) => code !== 0));
    for (const { path, bytes } of contents) {
      const name = readdirSync(folder).includes(path) ? path : `${path}.f`;
      const there = await readFile(node.path(name));
      assert.ok(name.endsWith('.f') ? there.length < 1024 : bytes.equals(there), name);
    }
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.startsWith('.dezent-')),
      [],
    );
    resize(folder, 64 * MIB);
    await node.must('restore', '--all');
    for (const { path, bytes } of contents) assert.ok(bytes.equals(await readFile(node.path(path))), path);
    await node.stop();
  } finally {
    spawnSync('umount', ['-l', folder]);
  }
});

test('files that change under the hands of the node, names that are taken, stubs that are none', async (t) => {
  const nodes = openRealNodes(t);
  const node = await nodes.make('ada', { settings: QUICK, init: ALONE });

  await t.test('deleted, truncated, changed and appended to while being added', async () => {
    const paths = ['deleted', 'truncated', 'changed', 'appended'] as const;
    for (const [index, path] of paths.entries()) await writeFile(node.path(path), testBytes(8 * MIB, index));
    const adding = Promise.all(
      paths.map((path) => node.ask('add', { paths: [node.path(path)], wait: false }).catch(String)),
    );
    await pause(20);
    await rm(node.path('deleted'));
    await truncate(node.path('truncated'), 5 * MIB);
    await writeFile(node.path('changed'), testBytes(7 * MIB, 9));
    for (let count = 0; count < 20; count += 1) {
      await appendFile(node.path('appended'), testBytes(1000, count));
      await pause(10);
    }
    await adding;
    await untilState(node, ['truncated', 'changed', 'appended'], 'stubbed');
    assert.ok(!readdirSync(node.folder).some((name) => name.startsWith('deleted')));
    await until('the deleted one to be forgotten', async () =>
      (await node.ls()).every(({ path }) => path !== 'deleted'),
    );
    await node.ask('configSet', { key: 'offload.auto', value: false });
    await node.must('restore', '--all');
    assert.ok(
      testBytes(8 * MIB, 1)
        .subarray(0, 5 * MIB)
        .equals(await readFile(node.path('truncated'))),
    );
    assert.ok(testBytes(7 * MIB, 9).equals(await readFile(node.path('changed'))));
    const more = Array.from({ length: 20 }, (_, count) => testBytes(1000, count));
    assert.ok(Buffer.concat([testBytes(8 * MIB, 3), ...more]).equals(await readFile(node.path('appended'))));
  });

  await t.test('the name of the original is taken', async () => {
    const bytes = testBytes(100_000, 20);
    await writeFile(node.path('taken.bin'), bytes);
    await node.must('add', 'taken.bin');
    await node.must('free', 'taken.bin');
    const stub = await readFile(node.path('taken.bin.f'));
    await writeFile(node.path('taken.bin'), bytes);
    assert.equal((await node.must<{ path: string }>('open', 'taken.bin.f')).path, 'taken.bin');
    await writeFile(node.path('taken.bin'), 'mine');
    await writeFile(node.path('taken.bin.f'), stub);
    const { path } = await node.must<{ path: string }>('open', 'taken.bin.f');
    assert.equal(path, 'taken (restored).bin');
    assert.equal(await readFile(node.path('taken.bin'), 'utf8'), 'mine');
    assert.ok(bytes.equals(await readFile(node.path(path))));
  });

  await t.test('stubs: empty, 1 GB, binary, truncated, altered, of a newer version, of another owner', async () => {
    await writeFile(node.path('good.bin'), testBytes(100_000, 30));
    await node.must('add', 'good.bin');
    await node.must('free', 'good.bin');
    const good = await readFile(node.path('good.bin.f'));
    const text = good.toString();
    const other = await nodes.make('eve', { settings: QUICK, init: ALONE });
    await writeFile(other.path('hers.bin'), testBytes(100_000, 31));
    await untilState(other, ['hers.bin'], 'stubbed');
    copyFileSync(other.path('hers.bin.f'), node.path('hers.f'));
    await other.stop();
    const cases: [name: string, bytes: Uint8Array | string, exit: number, code: string][] = [
      ['empty.f', '', 1, 'BAD_STUB'],
      ['binary.f', testBytes(5000, 32), 1, 'BAD_STUB'],
      ['truncated.f', good.subarray(0, good.length - 20), 1, 'BAD_STUB'],
      ['altered.f', text.replace('size 100000', 'size 100001'), 1, 'BAD_STUB'],
      ['newer.f', text.replace('dezent-stub 1', 'dezent-stub 7'), 1, 'NEWER_VERSION'],
      ['huge.f', good, 1, 'BAD_STUB'],
      ['hers.f', await readFile(node.path('hers.f')), 3, 'FOREIGN_STUB'],
    ];
    for (const [name, bytes] of cases) await writeFile(node.path(name), bytes);
    await truncate(node.path('huge.f'), 2 ** 30);
    for (const [name, , exit, code] of cases) assertError(await node.cli('open', name), exit, code);
    for (const [name, bytes] of cases.filter(([name]) => name !== 'huge.f'))
      assert.ok(Buffer.from(bytes).equals(await readFile(node.path(name))), name);
    assert.equal((await stat(node.path('huge.f'))).size, 2 ** 30);
    await until('warnings that name the bad stubs', async () => {
      const warnings = (await node.status()).warnings.join('\n');
      return ['altered.f', 'truncated.f', 'newer.f', 'hers.f', 'huge.f'].every((name) => warnings.includes(name));
    });
    await node.must('open', 'good.bin.f');
    assert.ok(testBytes(100_000, 30).equals(await readFile(node.path('good.bin'))));
  });
});

test('a member that breaks the protocols does not stop the node from serving the others', async (t) => {
  const nodes = openRealNodes(t);
  const [ada, ben] = (await nodes.makeGroup(['ada', 'ben'], {
    settings: { ...QUICK, 'copies.min': 1, 'offload.auto': false },
  })) as [RealNode, RealNode];
  const { invite } = await ada.ask('invite', { vault: false, uses: 1, ttlMs: 3_600_000 });
  const eve = await nodes.make('eve', { invite, run: false });
  await using member = await playMember(eve, [ada]);
  const before = (await ada.status()).store.usedBytes;

  const block = testBytes(1000, 40);
  const frame = (type: number, length: number, body: Uint8Array = Buffer.alloc(0)): Buffer => {
    const header = Buffer.alloc(9);
    header[0] = type;
    header.writeUInt32BE(1, 1);
    header.writeUInt32BE(length, 5);
    return Buffer.concat([header, body]);
  };
  const unasked = Buffer.concat([blockIdToBytes(blockIdOf(block)), block]);
  const wrong = Buffer.concat([blockIdToBytes(blockIdOf(testBytes(1000, 41))), block]);
  const [BLOCK, DATA] = [17, 18];
  const attacks: [what: string, bytes: Buffer][] = [
    ['length 0', frame(16, 0)],
    ['length 2³¹', frame(16, 2 ** 31)],
    ['length 2³² − 1', frame(16, 2 ** 32 - 1)],
    ['unknown type', frame(99, 10, Buffer.alloc(10))],
    ['half a frame, then silence', frame(16, 36, Buffer.alloc(5))],
    ['a block nobody asked for', frame(BLOCK, unasked.length, unasked)],
    ['data without a session', frame(DATA, unasked.length, unasked)],
    ['a block under another id', frame(BLOCK, wrong.length, wrong)],
    ['noise', testBytes(100_000, 42)],
  ];
  assert.equal(unasked.length, BLOCK_ID_BYTES + block.length);
  for (const protocol of ['exchange', 'fs', 'release', 'audit'] as const) {
    for (const [what, bytes] of attacks) {
      const stream = await member.stream(ada.deviceId, protocol, { signal: AbortSignal.timeout(10_000) });
      for (let at = 0; at < bytes.length && stream.status === 'open'; at += 65_536)
        stream.send(bytes.subarray(at, at + 65_536));
      assert.ok((await ada.status()).peers.connected >= 1, `${protocol}: ${what}`);
    }
  }
  assert.ok(ada.isRunning());
  assert.equal((await ada.status()).store.usedBytes, before);

  await writeFile(ben.path('of-ben.bin'), testBytes(3 * MIB, 50));
  await writeFile(ada.path('of-ada.bin'), testBytes(3 * MIB, 51));
  for (const node of [ada, ben]) {
    const name = node === ada ? 'of-ada.bin' : 'of-ben.bin';
    await node.must('add', name, '--timeout', '60s');
    await node.must('free', name);
    await node.must('open', `${name}.f`);
  }
  assert.ok(testBytes(3 * MIB, 51).equals(await readFile(ada.path('of-ada.bin'))));
  assert.ok(testBytes(3 * MIB, 50).equals(await readFile(ben.path('of-ben.bin'))));
});
