// What waits for copies is never forgotten: peers that come while a round runs, needs that change while it runs, failures, targets.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openReplicate, type Replicate } from '../../../src/node/copies/replicate.ts';
import type { Tree, TreeItem } from '../../../src/node/files/tree.ts';
import { blockIdOf, type BlockId } from '../../../src/store/block.ts';

const idOf = (name: string): BlockId => blockIdOf(new TextEncoder().encode(name));

interface Scene extends AsyncDisposable {
  replicate: Replicate;
  /** Who has what, by peer. */
  held: Map<string, Set<BlockId>>;
  connected: Set<string>;
  members: Set<string>;
  /** What each file needs. */
  needed: Map<string, BlockId[]>;
  /** Called at the end of each push, before its receipt counts. */
  onPush: { hook: (peerId: string) => void };
  failing: Set<string>;
  add(path: string): void;
  item(path: string): TreeItem;
}

function newScene(members: string[], connected: string[] = members, { min = 2, target = 3 } = {}): Scene {
  const items = new Map<string, TreeItem>();
  const held = new Map<string, Set<BlockId>>();
  const needed = new Map<string, BlockId[]>();
  const scene = { held, needed, connected: new Set(connected), members: new Set(members), failing: new Set<string>() };
  const onPush: Scene['onPush'] = { hook: () => undefined };
  const holdersOf = (id: BlockId): string[] => [...held].flatMap(([peerId, ids]) => (ids.has(id) ? [peerId] : []));
  const idsOf = async (item: TreeItem): Promise<BlockId[]> => [...(needed.get(item.entry.path) ?? []), item.segment.id];
  const tree = {
    get: (path: string) => items.get(path),
    async update(path: string, change: (now: TreeItem) => TreeItem | undefined) {
      const now = items.get(path);
      const next = now && change(now);
      if (next !== undefined) items.set(path, next);
      return next ?? now;
    },
  } as unknown as Tree;
  const replicate = openReplicate({
    tree,
    copies: {
      idsOf,
      contentOf: () => assert.fail('not asked'),
      async count(item) {
        const ids = await idsOf(item);
        const holders = [...held].flatMap(([peerId, has]) => (ids.every((id) => has.has(id)) ? [peerId] : []));
        return { copies: holders.length, holders };
      },
    },
    settings: { min: () => min, target: () => target },
    choose: {
      choose: (_key, _ids, already) =>
        [...scene.connected]
          .filter((peerId) => !already.includes(peerId))
          .slice(0, Math.max(0, target - already.length)),
      failed() {},
    },
    logIds: () => [],
    holdersOf,
    possibleCopies: () => scene.members.size,
    async push(peerId, ids) {
      if (scene.failing.has(peerId)) return `${peerId} refused: full`;
      onPush.hook(peerId);
      const has = held.get(peerId) ?? new Set();
      held.set(peerId, has);
      for (const id of ids) has.add(id);
      return undefined;
    },
    obtainable: async () => true,
    sealAgain: () => assert.fail('not asked'),
    roundEnded() {},
    onError: (error) => assert.fail(error as Error),
  });
  return {
    ...scene,
    onPush,
    replicate,
    add(path) {
      needed.set(path, [idOf(`content of ${path}`)]);
      items.set(path, {
        entry: { fileId: new Uint8Array(16), path, kind: 'file', sizeBytes: 1, mode: 0o644, mtimeUs: 0, versions: {} },
        state: 'waiting',
        reason: '',
        seen: '',
        segment: { id: idOf(`segment of ${path}`), seq: 1 },
        copies: 0,
        since: 0,
      });
      replicate.wake([path]);
    },
    item: (path) => items.get(path) ?? assert.fail(path),
    [Symbol.asyncDispose]: () => replicate[Symbol.asyncDispose](),
  };
}

test('all that can be had: every connected peer up to the target', async () => {
  await using scene = newScene(['a', 'b', 'c', 'd']);
  scene.add('x');
  const item = await scene.replicate.whenProtected('x');
  assert.deepEqual([item.state, item.copies, scene.held.size], ['protected', 3, 3]);
});

async function untilTrue(what: string, condition: () => boolean): Promise<void> {
  for (let turns = 0; turns < 1000; turns += 1) {
    if (condition()) return;
    await new Promise(setImmediate);
  }
  assert.fail(what);
}

/** Without asking for it, which would wake the file again. */
const untilCopies = (scene: Scene, path: string, copies: number): Promise<void> =>
  untilTrue(`${copies} copies of ${path}`, () => scene.item(path).copies === copies);

test('a peer that comes while a round is running is not missed', async () => {
  await using scene = newScene(['a', 'b'], ['a']);
  scene.onPush.hook = () => {
    scene.connected.add('b');
    scene.replicate.retry();
    scene.onPush.hook = () => undefined;
  };
  scene.add('x');
  await untilCopies(scene, 'x', 2);
});

test('what a file needs may change while it is pushed', async () => {
  await using scene = newScene(['a', 'b']);
  scene.onPush.hook = () => {
    scene.needed.set('x', [idOf('another manifest')]);
    scene.onPush.hook = () => undefined;
  };
  scene.add('x');
  await untilCopies(scene, 'x', 2);
});

test('with too few members it says how many must join, and goes on when one does; later the target too', async () => {
  await using scene = newScene(['a']);
  const whenStill = async (): Promise<void> => {
    // A round for another file has ended, so the one before has.
    scene.add('marker');
    await untilTrue('a round', () => scene.replicate.reasonFor('marker') !== undefined);
  };
  scene.add('x');
  await whenStill();
  assert.deepEqual([scene.item('x').state, scene.item('x').copies], ['waiting', 1]);
  assert.match(scene.replicate.reasonFor('x') ?? '', /1 of 2 copies: .* 1 other machine .* 1 more must join/);
  scene.members.add('b');
  scene.connected.add('b');
  scene.replicate.retry();
  await untilCopies(scene, 'x', 2);
  assert.equal(scene.replicate.reasonFor('x'), undefined);
  scene.members.add('c');
  scene.connected.add('c');
  scene.replicate.retry();
  await untilCopies(scene, 'x', 3);
});

test('a peer that fails is named with its words', async () => {
  await using scene = newScene(['a', 'b']);
  scene.failing.add('b');
  scene.add('x');
  await untilTrue('a reason', () => scene.replicate.reasonFor('x') !== undefined);
  assert.equal(scene.replicate.reasonFor('x'), '1 of 2 copies: b refused: full');
  scene.failing.clear();
  scene.replicate.retry();
  await untilCopies(scene, 'x', 2);
});
