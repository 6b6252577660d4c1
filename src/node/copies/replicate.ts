// Replicate: brings items to `target` copies at distinct holders and says what is missing. Work that cannot be done now waits and is
// tried again for ever: when a peer comes, and every RETRY_MS.
import { DezentError } from '../../errors.ts';
import type { BlockId } from '../../store/block.ts';
import type { ChooseHolders } from './choose-holders.ts';
import type { ItemCopies } from './item-copies.ts';
import type { Tree, TreeItem } from '../files/tree.ts';

/** Items looked at in one round: their ids fit a few push sessions. */
const ROUND_ITEMS = 4096;
/** A round closes at this many blocks, so that memory for ids is bounded and others get their turn. */
const ROUND_BLOCKS = 4096;
const RETRY_MS = 30_000;

export interface ReplicateNeeds {
  tree: Tree;
  copies: ItemCopies;
  settings: { min(): number; target(): number };
  choose: ChooseHolders;
  /** Blocks of the catalog log itself: whoever keeps any of our files keeps all of these, so that the tree can be brought back. */
  logIds(): readonly BlockId[];
  holdersOf(id: BlockId): readonly string[];
  /** Distinct copies that all known members together could make. */
  possibleCopies(): number;
  /** Pushes the blocks and keeps the receipts, then has the peer acknowledge the head; a text says why not. */
  push(
    peerId: string,
    ids: readonly BlockId[],
    what: { name: string; signal: AbortSignal },
  ): Promise<string | undefined>;
  /** Each of these blocks is here or with a holder. */
  obtainable(ids: readonly BlockId[]): Promise<boolean>;
  /** Nobody can supply the item's blocks, but its file is here: it has to be sealed again. */
  sealAgain(item: TreeItem): Promise<void>;
  /** All pushes of a round have ended. */
  roundEnded(): void;
  onError(error: unknown): void;
}

export interface Replicate extends AsyncDisposable {
  /** There may be something to do for these paths. */
  wake(paths: Iterable<string>): void;
  /** The catalog log has grown without an item (a deletion): its holders are to have it. */
  wakeLog(): void;
  /** Everything that waits is tried again now (a peer came, a setting changed). */
  retry(): void;
  /** Resolves with the item when it has `min` copies; rejects when the signal fires. */
  whenProtected(path: string, signal?: AbortSignal): Promise<TreeItem>;
  /** Why the path waits, if it does. */
  reasonFor(path: string): string | undefined;
  /** Counts again and stores what changed. */
  recount(item: TreeItem): Promise<TreeItem>;
}

interface RoundItem {
  item: TreeItem;
  ids: BlockId[];
}

