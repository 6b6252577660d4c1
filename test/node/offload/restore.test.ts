import assert from 'node:assert/strict';
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  open,
  readdir,
  rename,
  rm,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { decodeStub, encodeStub } from '../../../src/store/stub.ts';
import { OTHER_KEYS, testBytes, withCode } from '../../suites/content.ts';
import { openTestFiles, type TestFiles } from '../files/files-of.ts';

const BYTES: Buffer = testBytes(3_000_000, 1);

/** `a.bin` as a stub, its blocks with the holders alone. */
async function withStub(options: Parameters<typeof openTestFiles>[0] = {}): Promise<TestFiles> {
  const files = await openTestFiles(options);
  await files.add('a.bin', BYTES);
  await chmod(files.at('a.bin'), 0o750);
  await files.parts.tend.look('a.bin');
  await files.protect(files.parts.tree.get('a.bin') ?? assert.fail());
  await files.offload('a.bin', true);
  await files.store.deleteMany(await Array.fromAsync(files.store.ids()));
  await files.restart(); // forgets manifests that it has open
  return files;
}

/** Nothing was written, overwritten or removed. */
async function checkStays(files: TestFiles, names: string[]): Promise<void> {
  assert.deepEqual(await files.names(), [...names].sort());
  assert.deepEqual(await Array.fromAsync(files.parts.journal.all()), []);
}

test('content, mode and time come back from a peer, and the stub goes', async () => {
  await using files = await withStub();
  const { from } = await files.open('a.bin.f');
  assert.deepEqual(from, ['ann']);
  assert.ok(BYTES.equals(await files.read('a.bin')));
  const stats = await stat(files.at('a.bin'), { bigint: true });
  const { entry, state } = files.parts.tree.get('a.bin') ?? assert.fail();
  assert.deepEqual([Number(stats.mode) & 0o777, Number(stats.mtimeNs / 1000n)], [0o750, entry.mtimeUs]);
  assert.equal(state, 'restored');
  await checkStays(files, ['a.bin']);
});

test('a name that is taken by the same content is fine', async () => {
  await using files = await withStub();
  await writeFile(files.at('a.bin'), BYTES);
  const { path } = await files.open('a.bin.f');
  assert.equal(path, files.at('a.bin'));
  await checkStays(files, ['a.bin']);
});

test('a name that is taken by another content, a folder or a link keeps what it has', async () => {
  await using files = await withStub();
  const stub = await files.read('a.bin.f');
  await files.write('a.bin', 'mine');
  assert.equal((await files.open('a.bin.f')).path, files.at('a (restored).bin'));
  await files.write('a.bin.f', stub);
  await files.write('a (restored).bin', 'mine as well');
  assert.equal((await files.open('a.bin.f')).path, files.at('a (restored 2).bin'));
  assert.equal((await files.read('a.bin')).toString(), 'mine');
  assert.equal((await files.read('a (restored).bin')).toString(), 'mine as well');
  assert.ok(BYTES.equals(await files.read('a (restored 2).bin')));

  await mkdir(files.at('b.bin'));
  await files.write('b.bin.f', stub);
  assert.equal((await files.open('b.bin.f')).path, files.at('b (restored).bin'));
  await checkStays(files, ['a.bin', 'a (restored).bin', 'a (restored 2).bin', 'b (restored).bin']);
});

test('a taken name of the greatest length has room for no more words', async () => {
  await using files = await withStub();
  for (const name of [`${'x'.repeat(249)}.bin`, 'ä'.repeat(126)]) {
    await copyFile(files.at('a.bin.f'), files.at(`${name}.f`));
    await files.write(name, 'mine');
    const { path } = await files.open(`${name}.f`);
    assert.equal((await files.read(name)).toString(), 'mine');
    assert.notEqual(path, files.at(name));
    assert.match(path, /\(restored\)/);
    assert.doesNotMatch(path, /\uFFFD/);
  }
});

test('renamed, moved, copied: a stub opens under the name that it has', async () => {
  await using files = await withStub();
  const elsewhere = await mkdtemp(join(tmpdir(), 'dezent-elsewhere-'));
  try {
    await mkdir(files.at('dir'));
    await copyFile(files.at('a.bin.f'), files.at('dir/b.dat.f'));
    await copyFile(files.at('a.bin.f'), join(elsewhere, 'c.f'));
    await copyFile(files.at('a.bin.f'), join(elsewhere, 'no suffix'));
    await rename(files.at('a.bin.f'), files.at('d.f'));
    assert.equal((await files.open('dir/b.dat.f')).path, files.at('dir/b.dat'));
    assert.equal((await files.open('d.f')).path, files.at('d'));
    for (const [name, given] of [
      ['c.f', 'c'],
      ['no suffix', 'a.bin'],
    ] as const) {
      const { path } = await files.parts.restore.open(join(elsewhere, name));
      assert.equal(path, join(elsewhere, given));
    }
    assert.deepEqual((await readdir(elsewhere)).sort(), ['a.bin', 'c']);
    await checkStays(files, ['d', 'dir/b.dat']);
  } finally {
    await rm(elsewhere, { recursive: true });
  }
});

