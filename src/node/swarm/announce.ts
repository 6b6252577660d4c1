// Announce: tells all members at once what this node's store gained and lost (HAVE batches), keeps what they tell, and files provider records
// of manifests and of this device in the DHT. All of it runs behind the caller's back; what fails is tried again.
import { isDezentError } from '../../errors.ts';
import type { HaveBatch } from '../../protocol/exchange.ts';
import type { BlockId } from '../../store/block.ts';
import { openHaveIndex, type HaveIndex } from './have-index.ts';
import { openHaveLog, type HaveLog } from './have-log.ts';
import type { Log } from '../home/log.ts';
import { openProvideQueue } from './provide-queue.ts';
import type { StateDb } from '../home/state.ts';
import type { Swarm } from './swarm.ts';

const DAY_MS = 24 * 60 * 60 * 1000;
/** A whole list mends whatever was lost on the way. */
const FULL_AFTER_MS: number = 7 * DAY_MS;
/** Ids in one message of a whole list. */
const FULL_BATCH_IDS = 8_192;
const HAVE_TIMEOUT_MS = 60_000;
/** Peers that could not be told are tried again, and daily work is looked at. */
const TICK_MS = 60_000;
/** A peer enters the routing tables some moments after it came, and others often come with it. */
const SELF_DELAY_MS = 3_000;
/** Each new peer is a reason to file this device's record again, but not each time in a burst. */
const SELF_AT_MOST_EVERY_MS: number = 10 * 60 * 1000;

export interface AnnounceNeeds {
  swarm: Pick<Swarm, 'connected' | 'onConnected' | 'onNetworkChange' | 'provide' | 'withdraw' | 'announceSelf'>;
  /** exchange's `have` on the link to the peer. */
  tell(peerId: string, batch: HaveBatch, options: { signal: AbortSignal }): Promise<void>;
  /** All blocks of this node, own and kept for others. */
  store: { ids(): AsyncIterable<BlockId> };
  /** Listed members and vaults, without this device. */
  members(): string[];
  /** A sublevel of its own. */
  db: StateDb;
  log: Log;
  now?: () => number;
}

export interface Announce extends AsyncDisposable {
  /** These blocks are durable here now. Returns at once. */
  added(ids: Iterable<BlockId>): void;
  removed(ids: Iterable<BlockId>): void;
  /** These are blocks of manifests: also filed in the DHT, as far as the daily budget goes. */
  addedManifests(ids: Iterable<BlockId>): void;
  /** A peer's batch, for the server side of exchange. Throws PEER_REFUSED when it announces too much. */
  heard(peerId: string, batch: HaveBatch): Promise<void>;
  /** Members that said they have it, from local knowledge, without waiting. */
  locate(id: BlockId): string[];
}

export async function openAnnounce(needs: AnnounceNeeds): Promise<Announce> {
  const { swarm, log } = needs;
  const now = needs.now ?? Date.now;
  const haveLog = await openHaveLog(needs.db);
  const index = await openHaveIndex(needs.db);
  const stopping = new AbortController();
  const failed = (what: string) => (error: unknown) => {
    if (stopping.signal.aborted) return;
    log[isDezentError(error, 'UNREACHABLE') ? 'debug' : 'warn']({ error }, `${what} failed`);
  };
  const provideQueue = await openProvideQueue({
    db: needs.db,
    provide: (id, signal) => swarm.provide(id, { signal }),
    withdraw: (id) => swarm.withdraw(id),
    hasPeers: () => swarm.connected().length > 0,
    now,
    onError: failed('filing a provider record'),
  });
  const teller = openTeller({ ...needs, now, haveLog, signal: stopping.signal, failed });
  const self = openSelfAnnouncer(
    () => swarm.announceSelf({ signal: stopping.signal }).catch(failed('announcing this device')),
    now,
  );
  const sweeper = openSweeper(index, stopping.signal, now);
  const tick = setInterval(() => {
    teller.tellAll();
    self.daily();
    sweeper().catch(failed('sweeping the index'));
  }, TICK_MS);
  const ends = [
    swarm.onConnected((peerId) => {
      teller.tell(peerId);
      provideQueue.wake();
      self.soon();
    }),
    swarm.onNetworkChange(self.now),
  ];
  for (const peerId of swarm.connected()) teller.tell(peerId);

  return {
    added: (ids) => teller.note(ids, 'added'),
    removed: (ids) => teller.note(ids, 'removed'),
    addedManifests: (ids) => provideQueue.add(ids),
    heard: (peerId, batch) => index.heard(peerId, batch),
    locate: (id) => locate(index, id, needs.members()),
    async [Symbol.asyncDispose]() {
      for (const end of ends) end();
      clearInterval(tick);
      stopping.abort();
      await Promise.all([teller.settled(), self.stop(), provideQueue[Symbol.asyncDispose]()]);
    },
  };
}

/** Peers that have left the list may still be in the index. */
function locate(index: HaveIndex, id: BlockId, members: readonly string[]): string[] {
  return index.locate(id).filter((peerId) => members.includes(peerId));
}