export function openReplicate(needs: ReplicateNeeds): Replicate {
  const { tree, copies, settings, push } = needs;
  const queue = new Set<string>();
  const waiting = new Set<string>();
  const reasons = new Map<string, string>();
  const watchers = new Map<string, Set<(item: TreeItem | undefined) => void>>();
  let running: Promise<void> | undefined;
  const stopping = new AbortController();
  /** Set when a push failed: then time may help; without, only another peer does. */
  let failedLately = false;
  /** A peer came while a round was running: what that round could not do is tried again after it. */
  let isRoundStale = false;
  /** The catalog log has a segment that no item's round brings along (a deletion). */
  let logWanted = false;
  /** How much of the catalog log each peer is known to have, so that it is not looked through in every round. */
  const logGiven = new Map<string, number>();
  const timer = setInterval(() => {
    if (failedLately) retry();
  }, RETRY_MS);
  timer.unref();

  function wake(paths: Iterable<string>): void {
    const wanted = Math.min(settings.target(), needs.possibleCopies());
    for (const path of paths) {
      const item = tree.get(path);
      if (item === undefined || item.state === 'waiting' || item.copies < wanted) queue.add(path);
      else if (item.copies < settings.target()) waiting.add(path); // until another machine joins
    }
    start();
  }

  function start(): void {
    if (stopping.signal.aborted || running !== undefined || (queue.size === 0 && !logWanted)) return;
    running = run().finally(() => {
      running = undefined;
      start();
    });
  }

  function wakeWaiting(): void {
    const again = [...waiting];
    failedLately = false;
    waiting.clear();
    wake(again);
  }

  function retry(): void {
    isRoundStale = running !== undefined;
    wakeWaiting();
  }

  /** The item has its copies, or is there no more. */
  function tellWatchers(path: string, item: TreeItem | undefined): void {
    for (const watcher of watchers.get(path) ?? []) watcher(item);
  }

  /** `waiting` ⇄ `protected` by the copies there are now; other states are left to offload and restore. */
  function stateFor(item: TreeItem, count: number): TreeItem['state'] {
    if (item.state !== 'waiting' && item.state !== 'protected' && item.state !== 'working') return item.state;
    return count >= settings.min() ? 'protected' : 'waiting';
  }

  async function recount(item: TreeItem): Promise<TreeItem> {
    const { copies: count } = await copies.count(item);
    const counted = await tree.update(item.entry.path, (now) => {
      const state = stateFor(now, count);
      // A newer entry has come meanwhile: it is counted in its own turn.
      if (now.segment.id !== item.segment.id || (count === now.copies && state === now.state)) return undefined;
      return { ...now, copies: count, state, since: state === now.state ? now.since : Date.now(), reason: '' };
    });
    return counted ?? item;
  }

  /** The items of one round, with their blocks. */
  async function takeRound(): Promise<RoundItem[]> {
    const round: RoundItem[] = [];
    let blocks = 0;
    for (const path of queue) {
      if (round.length >= ROUND_ITEMS || blocks >= ROUND_BLOCKS) break;
      queue.delete(path);
      const item = tree.get(path);
      if (item === undefined) {
        tellWatchers(path, undefined);
        continue;
      }
      try {
        const ids = await copies.idsOf(item);
        if (item.state === 'waiting' && !(await needs.obtainable(ids))) {
          stall(path, 'its blocks were lost; the file is sealed again');
          await needs.sealAgain(item);
          continue;
        }
        blocks += ids.length;
        round.push({ item, ids });
      } catch (error) {
        stall(path, `its manifest cannot be had now: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
    return round;
  }

  function stall(path: string, reason: string): void {
    failedLately = true;
    waiting.add(path);
    reasons.set(path, reason);
  }

  /** Who shall be given what, so that each item reaches `target` distinct holders, and each of those has the whole catalog log. */
  async function plan(round: readonly RoundItem[]): Promise<Map<string, Set<BlockId>>> {
    const byPeer = new Map<string, Set<BlockId>>();
    function give(peerId: string, ids: readonly BlockId[]): void {
      const wanted = byPeer.get(peerId) ?? new Set<BlockId>();
      byPeer.set(peerId, wanted);
      for (const id of ids) if (!needs.holdersOf(id).includes(peerId)) wanted.add(id);
    }
    const key = round[0]?.item.segment.id ?? '';
    for (const { item, ids } of round) {
      const { holders } = await copies.count(item);
      for (const peerId of needs.choose.choose(key, ids, holders)) give(peerId, ids);
    }
    const logIds = needs.logIds();
    if (byPeer.size === 0) for (const peerId of needs.choose.choose(key, logIds, [])) give(peerId, logIds);
    for (const peerId of byPeer.keys()) give(peerId, logIds.slice(logGiven.get(peerId) ?? 0));
    return byPeer;
  }

  function explain(count: number, failures: readonly string[]): string {
    const missing = settings.min() - count;
    const have = `${count} of ${settings.min()} copies`;
    const possible = needs.possibleCopies();
    if (possible < settings.min()) {
      return `${have}: the group has only ${possible} other machine${possible === 1 ? '' : 's'} that can keep it, ${settings.min() - possible} more must join`;
    }
    if (failures.length > 0) return `${have}: ${failures.join('; ')}`;
    return `${have}: waits for ${missing} more device${missing === 1 ? '' : 's'} of the group to be reachable`;
  }

  async function conclude({ item, ids }: RoundItem, failures: readonly string[]): Promise<void> {
    const path = item.entry.path;
    const counted = await recount(item);
    if (counted.copies >= settings.min()) tellWatchers(path, counted);
    if (counted.copies < settings.target()) waiting.add(path);
    if (counted.copies < settings.min()) reasons.set(path, explain(counted.copies, failures));
    else reasons.delete(path);
    // It needs more than it did when the round began, such as a checkpoint of the log.
    if (counted.copies >= settings.min()) return;
    const pushed = new Set(ids);
    if ((await copies.idsOf(counted)).some((id) => !pushed.has(id))) wake([path]);
  }

  async function runRound(round: readonly RoundItem[]): Promise<void> {
    const logCount = needs.logIds().length;
    const byPeer = await plan(round);
    const name = nameOf(round);
    const what = { name, signal: stopping.signal };
    const failures = await Promise.all(
      [...byPeer].map(async ([peerId, ids]) => {
        const failure = await push(peerId, [...ids], what);
        if (failure !== undefined) needs.choose.failed(peerId);
        else logGiven.set(peerId, logCount);
        return failure;
      }),
    );
    needs.roundEnded();
    const said = failures.filter((failure) => failure !== undefined);
    if (said.length > 0) failedLately = true;
    await Promise.all(round.map((one) => conclude(one, said)));
  }

  async function run(): Promise<void> {
    while ((queue.size > 0 || logWanted) && !stopping.signal.aborted) {
      const isForLog = logWanted;
      logWanted = false;
      const round = await takeRound();
      if (round.length === 0 && !isForLog) continue;
      try {
        await runRound(round);
      } catch (error) {
        needs.onError(error);
        for (const { item } of round)
          stall(item.entry.path, `an attempt failed: ${error instanceof Error ? error.message : String(error)}`);
      }
      if (isRoundStale) {
        isRoundStale = false;
        wakeWaiting();
      }
    }
  }

  return {
    wake,
    wakeLog() {
      logWanted = true;
      start();
    },
    retry,
    recount,
    reasonFor: (path) => reasons.get(path),
    async whenProtected(path, signal) {
      const known = tree.get(path);
      const counted = known && (await recount(known));
      if (counted !== undefined && counted.state !== 'waiting' && counted.copies >= settings.min()) {
        wake([path]);
        return counted;
      }
      const { promise, resolve, reject } = Promise.withResolvers<TreeItem | undefined>();
      const watching = watchers.get(path) ?? new Set();
      const cancel = (): void => reject(signal?.reason);
      watching.add(resolve);
      watchers.set(path, watching);
      signal?.addEventListener('abort', cancel, { once: true });
      try {
        signal?.throwIfAborted();
        wake([path]);
        const item = await promise;
        if (item === undefined) throw new DezentError('NOT_FOUND', `${path} went away while it was protected`);
        return item;
      } finally {
        watching.delete(resolve);
        if (watching.size === 0) watchers.delete(path);
        signal?.removeEventListener('abort', cancel);
      }
    },
    async [Symbol.asyncDispose]() {
      stopping.abort();
      clearInterval(timer);
      await running;
    },
  };
}

/** What a round is called in `status` and the log. */
function nameOf(round: readonly RoundItem[]): string {
  const [first] = round;
  if (first === undefined) return 'the catalog';
  return round.length === 1 ? first.item.entry.path : `${round.length} files`;
}