test('what is no intact stub of ours is refused, and stays', async () => {
  await using files = await withStub();
  const good = await files.read('a.bin.f');
  const text = good.toString();
  const stub = decodeStub(good, files.parts.keys(), files.parts.own);
  const stranger = { ...stub, ownerId: files.parts.own.groupId, epoch: OTHER_KEYS.current.id };
  const cases: [name: string, bytes: string | Uint8Array, code: Parameters<typeof withCode>[0]][] = [
    ['empty', '', 'BAD_STUB'],
    ['binary', testBytes(1000, 5), 'BAD_STUB'],
    ['text', 'dear diary', 'BAD_STUB'],
    ['magic alone', 'dezent-stub 1\n', 'BAD_STUB'],
    ['truncated', good.subarray(0, good.length - 30), 'BAD_STUB'],
    ['cut in the middle', good.subarray(0, good.length / 2), 'BAD_STUB'],
    ['altered', text.replace('size 3000000', 'size 3000001'), 'BAD_STUB'],
    ['with more behind it', `${text}more 1\n`, 'BAD_STUB'],
    ['Windows lines', text.replaceAll('\n', '\r\n'), 'BAD_STUB'],
    ['long', Buffer.concat([good, Buffer.alloc(10_000, ' ')]), 'BAD_STUB'],
    ['of another owner', encodeStub(stranger, OTHER_KEYS), 'FOREIGN_STUB'],
    ['of a newer version', text.replace('dezent-stub 1', 'dezent-stub 2'), 'NEWER_VERSION'],
  ];
  for (const [name, bytes, code] of cases) {
    await files.write(`${name}.f`, bytes);
    await assert.rejects(files.open(`${name}.f`), withCode(code), name);
    assert.ok(Buffer.from(bytes).equals(await files.read(`${name}.f`)), name);
  }
  await writeFile(files.at('huge.f'), good);
  await truncate(files.at('huge.f'), 2 ** 30);
  await assert.rejects(files.open('huge.f'), withCode('BAD_STUB'));
  await mkdir(files.at('folder.f'));
  await assert.rejects(files.open('folder.f'), withCode('BAD_STUB', 'NOT_FOUND'));
  await assert.rejects(files.open('nothing.f'), withCode('NOT_FOUND'));
  await checkStays(files, ['a.bin.f', 'huge.f', ...cases.map(([name]) => `${name}.f`)]);
});

test('with nobody there the stub stays, and opens once a holder is back', async () => {
  await using files = await withStub();
  for (const holder of files.holders.values()) holder.connected = false;
  await assert.rejects(files.open('a.bin.f'), withCode('UNREACHABLE'));
  await checkStays(files, ['a.bin.f']);
  const [, ben] = files.holders.values();
  if (ben) ben.connected = true;
  assert.deepEqual((await files.open('a.bin.f')).from, ['ben']);
  await checkStays(files, ['a.bin']);
});

test('a holder that goes away half-way leaves no half file', async () => {
  await using files = await withStub({ holders: ['ann', 'ben'] });
  const { entry } = files.parts.tree.get('a.bin') ?? assert.fail();
  const content = await files.parts.contents.contentAt(entry.root ?? assert.fail());
  const lost = content?.blocks[2];
  assert.ok(lost);
  const kept = [...files.holders.values()].map(({ blocks }) => [blocks, blocks.get(lost)] as const);
  for (const [blocks] of kept) blocks.delete(lost);
  await assert.rejects(files.open('a.bin.f'), withCode('UNREACHABLE'));
  await checkStays(files, ['a.bin.f']);
  for (const [blocks, bytes] of kept) if (bytes) blocks.set(lost, bytes);
  await files.open('a.bin.f');
  assert.ok(BYTES.equals(await files.read('a.bin')));
});

test('an aborted open leaves the stub and nothing else', async () => {
  await using files = await withStub();
  const stop = new AbortController();
  const opening = files.parts.restore.open(files.at('a.bin.f'), {
    signal: stop.signal,
    onBytes: () => stop.abort(),
  });
  await assert.rejects(opening, withCode('CANCELLED'));
  await checkStays(files, ['a.bin.f']);
});

test('two opens at once give one file', async () => {
  await using files = await withStub();
  const results = await Promise.allSettled([files.open('a.bin.f'), files.open('a.bin.f')]);
  // Whoever comes second under the lock finds that the stub is gone; the command then finds the file (restore-files.ts).
  assert.ok(results.some(({ status }) => status === 'fulfilled'));
  for (const result of results) if (result.status === 'rejected') withCode('NOT_FOUND')(result.reason);
  assert.ok(BYTES.equals(await files.read('a.bin')));
  await checkStays(files, ['a.bin']);
});

test('a disk that takes a part of a write is written to again', async () => {
  await using files = await withStub();
  await using probe = await open(files.at('a.bin.f'), 'r');
  const prototype = Object.getPrototypeOf(probe) as { write: (...args: unknown[]) => Promise<unknown> };
  const { write } = prototype;
  type Part = [buffer: Uint8Array, offset: number, length: number, position: number];
  prototype.write = async function part(this: unknown, ...[buffer, offset, length, position]: Part) {
    return write.call(this, buffer, offset, Math.ceil(length / 2), position);
  } as typeof write;
  try {
    await files.open('a.bin.f');
  } finally {
    prototype.write = write;
  }
  assert.ok(BYTES.equals(await files.read('a.bin')));
});
