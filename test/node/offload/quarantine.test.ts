import assert from 'node:assert/strict';
import { appendFile, copyFile, mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import type { OffloadRecord } from '../../../src/node/offload/journal.ts';
import { testBytes, withCode } from '../../suites/content.ts';
import { openTestFiles, type TestFiles } from '../files/files-of.ts';

const BYTES: Buffer = testBytes(70_000, 1);

async function withQuarantined(options: Parameters<typeof openTestFiles>[0] = {}): Promise<TestFiles> {
  const files = await openTestFiles(options);
  await files.add('a.bin', BYTES);
  await files.offload('a.bin');
  return files;
}

function recordOf(files: TestFiles): OffloadRecord {
  const [record = assert.fail('nothing is in quarantine')] = files.parts.journal.offloads();
  return record;
}

const originalOf = async (files: TestFiles): Promise<string> =>
  (await files.parts.quarantine.place(recordOf(files))).original;

async function checkIsEmpty(files: TestFiles): Promise<void> {
  assert.deepEqual(await readdir(files.at('.dezent/quarantine')), []);
  assert.deepEqual(await Array.fromAsync(files.parts.journal.all()), []);
}

test('an open brings the original back without asking anybody', async () => {
  await using files = await withQuarantined();
  for (const holder of files.holders.values()) holder.connected = false;
  await files.store.deleteMany(await Array.fromAsync(files.store.ids()));
  assert.deepEqual((await files.open('a.bin.f')).from, []);
  assert.ok(BYTES.equals(await files.read('a.bin')));
  assert.deepEqual(await files.names(), ['a.bin']);
  assert.equal(files.parts.tree.get('a.bin')?.state, 'restored');
  await checkIsEmpty(files);
});

test('a stub that is renamed meanwhile opens under its new name', async () => {
  for (const restart of [false, true]) {
    await using files = await withQuarantined();
    await mkdir(files.at('dir'));
    await rename(files.at('a.bin.f'), files.at('dir/b.bin.f'));
    await files.parts.tend.look('dir/b.bin.f');
    if (restart) await files.restart();
    assert.equal(files.parts.tree.get('dir/b.bin')?.state, 'stubbed');
    assert.equal(files.parts.tree.get('a.bin'), undefined);
    await files.store.deleteMany(await Array.fromAsync(files.store.ids()));
    for (const holder of files.holders.values()) holder.connected = false;
    assert.equal((await files.open('dir/b.bin.f')).path, files.at('dir/b.bin'));
    assert.ok(BYTES.equals(await files.read('dir/b.bin')));
    assert.deepEqual(await files.names(), ['dir/b.bin']);
    await checkIsEmpty(files);
  }
});

test('a stub that is renamed meanwhile: the space is given back all the same', async () => {
  await using files = await withQuarantined();
  await rename(files.at('a.bin.f'), files.at('b.bin.f'));
  await files.parts.tend.look('b.bin.f');
  assert.deepEqual(files.woken, ['b.bin']);
  await assert.rejects(files.parts.quarantine.finish(recordOf(files), true), withCode('UNSAFE'));
  await files.protect(files.parts.tree.get('b.bin') ?? assert.fail());
  assert.equal(await files.parts.quarantine.finish(recordOf(files), true), BYTES.length);
  assert.deepEqual(await files.names(), ['b.bin.f']);
  await checkIsEmpty(files);
  await files.open('b.bin.f');
  assert.ok(BYTES.equals(await files.read('b.bin')));
});

test('a copy of the stub does not take the original from it', async () => {
  await using files = await withQuarantined();
  await copyFile(files.at('a.bin.f'), files.at('b.bin.f'));
  await files.parts.tend.look('b.bin.f');
  await files.open('b.bin.f');
  assert.ok(BYTES.equals(await files.read('b.bin')));
  await files.open('a.bin.f');
  assert.ok(BYTES.equals(await files.read('a.bin')));
  assert.deepEqual(await files.names(), ['a.bin', 'b.bin']);
  await checkIsEmpty(files);
});

test('what is written to meanwhile is never removed, and comes back', async () => {
  await using files = await withQuarantined();
  await appendFile(await originalOf(files), 'late');
  await assert.rejects(files.parts.quarantine.finish(recordOf(files), true), withCode('CHANGED'));
  await files.parts.quarantine.settle(recordOf(files));
  assert.ok(Buffer.concat([BYTES, Buffer.from('late')]).equals(await files.read('a.bin')));
  assert.deepEqual(await files.names(), ['a.bin']);
  await checkIsEmpty(files);
});

test('the same size and time do not hide other bytes', async () => {
  await using files = await withQuarantined();
  const original = await originalOf(files);
  const { utimes, stat } = await import('node:fs/promises');
  await writeFile(original, testBytes(70_000, 2));
  const mtimeS = Number(recordOf(files).seen.split(':')[2]) / 1e9;
  await utimes(original, mtimeS, mtimeS);
  const seen = recordOf(files).seen.split(':');
  seen[2] = String((await stat(original, { bigint: true })).mtimeNs);
  await files.parts.journal.write({ ...recordOf(files), seen: seen.join(':') });
  await assert.rejects(files.parts.quarantine.finish(recordOf(files), true), withCode('CHANGED'));
  assert.ok(testBytes(70_000, 2).equals(await files.read(original.slice(files.root.length + 1))));
});

test('written to, and a new file has its name: it comes back beside it', async () => {
  await using files = await withQuarantined();
  const { id } = recordOf(files);
  await appendFile(await originalOf(files), 'late');
  await files.write('a.bin', 'new');
  await files.parts.quarantine.settle(recordOf(files));
  assert.equal((await files.read('a.bin')).toString(), 'new');
  const beside = `a (dezent ${id.slice(0, 8)}).bin`;
  assert.ok(Buffer.concat([BYTES, Buffer.from('late')]).equals(await files.read(beside)));
  await checkIsEmpty(files);
});

test('it is removed only when enough holders prove all of it anew', async () => {
  await using files = await withQuarantined();
  const [ann, ben] = [...files.holders.values()];
  assert.ok(ann && ben);
  const lost = [...ann.blocks.keys()].at(0) ?? assert.fail();
  const bytes = ann.blocks.get(lost) ?? assert.fail();
  ann.blocks.delete(lost);
  await assert.rejects(files.parts.quarantine.finish(recordOf(files), true), withCode('UNSAFE'));
  ann.blocks.set(lost, bytes);
  ben.connected = false;
  await assert.rejects(files.parts.quarantine.finish(recordOf(files), true), withCode('UNSAFE'));
  assert.ok(BYTES.equals(await files.read((await originalOf(files)).slice(files.root.length + 1))));
  ben.connected = true;
  assert.equal(await files.parts.quarantine.finish(recordOf(files), true), BYTES.length);
  await checkIsEmpty(files);
});

test('two versions wait beside each other, each for itself', async () => {
  await using files = await withQuarantined();
  const second = testBytes(80_000, 2);
  await files.add('a.bin', second);
  await files.offload('a.bin');
  assert.equal([...files.parts.journal.offloads()].length, 2);
  await files.restart();
  for (const record of Array.from(files.parts.journal.offloads())) await files.parts.quarantine.finish(record, true);
  assert.deepEqual(await files.names(), ['a.bin.f']);
  await checkIsEmpty(files);
  await files.open('a.bin.f');
  assert.ok(second.equals(await files.read('a.bin')));
});

test('taken out of quarantine by its owner: the stub stays, and the node goes on', async () => {
  await using files = await withQuarantined();
  await rename(await originalOf(files), files.at('mine.bin'));
  assert.equal(await files.parts.quarantine.finish(recordOf(files), true), 0);
  assert.deepEqual(await files.names(), ['a.bin.f', 'mine.bin']);
  await checkIsEmpty(files);
  await files.open('a.bin.f');
  assert.ok(BYTES.equals(await files.read('a.bin')));
});

test('the whole quarantine is removed by its owner: stubs open all the same', async () => {
  await using files = await withQuarantined();
  await rm(files.at('.dezent'), { recursive: true });
  await files.open('a.bin.f');
  assert.ok(BYTES.equals(await files.read('a.bin')));
  assert.deepEqual(await files.names(), ['a.bin']);
  await checkIsEmpty(files);
});

test('what the journal does not know stays in quarantine, and is said', async () => {
  await using files = await withQuarantined();
  const original = await originalOf(files);
  await files.parts.journal.remove(recordOf(files).id);
  await files.restart();
  assert.match(files.parts.warnings.list().join(), /1 originals lie in .*quarantine/);
  assert.ok(BYTES.equals(await files.read(original.slice(files.root.length + 1))));
});

test('the blocks leave this machine only after the original has', async () => {
  await using files = await withQuarantined();
  const { entry } = files.parts.tree.get('a.bin') ?? assert.fail();
  const ids = (await files.parts.contents.contentAt(entry.root ?? assert.fail()))?.blocks ?? [];
  assert.equal((await files.store.hasMany(ids)).size, ids.length);
  await files.parts.quarantine.finish(recordOf(files), true);
  assert.equal((await files.store.hasMany(ids)).size, 0);
});

test('with `copies.min` 0 the blocks never leave this machine', async () => {
  await using files = await withQuarantined({ holders: [], settings: { 'copies.min': 0 } });
  const { entry } = files.parts.tree.get('a.bin') ?? assert.fail();
  const ids = (await files.parts.contents.contentAt(entry.root ?? assert.fail()))?.blocks ?? [];
  await files.parts.quarantine.finish(recordOf(files), true);
  assert.deepEqual(await files.parts.ownBlocks.evict(ids, true), []);
  assert.equal((await files.store.hasMany(ids)).size, ids.length);
  await files.restart();
  await files.open('a.bin.f');
  assert.ok(BYTES.equals(await files.read('a.bin')));
});
