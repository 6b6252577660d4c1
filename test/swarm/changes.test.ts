// What changes to files cost, and what becomes of their stubs: the same content, a touch and a rename send nothing; an edit sends what is
// around it; stubs are renamed, moved, copied and tampered with.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { AddedFile, ListedFile, OpenedFile, WhyValue } from '../../src/node/control/control-api.ts';
import { assertSameFiles, snapshotAt, snapshotOf, type Snapshot } from '../suites/real-files.ts';
import { openRealNodes, QUICK, until, untilState, type RealNode } from '../suites/real-nodes.ts';

/** Manifests, catalog segments and heads of a handful of changes. */
const RECORDS_BYTES = 20_000;
const MIB_BYTES = 2 ** 20;
/** Blocks are padded, by 1.7 % on average. */
const PADDED = 1.04;

/** Bytes in ada's store, and what the two others keep. */
async function storedBytes(nodes: readonly RealNode[]): Promise<number[]> {
  const [ada, ...others] = await Promise.all(nodes.map((node) => node.status()));
  return [ada?.store.usedBytes ?? 0, ...others.map(({ heldForOthersBytes }) => heldForOthersBytes)];
}

/** Fails unless each place grew by at most so much; a segment for a changed entry is always sent. */
async function assertGrewBy(nodes: readonly RealNode[], before: readonly number[], mostBytes: number): Promise<void> {
  const grown = (await storedBytes(nodes)).map((bytes, index) => bytes - (before[index] ?? 0));
  for (const bytes of grown) assert.ok(bytes <= mostBytes, `grew by ${grown.join(', ')} bytes, at most ${mostBytes}`);
}

async function add(node: RealNode, ...paths: string[]): Promise<AddedFile[]> {
  return node.must<AddedFile[]>('add', ...paths);
}

async function listed(node: RealNode, path: string): Promise<ListedFile | undefined> {
  return (await node.ls()).find((item) => item.path === path);
}

test('the same content, a touch, a rename: no content is sent or stored', async (t) => {
  const nodes = await openRealNodes(t).makeGroup(['ada', 'ben', 'cleo'], {
    settings: { ...QUICK, 'offload.auto': false },
  });
  const [ada] = nodes as [RealNode];
  const content = randomBytes(5 * MIB_BYTES);
  writeFileSync(ada.path('first.bin'), content);
  const [first] = (await add(ada, 'first.bin')) as [AddedFile];
  const before = await storedBytes(nodes);
  for (const bytes of before)
    assert.ok(bytes >= content.length && bytes < content.length * PADDED, `one copy at each: ${before.join(', ')}`);

  await t.test('a second file with the same content', async () => {
    mkdirSync(ada.path('folder'));
    writeFileSync(ada.path('folder/second.bin'), content);
    const [second] = await add(ada, 'folder/second.bin');
    assert.deepEqual([second?.newBytes, second?.root, second?.copies], [0, first.root, 2]);
    assert.notEqual(second?.fileId, first.fileId);
    await assertGrewBy(nodes, before, RECORDS_BYTES);
  });

  await t.test('a touch is noticed, and sends an entry', async () => {
    utimesSync(ada.path('first.bin'), 1_600_000_000, 1_600_000_000);
    const touched = await until('the touch to be noticed', async () => {
      const item = await listed(ada, 'first.bin');
      return item?.modifiedAt === '2020-09-13T12:26:40.000Z' && item.state === 'protected' && item;
    });
    assert.deepEqual([touched.fileId, touched.root, touched.copies], [first.fileId, first.root, 2]);
    await assertGrewBy(nodes, before, RECORDS_BYTES);
  });

  await t.test('a rename and a move keep the file', async () => {
    renameSync(ada.path('first.bin'), ada.path('folder/renamed.bin'));
    const moved = await until('the rename to be noticed', async () => {
      const item = await listed(ada, 'folder/renamed.bin');
      return item?.state === 'protected' && (await listed(ada, 'first.bin')) === undefined && item;
    });
    assert.deepEqual([moved.fileId, moved.root, moved.copies], [first.fileId, first.root, 2]);
    renameSync(ada.path('folder'), ada.path('other folder'));
    await untilState(ada, ['other folder/renamed.bin', 'other folder/second.bin'], 'protected');
    await until('the old folder to be forgotten', async () => (await listed(ada, 'folder')) === undefined);
    assert.equal((await listed(ada, 'other folder/renamed.bin'))?.fileId, first.fileId);
    await assertGrewBy(nodes, before, RECORDS_BYTES);
  });

  await t.test('an edit in the middle of a large file sends only the blocks around it', async () => {
    const large = randomBytes(60 * MIB_BYTES);
    writeFileSync(ada.path('large.bin'), large);
    const [unedited] = await add(ada, 'large.bin');
    const stored = await storedBytes(nodes);
    const at = 30 * MIB_BYTES;
    // Longer than before, so that everything behind it moves.
    writeFileSync(
      ada.path('large.bin'),
      Buffer.concat([large.subarray(0, at), randomBytes(100), large.subarray(at + 7)]),
    );
    const [edited] = await add(ada, 'large.bin');
    assert.notEqual(edited?.root, unedited?.root);
    // Blocks of a file under 64 MiB have 1 MiB at most: those that are cut, their neighbours, and the manifest.
    await assertGrewBy(nodes, stored, 4 * MIB_BYTES);
  });
});