interface TellerNeeds extends Pick<AnnounceNeeds, 'swarm' | 'tell' | 'store' | 'members'> {
  haveLog: HaveLog;
  signal: AbortSignal;
  now(): number;
  failed(what: string): (error: unknown) => void;
}

interface Teller {
  note(ids: Iterable<BlockId>, kind: 'added' | 'removed'): void;
  tell(peerId: string): void;
  tellAll(): void;
  /** Resolves when nothing runs any more and all that was noted is in the log. */
  settled(): Promise<void>;
}

/** Writes what is noted to the log, and brings each peer up to it; one at a time per peer. */
function openTeller(needs: TellerNeeds): Teller {
  const { haveLog, swarm, failed } = needs;
  let noted = new Map<BlockId, 'added' | 'removed'>();
  let writing: Promise<void> | undefined;
  const telling = new Map<string, Promise<void>>();
  /** Peers for which more was noted while they were being told. */
  const again = new Set<string>();

  const write = async (): Promise<void> => {
    while (noted.size > 0) {
      const batch = [...noted];
      noted = new Map();
      const idsOf = (kind: 'added' | 'removed'): BlockId[] => batch.filter(([, is]) => is === kind).map(([id]) => id);
      await haveLog.append({ added: idsOf('added'), removed: idsOf('removed') });
    }
    tellAll();
  };
  const tell = (peerId: string): void => {
    if (needs.signal.aborted) return;
    if (telling.has(peerId)) {
      again.add(peerId);
      return;
    }
    const work = bringUpToDate(needs, peerId)
      .catch(failed(`telling ${peerId} what is here`))
      .finally(() => {
        telling.delete(peerId);
        if (again.delete(peerId)) tell(peerId);
      });
    telling.set(peerId, work);
  };
  const tellAll = (): void => {
    for (const peerId of swarm.connected()) tell(peerId);
  };
  return {
    note(ids, kind) {
      for (const id of ids) noted.set(id, kind);
      if (noted.size === 0) return;
      writing ??= write()
        .catch(failed('noting what is here'))
        .finally(() => (writing = undefined));
    },
    tell,
    tellAll,
    async settled() {
      await writing;
      await Promise.all(telling.values());
    },
  };
}

async function bringUpToDate(needs: TellerNeeds, peerId: string): Promise<void> {
  const { haveLog, tell, now } = needs;
  const signal = (): AbortSignal => AbortSignal.any([needs.signal, AbortSignal.timeout(HAVE_TIMEOUT_MS)]);
  let cursor = haveLog.cursorOf(peerId);
  if (cursor === undefined || now() - cursor.fullAt > FULL_AFTER_MS) {
    // What comes or goes meanwhile is in the log after this point and told next.
    cursor = { seq: haveLog.lastSeq(), fullAt: now() };
    let full = true;
    for await (const added of batchesOf(needs.store.ids())) {
      await tell(peerId, { full, added, removed: [] }, { signal: signal() });
      full = false;
    }
    if (full) await tell(peerId, { full, added: [], removed: [] }, { signal: signal() });
    await haveLog.moveCursor(peerId, cursor);
  }
  for (let delta = await haveLog.after(cursor.seq); delta !== undefined; delta = await haveLog.after(cursor.seq)) {
    await tell(peerId, { full: false, added: delta.added, removed: delta.removed }, { signal: signal() });
    cursor = { ...cursor, seq: delta.seq };
    await haveLog.moveCursor(peerId, cursor);
  }
  await haveLog.trim(needs.members());
}

async function* batchesOf(ids: AsyncIterable<BlockId>): AsyncGenerator<BlockId[]> {
  let batch: BlockId[] = [];
  for await (const id of ids) {
    batch.push(id);
    if (batch.length < FULL_BATCH_IDS) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

interface SelfAnnouncer {
  soon(): void;
  now(): void;
  daily(): void;
  stop(): Promise<void>;
}

function openSelfAnnouncer(announce: () => Promise<void>, now: () => number): SelfAnnouncer {
  let lastAt = -Infinity;
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> | undefined;
  const run = (): void => {
    timer = undefined;
    lastAt = now();
    running ??= announce().finally(() => (running = undefined));
  };
  const start = (): void => {
    timer ??= setTimeout(run, SELF_DELAY_MS);
  };
  return {
    soon() {
      if (now() - lastAt > SELF_AT_MOST_EVERY_MS) start();
    },
    now: start,
    daily() {
      if (now() - lastAt > DAY_MS) start();
    },
    async stop() {
      clearTimeout(timer);
      await running;
    },
  };
}

/** Once a day; the work of minutes for millions of entries, in small steps. */
function openSweeper(index: HaveIndex, signal: AbortSignal, now: () => number): () => Promise<void> {
  let lastAt = now();
  return async () => {
    if (now() - lastAt <= DAY_MS) return;
    lastAt = now();
    await index.sweep(signal);
  };
}
