// Announce: what peers are told, when anew and in full, what is remembered of theirs, and the budget of provider records.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Level } from 'level';
import { openAnnounce, type Announce } from '../../../src/node/swarm/announce.ts';
import { openHaveIndex } from '../../../src/node/swarm/have-index.ts';
import { openHaveLog } from '../../../src/node/swarm/have-log.ts';
import { silentLog } from '../../../src/node/home/log.ts';
import { openProvideQueue } from '../../../src/node/swarm/provide-queue.ts';
import type { StateDb } from '../../../src/node/home/state.ts';
import type { HaveBatch } from '../../../src/protocol/exchange.ts';
import { DezentError } from '../../../src/errors.ts';
import { blockIdOf, type BlockId } from '../../../src/store/block.ts';

const idOf = (name: string | number): BlockId => blockIdOf(Buffer.from(`block ${name}`));
const DAY_MS = 24 * 60 * 60 * 1000;

async function withDb(work: (db: StateDb, reopen: () => Promise<StateDb>) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'dezent-announce-'));
  let db = new Level(join(directory, 'db'));
  try {
    await work(db, async () => {
      await db.close();
      db = new Level(join(directory, 'db'));
      await db.open();
      return db;
    });
  } finally {
    await db.close();
    await rm(directory, { recursive: true, force: true });
  }
}

/** A node's surroundings: peers that are told, and what they then know. */
function world(db: StateDb) {
  const stored = new Set<BlockId>();
  const peers = new Map<string, { known: Set<BlockId>; batches: HaveBatch[]; reachable: boolean; missed: number }>();
  const arrivals = new Set<(peerId: string) => void>();
  const waiting = new Set<() => void>();
  let clock = 1_000_000;
  const wakeAll = (): void => {
    for (const wake of waiting) wake();
    waiting.clear();
  };
  const peer = (peerId: string) => {
    const found = peers.get(peerId) ?? { known: new Set<BlockId>(), batches: [], reachable: true, missed: 0 };
    peers.set(peerId, found);
    return found;
  };
  return {
    stored,
    peer,
    pass: (ms: number) => (clock += ms),
    connect(peerId: string) {
      peer(peerId);
      for (const listener of arrivals) listener(peerId);
    },
    /** Resolves when the condition holds; looked at after every batch. */
    async until(condition: () => boolean) {
      while (!condition()) await new Promise<void>((resolve) => waiting.add(resolve));
    },
    open: (): Promise<Announce> =>
      openAnnounce({
        swarm: {
          connected: () => [...peers.keys()],
          onConnected(listener) {
            arrivals.add(listener);
            return () => void arrivals.delete(listener);
          },
          onNetworkChange: () => () => undefined,
          provide: async () => undefined,
          withdraw: async () => undefined,
          announceSelf: async () => undefined,
        },
        async tell(peerId, batch) {
          const told = peer(peerId);
          if (!told.reachable) {
            told.missed += 1;
            wakeAll();
            throw new DezentError('UNREACHABLE', 'away');
          }
          if (batch.full) told.known.clear();
          for (const id of batch.added) told.known.add(id);
          for (const id of batch.removed) told.known.delete(id);
          told.batches.push(batch);
          wakeAll();
        },
        store: {
          async *ids() {
            yield* stored;
          },
        },
        members: () => [...peers.keys()],
        db,
        log: silentLog,
        now: () => clock,
      }),
  };
}

test('a new peer is told everything, then what changes; the same after a restart without everything again', async () => {
  await withDb(async (db, reopen) => {
    const first = world(db);
    first.stored.add(idOf(1));
    {
      await using announce = await first.open();
      first.connect('p');
      await first.until(() => first.peer('p').known.has(idOf(1)));
      first.stored.add(idOf(2));
      announce.added([idOf(2)]);
      await first.until(() => first.peer('p').known.has(idOf(2)));
      announce.removed([idOf(1)]);
      await first.until(() => !first.peer('p').known.has(idOf(1)));
    }
    assert.equal(first.peer('p').batches.filter(({ full }) => full).length, 1);
    const second = world(await reopen());
    await using announce = await second.open();
    second.connect('p');
    announce.added([idOf(3)]);
    await second.until(() => second.peer('p').known.has(idOf(3)));
    assert.deepEqual(second.peer('p').batches, [{ full: false, added: [idOf(3)], removed: [] }]);
  });
});