test('a restored file that is edited becomes the next version and a stub again', async (t) => {
  const nodes = await openRealNodes(t).makeGroup(['ada', 'ben', 'cleo'], { settings: QUICK });
  const [ada] = nodes as [RealNode];
  const path = ada.path('diary.txt');
  writeFileSync(path, 'dear diary\n'.repeat(3000));
  await untilState(ada, ['diary.txt'], 'stubbed');
  const first = await listed(ada, 'diary.txt');
  await ada.must<OpenedFile>('open', 'diary.txt.f');
  assert.equal((await listed(ada, 'diary.txt'))?.state, 'restored');
  writeFileSync(path, 'one more line\n', { flag: 'a' });
  const edited = await snapshotAt(path);
  const second = await until('the next version to be a stub', async () => {
    const item = await listed(ada, 'diary.txt');
    return item?.state === 'stubbed' && item.root !== first?.root && item;
  });
  assert.deepEqual([second.fileId, second.sizeBytes], [first?.fileId, edited.sizeBytes]);
  await ada.must('free', 'diary.txt');
  await ada.must<OpenedFile>('open', 'diary.txt.f');
  assert.deepEqual(await snapshotAt(path), edited);

  await t.test('a new file beside the stub is its next version too', async () => {
    await ada.must('free', 'diary.txt');
    writeFileSync(path, 'written anew\n'.repeat(1000));
    const third = await until('the third version to be a stub', async () => {
      const item = await listed(ada, 'diary.txt');
      return item?.state === 'stubbed' && item.root !== second.root && item;
    });
    assert.equal(third.fileId, first?.fileId);
    await ada.must('open', 'diary.txt.f');
    assert.equal(readFileSync(path, 'utf8'), 'written anew\n'.repeat(1000));
  });
});

