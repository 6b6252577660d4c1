import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { link, mkdir, open, readdir, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { neverOffloaded } from '../../../src/node/offload/offload.ts';
import { decodeStub } from '../../../src/store/stub.ts';
import { testBytes, withCode } from '../../suites/content.ts';
import { openFailPoints, type FailPoints } from '../../suites/fail-points.ts';
import { openTestFiles, type TestFiles } from '../files/files-of.ts';

const BYTES: Buffer = testBytes(70_000, 1);

/** The original is where it was, nothing else is in FOLDER, and the journal is empty. */
async function checkUntouched(files: TestFiles, path: string, others: string[] = []): Promise<void> {
  assert.ok(BYTES.equals(await files.read(path)));
  assert.deepEqual(await files.names(), [path, ...others].sort());
  assert.deepEqual(await Array.fromAsync(files.parts.journal.all()), []);
}

test('the steps come in the order that keeps files safe', async () => {
  const late: { points?: FailPoints } = {};
  await using files = await openTestFiles({ onStateWrite: () => late.points?.step('state') });
  using points = openFailPoints(files.root);
  late.points = points;
  await files.add('a.bin', BYTES);
  points.arm();
  await files.offload('a.bin', true);
  points.disarm();
  const steps = points.steps.map((step) => step.replaceAll(/[0-9a-f]{20}/g, 'ID'));
  const order = [
    'state', // the intent
    'sync /.dezent-new-ID', // the stub's bytes
    'link /.dezent-new-ID /a.bin.f',
    'sync ', // its name
    'rename /a.bin /.dezent/quarantine/ID/a.bin',
    'sync /.dezent/quarantine/ID',
    'sync /.dezent/quarantine',
    'sync ',
    'state', // stubbed
    'unlink /.dezent/quarantine/ID/a.bin',
    'state', // the record goes last
  ];
  let at = 0;
  for (const step of order) {
    const found = steps.indexOf(step, at);
    assert.ok(found >= at, `${step} is not after ${steps.slice(0, at).join(', ')}: ${steps.join(', ')}`);
    at = found + 1;
  }
  assert.equal(steps.filter((step) => step.startsWith('unlink') && step.endsWith('/a.bin')).length, 1);
});

test('the stub carries mode, times and name, and atime 0', async () => {
  await using files = await openTestFiles();
  await files.add('dir/b.bin', BYTES);
  const { mtimeMs } = await stat(files.at('dir/b.bin'));
  await files.offload('dir/b.bin');
  const stats = await stat(files.at('dir/b.bin.f'));
  const stub = decodeStub(await files.read('dir/b.bin.f'), files.parts.keys(), files.parts.own);
  assert.deepEqual([stub.name, stub.sizeBytes, stub.mode], ['b.bin', 70_000, 0o644]);
  assert.equal(stats.atimeMs, 0);
  assert.ok(Math.abs(stats.mtimeMs - mtimeMs) < 1);
  assert.equal(stats.mode & 0o777, 0o644);
});

test('what is never offloaded says why', async () => {
  const sizes = { sizeBytes: 4096, links: 1 };
  assert.equal(neverOffloaded('a', sizes, 4096), undefined);
  assert.match(neverOffloaded('a', { ...sizes, sizeBytes: 4095 }, 4096) ?? '', /fewer than 4096/);
  assert.match(neverOffloaded('a', { ...sizes, links: 2 }, 4096) ?? '', /hard links/);
  assert.match(neverOffloaded('dir/.dezentignore', sizes, 4096) ?? '', /ignore/);
  assert.equal(neverOffloaded(`dir/${'x'.repeat(253)}`, sizes, 4096), undefined);
  assert.match(neverOffloaded(`dir/${'x'.repeat(254)}`, sizes, 4096) ?? '', /too long/);
  assert.match(neverOffloaded(`dir/${'ä'.repeat(127)}`, sizes, 4096) ?? '', /too long/);

  await using files = await openTestFiles();
  await files.add('small', 'few bytes');
  await assert.rejects(files.offload('small'), withCode('UNSAFE'));
  const longest = 'x'.repeat(253);
  await files.add(longest, BYTES);
  await files.offload(longest);
  await files.open(`${longest}.f`);
  assert.ok(BYTES.equals(await files.read(longest)));
});

test('a file with several names stays', async () => {
  await using files = await openTestFiles();
  await files.add('a.bin', BYTES);
  await link(files.at('a.bin'), files.at('b.bin'));
  await assert.rejects(files.offload('a.bin'), withCode('UNSAFE'));
  await checkUntouched(files, 'a.bin', ['b.bin']);
});

for (const [what, make] of [
  ["somebody's Fortran", (at: string) => writeFile(at, '      PROGRAM X\n      END\n')],
  ['an empty file', (at: string) => writeFile(at, '')],
  ['a folder', (at: string) => mkdir(at)],
  ['a link to nowhere', (at: string) => symlink('nowhere', at)],
] as const) {
  test(`${what} at the stub's name stays, and so does the original`, async () => {
    await using files = await openTestFiles();
    await files.add('a.bin', BYTES);
    await make(files.at('a.bin.f'));
    await assert.rejects(files.offload('a.bin'), withCode('NAME_TAKEN'));
    await checkUntouched(files, 'a.bin', what === 'a folder' ? [] : ['a.bin.f']);
  });
}

test("an altered stub at the stub's name stays, and so does the original", async () => {
  await using files = await openTestFiles();
  await files.add('a.bin', BYTES);
  await files.offload('a.bin', true);
  const altered = (await files.read('a.bin.f')).toString().replace('size 70000', 'size 70001');
  await files.open('a.bin.f');
  await files.write('a.bin.f', altered);
  await assert.rejects(files.offload('a.bin'), withCode('NAME_TAKEN'));
  await checkUntouched(files, 'a.bin', ['a.bin.f']);
});

test('a file that somebody has open stays', async () => {
  await using files = await openTestFiles();
  await files.add('a.bin', BYTES);
  {
    await using _reader = await open(files.at('a.bin'), 'r');
    await assert.rejects(files.offload('a.bin'), withCode('BUSY'));
    await checkUntouched(files, 'a.bin');
  }
  await files.offload('a.bin');
});

test('a file that changed since it was stored stays', async () => {
  await using files = await openTestFiles();
  await files.add('a.bin', testBytes(70_000, 2));
  await files.write('a.bin', BYTES);
  await assert.rejects(files.offload('a.bin'), withCode('CHANGED'));
  await checkUntouched(files, 'a.bin');
});

test('with too few copies, or blocks that do not give the file, it stays', async () => {
  await using files = await openTestFiles({ holders: ['ann'] });
  const { entry } = await files.add('a.bin', BYTES);
  await assert.rejects(files.offload('a.bin'), withCode('UNSAFE'));
  await checkUntouched(files, 'a.bin');

  files.settings['copies.min'] = 1;
  const content = await files.parts.contents.contentAt(entry.root ?? assert.fail());
  const [id] = content?.blocks ?? [];
  assert.ok(id);
  const bytes = await files.store.get(id);
  files.store.get = async (wanted) => (wanted === id ? bytes?.fill(1, 100, 101) : undefined);
  await assert.rejects(files.offload('a.bin'), withCode('BAD_BLOCK'));
  await checkUntouched(files, 'a.bin');
});

test('another file system inside the folder: the file stays, with a reason', async () => {
  await using files = await openTestFiles();
  await mkdir(files.at('disk'));
  const mounted = process.getuid?.() === 0 && mount(files.at('disk'));
  try {
    await files.add('disk/a.bin', BYTES);
    const simulated = mounted ? undefined : refuseRenames();
    await assert.rejects(files.offload('disk/a.bin'), withCode('UNSAFE'));
    simulated?.[Symbol.dispose]();
    await checkUntouched(files, 'disk/a.bin');
    assert.deepEqual(await readdir(dirname(files.at('.dezent/quarantine/x'))), []);
  } finally {
    if (mounted) execFileSync('umount', [files.at('disk')]);
  }
});

function mount(at: string): boolean {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', at], { stdio: 'ignore' });
    return true;
  } catch {
    return false; // a container may forbid it even to root
  }
}

