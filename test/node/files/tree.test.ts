import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openState, type StateDb } from '../../../src/node/home/state.ts';
import { openTree, type Tree, type TreeItem } from '../../../src/node/files/tree.ts';
import { blockIdOf } from '../../../src/store/block.ts';
import { testBytes } from '../../suites/content.ts';
import { watchWrites } from './files-of.ts';

interface World extends AsyncDisposable {
  tree: Tree;
  db: StateDb;
  restart(): Promise<void>;
}

async function newWorld(): Promise<World> {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-tree-'));
  const db = await openState(dir);
  const world: World = {
    db,
    tree: await openTree(db),
    async restart() {
      await world.db.close();
      world.db = await openState(dir);
      world.tree = await openTree(world.db);
    },
    async [Symbol.asyncDispose]() {
      await world.db.close();
      await rm(dir, { recursive: true });
    },
  };
  return world;
}

const BLOCK = blockIdOf(testBytes(10, 1));
const idOf = (seed: number): Uint8Array => new Uint8Array(testBytes(16, seed));

function item(path: string, id: number, more: Partial<TreeItem> = {}, content = 1): TreeItem {
  return {
    entry: {
      fileId: idOf(id),
      path,
      kind: 'file',
      root: { block: blockIdOf(testBytes(10, 100 + content)), offset: 0, length: 10 },
      sizeBytes: 1000,
      mode: 0o644,
      mtimeUs: 5,
      versions: {},
    },
    state: 'protected',
    reason: '',
    seen: `${id}:1000:5:33188`,
    segment: { id: BLOCK, seq: 1 },
    copies: 2,
    since: 7,
    ...more,
  };
}

const paths = async (tree: Tree, below?: string): Promise<string[]> =>
  (await Array.fromAsync(tree.items(below))).map(({ entry }) => entry.path);

test('what is set is there at once, and after a restart', async () => {
  await using world = await newWorld();
  const writing = world.tree.set([item('a', 1), item('b', 2, { state: 'stubbed' })]);
  assert.equal(world.tree.get('a')?.state, 'protected');
  await writing;
  await world.restart();
  const { entry, ...rest } = world.tree.get('b') ?? assert.fail();
  const { entry: given, ...expected } = item('b', 2, { state: 'stubbed' });
  assert.deepEqual(rest, expected);
  assert.deepEqual([entry.path, entry.root, entry.sizeBytes], [given.path, given.root, given.sizeBytes]);
  assert.deepEqual(world.tree.counts(), {
    working: 0,
    waiting: 0,
    protected: 1,
    stubbed: 1,
    restored: 0,
    failed: 0,
    total: 2,
  });
  assert.equal(world.tree.stubbedBytes(), 1000);
  assert.deepEqual([world.tree.pathOf(idOf(2)), world.tree.pathOfInode('2')], ['b', 'b']);
});

test('items below a path are its own and its children, no neighbours', async () => {
  await using world = await newWorld();
  const names = ['a', 'a/b', 'a/b/c', 'a b', 'a0', 'a.b', 'ab', 'ä/x', '/'.repeat(0) + 'z'];
  await world.tree.set(names.map((path, index) => item(path, index + 1)));
  assert.deepEqual(await paths(world.tree, 'a'), ['a', 'a/b', 'a/b/c']);
  assert.deepEqual(await paths(world.tree, 'a/b'), ['a/b', 'a/b/c']);
  assert.deepEqual((await paths(world.tree)).sort(), [...names].sort());
  assert.deepEqual(await paths(world.tree, 'nothing'), []);
});

test('a file that moves leaves nothing behind', async () => {
  await using world = await newWorld();
  await world.tree.set([item('a', 1)]);
  await world.tree.set([item('b', 1)], ['a']);
  assert.deepEqual([await paths(world.tree), world.tree.pathOf(idOf(1)), world.tree.counts().total], [['b'], 'b', 1]);
  assert.equal((await world.tree.versions(idOf(1))).length, 1);
});

test('versions count contents, not touches and renames, and outlast a deletion', async () => {
  await using world = await newWorld();
  const contents = async (): Promise<string[]> =>
    (await world.tree.versions(idOf(1))).map(({ version, entry }) => `${version} ${entry.root?.block}`);
  for (const [path, content] of [
    ['a', 1],
    ['a', 1],
    ['b', 1],
    ['b', 2],
    ['b', 2],
    ['b', 1],
  ] as const)
    await world.tree.set([item(path, 1, {}, content)], path === 'b' ? ['a'] : []);
  const block = (content: number): string | undefined => item('', 1, {}, content).entry.root?.block;
  const expected = [`1 ${block(1)}`, `2 ${block(2)}`, `3 ${block(1)}`];
  assert.deepEqual(await contents(), expected);
  await world.tree.set([], ['b']);
  await world.restart();
  assert.deepEqual(await contents(), expected);
  await world.tree.set([item('back', 1, {}, 2)]);
  assert.deepEqual(await contents(), [...expected, `4 ${block(2)}`]);
});

test('an activity covers the state, and only while it lasts', async () => {
  await using world = await newWorld();
  await world.tree.set([item('a', 1)]);
  world.tree.mark('a', { state: 'failed', reason: 'no space', nextAt: 5 });
  world.tree.mark('new', { state: 'working', reason: '', nextAt: undefined });
  assert.deepEqual([world.tree.counts().failed, world.tree.counts().working, world.tree.counts().protected], [1, 1, 0]);
  assert.equal(world.tree.counts().total, 2);
  world.tree.mark('a', undefined);
  world.tree.mark('new', undefined);
  assert.deepEqual([world.tree.counts().protected, world.tree.counts().total], [1, 1]);
});

test('a write that fails changes nothing', async () => {
  await using world = await newWorld();
  await world.tree.set([item('a', 1)]);
  let isFull = true;
  watchWrites(world.db, () => {
    if (isFull) throw new Error('no space');
  });
  await assert.rejects(world.tree.set([item('a', 1, { state: 'stubbed' }), item('b', 2)]), /no space/);
  await assert.rejects(world.tree.set([], ['a']), /no space/);
  isFull = false;
  assert.deepEqual([world.tree.get('a')?.state, world.tree.get('b')], ['protected', undefined]);
  assert.deepEqual([world.tree.counts().total, world.tree.counts().protected, world.tree.stubbedBytes()], [1, 1, 0]);
  await world.tree.set([item('c', 3)]);
  await world.restart();
  assert.deepEqual(await paths(world.tree), ['a', 'c']);
});

test('listeners hear of what is durable', async () => {
  await using world = await newWorld();
  const heard: string[] = [];
  world.tree.onChange(({ entry, state }) => heard.push(`${entry.path} ${state}`));
  await Promise.all([world.tree.set([item('a', 1)]), world.tree.set([item('a', 1, { state: 'stubbed' })])]);
  assert.deepEqual(heard, ['a protected', 'a stubbed']);
});