test('stubs that are renamed, moved and copied open; an edited one is refused', async (t) => {
  const real = openRealNodes(t);
  const [ada] = (await real.makeGroup(['ada', 'ben', 'cleo'], { settings: QUICK })) as [RealNode];
  const names = ['renamed', 'moved', 'outside', 'copied', 'edited', 'early'];
  for (const name of names) writeFileSync(ada.path(`${name}.bin`), randomBytes(20_000), { mode: 0o640 });
  const originals = new Map<string, Snapshot>();
  for (const name of names) originals.set(name, await snapshotAt(ada.path(`${name}.bin`)));
  await untilState(
    ada,
    names.map((name) => `${name}.bin`),
    'stubbed',
  );
  // All but one have left this machine; that one still waits in quarantine.
  await ada.must('free', ...names.filter((name) => name !== 'early').map((name) => ada.path(`${name}.bin`)));
  const isOriginal = async (name: string, path: string): Promise<void> =>
    assert.deepEqual(await snapshotAt(path), originals.get(name));

  await t.test('renamed', async () => {
    const fileId = (await listed(ada, 'renamed.bin'))?.fileId;
    renameSync(ada.path('renamed.bin.f'), ada.path('new name.bin.f'));
    await untilState(ada, ['new name.bin'], 'stubbed');
    assert.equal((await listed(ada, 'new name.bin'))?.fileId, fileId);
    assert.equal(await listed(ada, 'renamed.bin'), undefined);
    assert.equal((await ada.must<OpenedFile>('open', 'new name.bin.f')).path, 'new name.bin');
    await isOriginal('renamed', ada.path('new name.bin'));
  });

  await t.test('renamed and opened at once, while the original waits in quarantine', async () => {
    renameSync(ada.path('early.bin.f'), ada.path('later.bin.f'));
    assert.equal((await ada.must<OpenedFile>('open', 'later.bin.f')).path, 'later.bin');
    await isOriginal('early', ada.path('later.bin'));
  });

  await t.test('moved into another folder', async () => {
    mkdirSync(ada.path('a/b'), { recursive: true });
    renameSync(ada.path('moved.bin.f'), ada.path('a/b/moved.bin.f'));
    await untilState(ada, ['a/b/moved.bin'], 'stubbed');
    assert.equal((await ada.must<OpenedFile>('open', 'a/b/moved.bin.f')).path, 'a/b/moved.bin');
    await isOriginal('moved', ada.path('a/b/moved.bin'));
  });

  await t.test('moved out of FOLDER', async () => {
    const outside = join(real.top, 'desk');
    mkdirSync(outside);
    renameSync(ada.path('outside.bin.f'), join(outside, 'outside.bin.f'));
    await ada.must<OpenedFile>('open', join(outside, 'outside.bin.f'));
    await isOriginal('outside', join(outside, 'outside.bin'));
  });

  await t.test('copied: both open, whichever is first', async () => {
    copyFileSync(ada.path('copied.bin.f'), ada.path('copy of it.bin.f'));
    await untilState(ada, ['copy of it.bin'], 'stubbed');
    await ada.must<OpenedFile>('open', 'copy of it.bin.f');
    await isOriginal('copied', ada.path('copy of it.bin'));
    assert.ok(statSync(ada.path('copied.bin.f')).isFile());
    await ada.must<OpenedFile>('open', 'copied.bin.f');
    await isOriginal('copied', ada.path('copied.bin'));
    const [one, other] = [await listed(ada, 'copied.bin'), await listed(ada, 'copy of it.bin')];
    assert.equal(one?.root, other?.root);
    assert.notEqual(one?.fileId, other?.fileId);
  });

  await t.test('a program and its Fortran source are told apart', async () => {
    mkdirSync(ada.path('fortran'));
    writeFileSync(ada.path('fortran/solver'), randomBytes(9000), { mode: 0o755 });
    writeFileSync(ada.path('fortran/solver.f'), '      PRINT *, 1\n'.repeat(500));
    const both = await snapshotOf(ada.path('fortran'));
    await untilState(ada, ['fortran/solver.f'], 'stubbed');
    await until('the reason why the program stays', async () =>
      (await ada.must<WhyValue>('why', 'fortran/solver')).reason.includes('the name of another file of yours'),
    );
    await ada.must('free', ada.path('fortran'));
    assert.equal((await ada.cli('free', 'fortran/solver')).code, 1);
    assert.deepEqual(readdirSync(ada.path('fortran')), ['solver', 'solver.f.f']);
    await ada.must('restore', ada.path('fortran'));
    assertSameFiles(await snapshotOf(ada.path('fortran')), both);
  });

  await t.test('edited: refused in words, and the intact one can be had again', async () => {
    const stub = ada.path('edited.bin.f');
    const intact = readFileSync(stub, 'utf8');
    const altered = intact.replace(/^size 20000$/m, 'size 30000');
    assert.notEqual(altered, intact);
    writeFileSync(stub, altered);
    const { code, json } = await ada.cli('open', 'edited.bin.f');
    assert.deepEqual([code, (json as { error: { code: string } }).error.code], [1, 'BAD_STUB']);
    assert.equal(readFileSync(stub, 'utf8'), altered);
    await until('a warning that names it', async () =>
      (await ada.status()).warnings.some((text) => text.includes('edited.bin.f')),
    );
    await ada.must('restore', 'edited.bin', '--to', join(real.top, 'mended'));
    await isOriginal('edited', join(real.top, 'mended/edited.bin'));
  });
});