/** Where a test may not mount: rename says what it says between two disks. */
function refuseRenames(): Disposable {
  const points = openFailPoints('/');
  points.refuse('rename', 'EXDEV');
  return points;
}

test('where leases do not exist, the original waits a minute at least, also with `free`', async () => {
  await using files = await openTestFiles({
    settings: { 'offload.graceMs': 0 },
    kernel: { writeLease: () => 'unsupported' },
  });
  await files.add('a.bin', BYTES);
  const before = Date.now();
  await files.offload('a.bin', true);
  const [record] = files.parts.journal.offloads();
  assert.ok(record && record.dueAt >= before + 60_000);
  assert.equal(record.step, 'stubbed');
  assert.equal((await files.names()).length, 2);
});

test('the stub of an earlier version gives way to the next one', async () => {
  await using files = await openTestFiles();
  await files.add('a.bin', testBytes(70_000, 2));
  await files.offload('a.bin', true);
  const first = await files.read('a.bin.f');
  await files.add('a.bin', BYTES);
  await files.offload('a.bin');
  assert.notDeepEqual(await files.read('a.bin.f'), first);
  const [record = assert.fail()] = files.parts.journal.offloads();
  const place = await files.parts.quarantine.place(record);
  assert.deepEqual((await readdir(place.dir)).sort(), ['.earlier-stub', 'a.bin']);
  await files.parts.quarantine.finish(record, false);
  assert.deepEqual(await files.names(), ['a.bin.f']);
  await files.open('a.bin.f');
  await checkUntouched(files, 'a.bin');
});
