import assert from 'node:assert/strict';
import { copyFile, rename, rm, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { testBytes } from '../../suites/content.ts';
import { openTestFiles, type TestFiles } from './files-of.ts';

const BYTES: Buffer = testBytes(70_000, 1);

/** What the watch does once a path has settled. */
async function look(files: TestFiles, ...paths: string[]): Promise<void> {
  for (const path of paths) await files.parts.tend.look(path);
  await files.parts.deletions.decide();
}

async function withStub(): Promise<TestFiles> {
  const files = await openTestFiles();
  await files.add('a.bin', BYTES);
  await files.add('other.bin', testBytes(70_000, 2));
  await files.offload('a.bin', true);
  return files;
}

const stateOf = (files: TestFiles, path: string): string | undefined => files.parts.tree.get(path)?.state;
const idOf = (files: TestFiles, path: string): string =>
  Buffer.from(files.parts.tree.get(path)?.entry.fileId ?? []).toString('hex');

test('a renamed stub is the same file under its new path', async () => {
  await using files = await withStub();
  const id = idOf(files, 'a.bin');
  await rename(files.at('a.bin.f'), files.at('b.bin.f'));
  await look(files, 'a.bin.f', 'b.bin.f');
  assert.deepEqual(
    [stateOf(files, 'a.bin'), stateOf(files, 'b.bin'), idOf(files, 'b.bin')],
    [undefined, 'stubbed', id],
  );
  await files.restart();
  assert.deepEqual([stateOf(files, 'a.bin'), stateOf(files, 'b.bin')], [undefined, 'stubbed']);
});

test('a copied stub is a file of its own with the same content', async () => {
  await using files = await withStub();
  await copyFile(files.at('a.bin.f'), files.at('b.bin.f'));
  await look(files, 'b.bin.f');
  assert.deepEqual([stateOf(files, 'a.bin'), stateOf(files, 'b.bin')], ['stubbed', 'stubbed']);
  assert.notEqual(idOf(files, 'a.bin'), idOf(files, 'b.bin'));
  assert.deepEqual(files.parts.tree.get('a.bin')?.entry.root, files.parts.tree.get('b.bin')?.entry.root);
});

test('a stub of a deleted file brings it back', async () => {
  await using files = await withStub();
  const stub = await files.read('a.bin.f');
  await rm(files.at('a.bin.f'));
  await look(files, 'a.bin.f');
  assert.deepEqual([stateOf(files, 'a.bin'), files.deleted], [undefined, ['a.bin']]);
  await writeFile(files.at('back.bin.f'), stub);
  await look(files, 'back.bin.f');
  assert.equal(stateOf(files, 'back.bin'), 'stubbed');
  await files.open('back.bin.f');
  assert.ok(BYTES.equals(await files.read('back.bin')));
});

test('a stub whose path another file has taken since does not move that file', async () => {
  await using files = await withStub();
  const stub = await files.read('a.bin.f');
  await rm(files.at('a.bin.f'));
  await look(files, 'a.bin.f');
  await files.add('a.bin', testBytes(70_000, 3));
  const other = idOf(files, 'a.bin');
  await rename(files.at('a.bin'), files.at('elsewhere'));
  await writeFile(files.at('b.bin.f'), stub);
  await look(files, 'b.bin.f');
  assert.notEqual(idOf(files, 'b.bin'), other);
  assert.equal(idOf(files, 'a.bin'), other);
  await look(files, 'elsewhere', 'a.bin');
  assert.equal(idOf(files, 'elsewhere'), other);
});

test('a new file beside its stub is the next version; without it the stub is its earlier one again', async () => {
  await using files = await withStub();
  const id = idOf(files, 'a.bin');
  const first = files.parts.tree.get('a.bin')?.entry.root;
  await files.write('a.bin', 'next version');
  await look(files, 'a.bin', 'a.bin.f');
  assert.equal(idOf(files, 'a.bin'), id);
  assert.notDeepEqual(files.parts.tree.get('a.bin')?.entry.root, first);
  assert.equal((await files.parts.tree.versions(Buffer.from(id, 'hex'))).length, 2);
  await rm(files.at('a.bin'));
  await look(files, 'a.bin', 'a.bin.f');
  assert.deepEqual([stateOf(files, 'a.bin'), files.parts.tree.get('a.bin')?.entry.root], ['stubbed', first]);
});

test('a stub that cannot be trusted is left alone, and said', async () => {
  await using files = await withStub();
  const text = (await files.read('a.bin.f')).toString();
  await files.write('bad.f', text.replace('size 70000', 'size 70001'));
  await files.write('new.f', text.replace('dezent-stub 1', 'dezent-stub 9'));
  await look(files, 'bad.f', 'new.f');
  const warnings = files.parts.warnings.list();
  assert.equal(warnings.length, 2);
  assert.match(warnings.join('\n'), /bad\.f: .*\n.*new\.f: /);
  assert.deepEqual(
    [stateOf(files, 'bad'), stateOf(files, 'bad.f'), stateOf(files, 'new')],
    [undefined, undefined, undefined],
  );
  assert.deepEqual(files.retried, []);
  await rm(files.at('bad.f'));
  await files.write('new.f', text);
  await look(files, 'bad.f', 'new.f');
  assert.deepEqual(files.parts.warnings.list(), []);
});

test("a user's own Fortran x.f is an ordinary file", async () => {
  await using files = await withStub();
  const fortran = Buffer.from(`      PROGRAM X\n${'C'.repeat(5000)}\n      END\n`);
  await files.write('x.f', fortran);
  await look(files, 'x.f');
  assert.equal(stateOf(files, 'x.f'), 'waiting');
  await files.protect(files.parts.tree.get('x.f') ?? assert.fail());
  await files.offload('x.f', true);
  assert.ok((await files.names()).includes('x.f.f'));
  await files.open('x.f.f');
  assert.ok(fortran.equals(await files.read('x.f')));
});

test('.dezentignore decides, and is kept itself', async () => {
  await using files = await openTestFiles();
  await files.write('.dezentignore', 'build/\n*.log\n!keep.log\n');
  await files.parts.rules.reload();
  for (const path of [
    'build/out',
    'a.log',
    'keep.log',
    'note~',
    'dir/.a.swp',
    'dir/x.part',
    '.dezent-new-1',
    'note.txt',
  ])
    await files.write(path, path);
  const { rules } = files.parts;
  assert.ok(rules.ignores('build', true));
  await look(
    files,
    '.dezentignore',
    'a.log',
    'keep.log',
    'note~',
    'dir/.a.swp',
    'dir/x.part',
    '.dezent-new-1',
    'note.txt',
  );
  const known = (await Array.fromAsync(files.parts.tree.items())).map(({ entry }) => entry.path);
  assert.deepEqual(known, ['.dezentignore', 'keep.log', 'note.txt']);
});

test('a failure is tried again later and says why', async () => {
  await using files = await openTestFiles();
  await files.write('a.bin', BYTES);
  const { putMany } = files.parts.ownStore;
  files.parts.ownStore.putMany = () => Promise.reject(Object.assign(new Error('no space'), { code: 'ENOSPC' }));
  await look(files, 'a.bin');
  assert.deepEqual(files.parts.tree.activity('a.bin')?.state, 'failed');
  assert.match(files.parts.tree.activity('a.bin')?.reason ?? '', /no space/);
  assert.deepEqual(files.retried, ['a.bin']);
  files.parts.ownStore.putMany = putMany;
  await look(files, 'a.bin');
  assert.deepEqual([stateOf(files, 'a.bin'), files.parts.tree.activity('a.bin')], ['waiting', undefined]);
});
