import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { appendFile, chmod, link, mkdir, rename, rm, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { test } from 'node:test';
import type { Ingested } from '../../../src/node/files/ingest.ts';
import type { TreeItem } from '../../../src/node/files/tree.ts';
import { encodeEntry } from '../../../src/store/catalog.ts';
import { testBytes, withCode } from '../../suites/content.ts';
import { openTestFiles, type TestFiles } from './files-of.ts';

const BYTES: Buffer = testBytes(3_000_000, 1);

const ingest = (files: TestFiles, path: string): Promise<Ingested | undefined> => files.parts.ingest.ingest(path);

async function taken(files: TestFiles, path: string): Promise<Ingested> {
  return (await ingest(files, path)) ?? assert.fail(`${path} was not taken in`);
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
/** For comparing: what the disk gives back has other kinds of bytes and objects. */
const plain = ({ entry, ...rest }: TreeItem) => ({ ...rest, entry: hex(encodeEntry(entry)) });

test('the same content, a touch, a rename and a changed mode store no content', async () => {
  await using files = await openTestFiles();
  await files.write('a', BYTES);
  const first = await taken(files, 'a');
  assert.ok(first.changed && first.newBytes >= BYTES.length);
  const second = await taken(files, 'a');
  assert.deepEqual([plain(second.item), second.newBytes, second.changed], [plain(first.item), 0, false]);
  const ids = await Array.fromAsync(files.store.ids());

  await files.write('copy', BYTES);
  const copy = await taken(files, 'copy');
  assert.deepEqual([copy.newBytes, copy.item.entry.root], [0, first.item.entry.root]);
  await utimes(files.at('a'), 1, 1_500_000_000);
  const touched = await taken(files, 'a');
  assert.deepEqual([touched.changed, touched.newBytes, touched.item.entry.mtimeUs], [true, 0, 1_500_000_000e6]);
  await chmod(files.at('a'), 0o700);
  assert.equal((await taken(files, 'a')).item.entry.mode, 0o700);
  await rename(files.at('a'), files.at('b'));
  const moved = await taken(files, 'b');
  assert.deepEqual([moved.newBytes, hex(moved.item.entry.fileId)], [0, hex(first.item.entry.fileId)]);
  assert.equal(files.parts.tree.get('a'), undefined);
  // Nothing but catalog segments has come since.
  const more = (await Array.fromAsync(files.store.ids())).filter((id) => !ids.includes(id));
  for (const id of more) assert.ok(((await files.store.get(id))?.length ?? 0) < 2000);
});

test('an edit in the middle stores only what is around it', async () => {
  await using files = await openTestFiles();
  await files.write('a', BYTES);
  const first = await taken(files, 'a');
  const edited = Buffer.concat([BYTES.subarray(0, 1_500_000), Buffer.from('inserted'), BYTES.subarray(1_500_000)]);
  await files.write('a', edited);
  const second = await taken(files, 'a');
  assert.equal(hex(second.item.entry.fileId), hex(first.item.entry.fileId));
  assert.ok(second.newBytes > 0 && second.newBytes < BYTES.length / 2, `${second.newBytes} new bytes`);
  assert.equal((await files.parts.tree.versions(first.item.entry.fileId)).length, 2);
});

/** Does something to the file while it is read: each time when `times` is high. */
function whileRead(files: TestFiles, change: () => Promise<unknown>, times = 1): void {
  const { putMany } = files.parts.ownStore;
  let left = times;
  files.parts.ownStore.putMany = async (...args) => {
    if (left > 0) {
      left -= 1;
      await change();
    }
    return putMany(...args);
  };
}

test('what changes while it is read is read again', async () => {
  await using files = await openTestFiles();
  await files.write('a', BYTES);
  whileRead(files, () => appendFile(files.at('a'), 'more'));
  const { item } = await taken(files, 'a');
  assert.equal(item.entry.sizeBytes, BYTES.length + 4);
  await files.protect(item);
  await files.offload('a', true);
  await files.open('a.f');
  assert.ok(Buffer.concat([BYTES, Buffer.from('more')]).equals(await files.read('a')));
});

for (const [what, change] of [
  ['appended to', (at: string) => appendFile(at, 'more')],
  ['truncated', (at: string) => truncate(at, 1000)],
  ['written anew', (at: string) => writeFile(at, testBytes(2_000_000, Math.floor(performance.now())))],
] as const) {
  test(`a file that is ${what} all the time is left for later, and loses nothing`, async () => {
    await using files = await openTestFiles();
    await files.write('a', BYTES);
    whileRead(files, () => change(files.at('a')), Infinity);
    if (what === 'truncated') await taken(files, 'a');
    else await assert.rejects(ingest(files, 'a'), withCode('CHANGED'));
    assert.equal(files.parts.tree.get('a')?.entry.sizeBytes, what === 'truncated' ? 1000 : undefined);
  });
}

test('a file that is deleted while it is read: what was read is whole or nothing', async () => {
  await using files = await openTestFiles();
  await files.write('a', BYTES);
  whileRead(files, () => rm(files.at('a')));
  // Its content was read through the open descriptor; whether it counts is decided by the next look at the path.
  const result = await files.parts.tend.take('a');
  if (result !== undefined) assert.equal(result.item.entry.sizeBytes, BYTES.length);
  await files.write('other', 'x');
  await files.parts.tend.look('a');
  await files.parts.deletions.decide();
  assert.equal(await files.parts.tend.take('a'), undefined);
});

test('a file that becomes a link, a folder or vanishes before it is read is not followed', async () => {
  await using files = await openTestFiles();
  await files.write('secret', 'outside');
  await symlink(files.at('secret'), files.at('link'));
  const { item } = await taken(files, 'link');
  assert.deepEqual([item.entry.kind, item.entry.link, item.entry.root], ['link', files.at('secret'), undefined]);
  await mkdir(files.at('dir'));
  assert.equal((await taken(files, 'dir')).item.entry.kind, 'folder');
  assert.equal(await ingest(files, 'nothing'), undefined);
  assert.equal(await ingest(files, 'secret/below a file'), undefined);
});

test('sockets, pipes and devices are no files', async () => {
  await using files = await openTestFiles();
  const server = createServer().listen(files.at('socket'));
  await once(server, 'listening');
  execFileSync('mkfifo', [files.at('pipe')]);
  assert.equal(await ingest(files, 'socket'), undefined);
  assert.equal(await ingest(files, 'pipe'), undefined);
  server.close();
});

test('names that cannot be given back are refused', async () => {
  await using files = await openTestFiles();
  await assert.rejects(ingest(files, 'a\uFFFDb'), withCode('USAGE'));
  await assert.rejects(ingest(files, `${'x/'.repeat(3000)}y`), withCode('USAGE'));
  for (const name of ['-rf', ' ', 'a\nb', 'ü/😀', '*?"<>|:', 'constructor', '__proto__', 'a%20b', "'"]) {
    await files.write(name, name);
    assert.equal((await taken(files, name)).item.entry.path, name);
  }
});

test('two names of one file are two files of equal content', async () => {
  await using files = await openTestFiles();
  await files.write('a', BYTES);
  await taken(files, 'a');
  await link(files.at('a'), files.at('b'));
  const second = await taken(files, 'b');
  assert.equal(second.newBytes, 0);
  const first = files.parts.tree.get('a') ?? assert.fail();
  assert.notEqual(hex(second.item.entry.fileId), hex(first.entry.fileId));
});

test('content that nobody can supply any more is stored again', async () => {
  await using files = await openTestFiles({ holders: [] });
  await files.write('a', BYTES);
  await taken(files, 'a');
  await files.store.deleteMany(await Array.fromAsync(files.store.ids()));
  await files.write('b', BYTES);
  const again = await taken(files, 'b');
  assert.ok(again.newBytes >= BYTES.length);
});

test('what is stored is there after a restart', async () => {
  await using files = await openTestFiles();
  await files.write('a', BYTES);
  const { item } = await taken(files, 'a');
  await files.restart();
  assert.deepEqual(plain(files.parts.tree.get('a') ?? assert.fail()), plain(item));
  const again = await taken(files, 'a');
  assert.deepEqual([again.newBytes, again.changed], [0, false]);
});
