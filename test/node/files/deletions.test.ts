import assert from 'node:assert/strict';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { test } from 'node:test';
import { testBytes } from '../../suites/content.ts';
import { openTestFiles, type TestFiles } from './files-of.ts';

async function withFiles(count: number): Promise<TestFiles> {
  const files = await openTestFiles();
  for (let index = 0; index < count; index += 1) await files.write(`dir/${index}`, `file ${index}`);
  await Promise.all(Array.from({ length: count }, (_, index) => files.parts.tend.look(`dir/${index}`)));
  await files.write('stays', 'x');
  await files.parts.tend.look('stays');
  return files;
}

async function remove(files: TestFiles, paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    await rm(files.at(path), { recursive: true });
    await files.parts.tend.look(path);
  }
  await files.parts.deletions.decide();
}

const pathsIn = async (files: TestFiles): Promise<string[]> =>
  (await Array.fromAsync(files.parts.tree.items())).map(({ entry }) => entry.path);

test('a file that its owner removes is deleted, in history too', async () => {
  await using files = await withFiles(3);
  const { entry } = files.parts.tree.get('dir/1') ?? assert.fail();
  await remove(files, ['dir/1']);
  assert.deepEqual(files.deleted, ['dir/1']);
  assert.deepEqual(await pathsIn(files), ['dir/0', 'dir/2', 'stays']);
  assert.equal((await files.parts.tree.versions(entry.fileId)).length, 1);
  await files.restart();
  assert.deepEqual(await pathsIn(files), ['dir/0', 'dir/2', 'stays']);
});

test('a folder that its owner removes is deleted with what was in it', async () => {
  await using files = await withFiles(5);
  await files.parts.tend.look('dir');
  await remove(files, ['dir']);
  assert.deepEqual(await pathsIn(files), ['stays']);
});

test('nothing is decided while paths still settle, so a rename is none', async () => {
  await using files = await withFiles(3);
  const { entry } = files.parts.tree.get('dir/1') ?? assert.fail();
  files.busy = true;
  await rename(files.at('dir/1'), files.at('moved'));
  await files.parts.tend.look('dir/1');
  await files.parts.deletions.decide();
  assert.deepEqual(files.deleted, []);
  await files.parts.tend.look('moved');
  files.busy = false;
  await files.parts.deletions.decide();
  assert.deepEqual(files.deleted, []);
  assert.deepEqual(Buffer.from(files.parts.tree.get('moved')?.entry.fileId ?? []), Buffer.from(entry.fileId));
});

test('one that is back before the decision is not deleted', async () => {
  await using files = await withFiles(3);
  await rm(files.at('dir/1'));
  await files.parts.tend.look('dir/1');
  await files.write('dir/1', 'back');
  await files.parts.deletions.decide();
  assert.deepEqual(files.deleted, []);
});

test('very many at once wait for their owner, who may bring them back', async () => {
  await using files = await withFiles(30);
  const most = Array.from({ length: 20 }, (_, index) => `dir/${index}`);
  await remove(files, most);
  assert.deepEqual(files.deleted, []);
  assert.match(files.parts.warnings.list().join(), /20 files are gone/);
  assert.equal((await pathsIn(files)).length, 31);
  for (const path of most) await files.write(path, 'back');
  await files.parts.tend.look('dir/3');
  await files.parts.deletions.decide();
  assert.deepEqual(files.parts.warnings.list(), []);
});

test('more than 500 at once wait, however many there are', async () => {
  await using files = await openTestFiles({ holders: [] });
  const count = 2600;
  const { add } = files.parts.batch;
  const entries = Array.from({ length: count }, (_, index) => `f${index}`);
  await Promise.all(
    entries.map((path) => {
      const entry = {
        fileId: testBytes(16, 1000 + Number(path.slice(1))),
        path,
        kind: 'file' as const,
        sizeBytes: 1,
        mode: 0o644,
        mtimeUs: 0,
        versions: {},
      };
      return add({
        entry: () => entry,
        item: (_, segment) => ({ entry, state: 'protected', reason: '', seen: '', segment, copies: 2, since: 0 }),
      });
    }),
  );
  await files.write('stays', 'x');
  for (const path of entries.slice(0, 501)) files.parts.deletions.gone(path);
  await Promise.all(entries.slice(501).map((path) => files.write(path, '')));
  await files.parts.deletions.decide();
  assert.deepEqual(files.deleted, []);
  assert.match(files.parts.warnings.list().join(), /501 files are gone/);
});

test('a folder that is empty all at once, or gone, is a missing disk', async () => {
  for (const count of [3, 30]) {
    await using files = await withFiles(count);
    await remove(files, ['stays', 'dir']);
    assert.deepEqual(files.deleted, []);
    assert.equal((await pathsIn(files)).length, count + 1);
    assert.match(files.parts.warnings.list().join(), /are gone/);
    await rm(files.root, { recursive: true });
    await files.parts.tend.look('dir');
    await files.parts.deletions.decide();
    assert.deepEqual(files.deleted, []);
    await mkdir(files.root);
    await files.parts.deletions.decide();
    assert.deepEqual(files.deleted, []);
    assert.equal((await pathsIn(files)).length, count + 1);
  }
});

test('the files of a disk inside the folder are not deleted when it is taken away', async () => {
  await using files = await withFiles(4);
  // An unmounted disk leaves the folder it was mounted on, empty and another one.
  await rename(files.at('dir'), `${files.root}-mounted-later`);
  await mkdir(files.at('dir'));
  await files.parts.tend.look('dir');
  await rename(files.at('dir'), `${files.root}-mount-point`);
  await rename(`${files.root}-mounted-later`, files.at('dir'));
  await files.parts.tend.look('dir');
  await rename(files.at('dir'), `${files.root}-taken-away`);
  await rename(`${files.root}-mount-point`, files.at('dir'));
  for (const name of await readdir(`${files.root}-taken-away`)) await files.parts.tend.look(`dir/${name}`);
  await files.parts.deletions.decide();
  assert.deepEqual(files.deleted, []);
  await rm(`${files.root}-taken-away`, { recursive: true });
});

test('what is held back costs nothing until something new is reported', async () => {
  await using files = await withFiles(30);
  await remove(
    files,
    Array.from({ length: 20 }, (_, index) => `dir/${index}`),
  );
  let looks = 0;
  const { items } = files.parts.tree;
  files.parts.tree.items = (...below) => {
    looks += 1;
    return items(...below);
  };
  for (let tick = 0; tick < 10; tick += 1) await files.parts.deletions.decide();
  assert.equal(looks, 0);
});