test('what was missed while away is told on return; after a week everything is told anew', async () => {
  await withDb(async (db) => {
    const scene = world(db);
    await using announce = await scene.open();
    scene.connect('p');
    await scene.until(() => scene.peer('p').batches.length === 1);
    scene.peer('p').reachable = false;
    scene.stored.add(idOf(1)).add(idOf(2));
    announce.added([idOf(1), idOf(2)]);
    announce.removed([idOf(2)]);
    await scene.until(() => scene.peer('p').missed > 0);
    scene.peer('p').reachable = true;
    scene.connect('p');
    await scene.until(() => scene.peer('p').known.has(idOf(1)));
    assert.equal(scene.peer('p').known.has(idOf(2)), false);
    scene.stored.delete(idOf(2));
    scene.pass(8 * DAY_MS);
    scene.connect('p');
    await scene.until(() => scene.peer('p').batches.filter(({ full }) => full).length === 2);
    assert.deepEqual([...scene.peer('p').known], [idOf(1)]);
  });
});

test('the index answers at once, replaces a whole list, survives a restart and forgets non-members', async () => {
  await withDb(async (db, reopen) => {
    const scene = world(db);
    scene.connect('p');
    scene.connect('q');
    {
      await using announce = await scene.open();
      await announce.heard('p', { full: true, added: [idOf(1), idOf(2)], removed: [] });
      await announce.heard('q', { full: true, added: [idOf(2)], removed: [] });
      await announce.heard('stranger', { full: true, added: [idOf(2)], removed: [] });
      assert.deepEqual(announce.locate(idOf(1)), ['p']);
      assert.deepEqual(announce.locate(idOf(2)).sort(), ['p', 'q']);
      assert.deepEqual(announce.locate(idOf(3)), []);
      await announce.heard('p', { full: true, added: [idOf(3)], removed: [] });
      await announce.heard('p', { full: false, added: [idOf(4)], removed: [idOf(3)] });
    }
    const index = await openHaveIndex(await reopen());
    assert.deepEqual(index.locate(idOf(1)), []);
    assert.deepEqual(index.locate(idOf(2)).sort(), ['q', 'stranger']);
    assert.deepEqual(index.locate(idOf(3)), []);
    assert.deepEqual(index.locate(idOf(4)), ['p']);
    await index.sweep(new AbortController().signal);
    assert.deepEqual(index.locate(idOf(4)), ['p']);
  });
});

test('the log is trimmed to what members still need; who is behind its beginning has no cursor', async () => {
  await withDb(async (db, reopen) => {
    const log = await openHaveLog(db);
    for (const name of [1, 2, 3]) await log.append({ added: [idOf(name)], removed: [] });
    await log.moveCursor('p', { seq: 2, fullAt: 0 });
    await log.moveCursor('q', { seq: 1, fullAt: 0 });
    await log.trim(['p', 'q']);
    assert.deepEqual(await log.after(1), { seq: 3, added: [idOf(2), idOf(3)], removed: [] });
    await log.trim(['p']);
    assert.equal(log.cursorOf('q'), undefined);
    await log.moveCursor('p', { seq: 3, fullAt: 0 });
    await log.trim(['p']);
    const again = await openHaveLog(await reopen());
    assert.equal(again.lastSeq(), 3);
    assert.deepEqual(again.cursorOf('p'), { seq: 3, fullAt: 0 });
    assert.equal(await again.after(3), undefined);
    await again.append({ added: [idOf(4)], removed: [] });
    assert.deepEqual(await again.after(3), { seq: 4, added: [idOf(4)], removed: [] });
  });
});

test('provider records: newest first, within the daily budget, the rest the next day', async () => {
  await withDb(async (db) => {
    const provided: BlockId[] = [];
    let wake = (): void => undefined;
    let clock = 10 * DAY_MS;
    const queue = await openProvideQueue(
      {
        db,
        async provide(id) {
          provided.push(id);
          wake();
        },
        withdraw: async () => undefined,
        hasPeers: () => true,
        now: () => clock,
        onError: assert.ifError,
      },
      2,
    );
    const untilProvided = async (count: number): Promise<void> => {
      while (provided.length < count) await new Promise<void>((resolve) => (wake = resolve));
    };
    queue.add([idOf('old')]);
    clock += 1;
    queue.add([idOf('new')]);
    await untilProvided(2);
    assert.deepEqual(provided, [idOf('new'), idOf('old')]);
    clock += DAY_MS + 1;
    queue.add([idOf('third')]);
    await untilProvided(4);
    assert.deepEqual(provided.slice(2), [idOf('third'), idOf('new')]);
    await queue[Symbol.asyncDispose]();
  });
});
