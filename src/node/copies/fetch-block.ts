// fetch: the bytes of a block, from this machine or from the peer that gives it fastest. Order of places: own store, receipts, HAVE index,
// DHT providers. A peer that fails is passed over for the next; one that gives wrong bytes is named as a liar and not asked again for long.
import { DezentError, isDezentError } from '../../errors.ts';
import type { BlockId } from '../../store/block.ts';
import type { BlockStore } from '../../store/block-store.ts';

/** A peer that gave wrong bytes is not asked for so long. */
const LIAR_PAUSE_MS = 3_600_000;
/** A peer that failed is asked last for so long. */
const FAILED_PAUSE_MS = 10_000;
/** No answer within this time: the next peer is asked. The largest block needs 8.4 s at 500 kB/s. */
const ANSWER_MS = 20_000;
/** How much of a new measurement goes into a peer's speed. */
const SPEED_WEIGHT = 0.2;
/** Assumed of a peer never asked, so that it gets its try. */
const FIRST_SPEED_BYTES_PER_S: number = 50 * 1024 * 1024;

export interface FetchNeeds {
  store: Pick<BlockStore, 'get'>;
  /** Asks one peer; undefined when it does not have it; BAD_BLOCK when it gave other bytes. */
  want(peerId: string, id: BlockId, options: { signal: AbortSignal }): Promise<Uint8Array | undefined>;
  /** Peers that are said to have it, most trusted first. */
  locate(id: BlockId): string[];
  /** Slower places to ask when nobody known has it (DHT). */
  search(id: BlockId, options: { signal: AbortSignal }): AsyncIterable<string>;
  isConnected(peerId: string): boolean;
  /** For messages: a peer's name and when it was last here. */
  describe(peerId: string): string;
  onLiar(peerId: string, id: BlockId): void;
  /** A peer that was said to have it does not. */
  onAbsent(peerId: string, id: BlockId): void;
  onFetched(peerId: string, id: BlockId, bytes: number): void;
}

export interface Fetched {
  bytes: Uint8Array;
  /** Peer id; undefined: this machine. */
  from: string | undefined;
}

export interface FetchBlock {
  /** Throws UNREACHABLE naming who has it and when they were last seen. */
  fetch(id: BlockId, options?: { signal?: AbortSignal; notLocal?: boolean }): Promise<Fetched>;
}

interface Standing {
  bytesPerS: number;
  inFlight: number;
  failedAt: number;
  liedAt: number;
}

export function openFetchBlock(needs: FetchNeeds): FetchBlock {
  const standings = new Map<string, Standing>();

  function standingOf(peerId: string): Standing {
    const standing = standings.get(peerId) ?? {
      bytesPerS: FIRST_SPEED_BYTES_PER_S,
      inFlight: 0,
      failedAt: 0,
      liedAt: 0,
    };
    standings.set(peerId, standing);
    return standing;
  }

  /** Smaller is better: the time a block would take, with those already asked of this peer before it. */
  function cost(peerId: string): number {
    const { bytesPerS, inFlight, failedAt } = standingOf(peerId);
    const away = needs.isConnected(peerId) ? 0 : 1e6;
    const failed = Date.now() - failedAt < FAILED_PAUSE_MS ? 1e3 : 0;
    return (inFlight + 1) / bytesPerS + failed + away;
  }

  const isTrusted = (peerId: string): boolean => Date.now() - standingOf(peerId).liedAt > LIAR_PAUSE_MS;

  function noteFailure(peerId: string, id: BlockId, error: unknown): void {
    const standing = standingOf(peerId);
    standing.failedAt = Date.now();
    if (!isDezentError(error, 'BAD_BLOCK')) return;
    standing.liedAt = Date.now();
    needs.onLiar(peerId, id);
  }

  /** The bytes, or why this peer gave none. */
  async function ask(
    peerId: string,
    id: BlockId,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array | { failure: string }> {
    const standing = standingOf(peerId);
    const startedAt = performance.now();
    standing.inFlight += 1;
    try {
      const deadline = AbortSignal.timeout(ANSWER_MS);
      const bytes = await needs.want(peerId, id, { signal: signal ? AbortSignal.any([signal, deadline]) : deadline });
      if (bytes === undefined) {
        needs.onAbsent(peerId, id);
        return { failure: `${needs.describe(peerId)} does not have it any more` };
      }
      const measured = (bytes.length * 1000) / Math.max(0.1, performance.now() - startedAt);
      standing.bytesPerS += SPEED_WEIGHT * (measured - standing.bytesPerS);
      needs.onFetched(peerId, id, bytes.length);
      return bytes;
    } catch (error) {
      signal?.throwIfAborted();
      noteFailure(peerId, id, error);
      return { failure: `${needs.describe(peerId)}: ${error instanceof Error ? error.message : String(error)}` };
    } finally {
      standing.inFlight -= 1;
    }
  }

  async function fromPeers(id: BlockId, signal: AbortSignal | undefined): Promise<Fetched> {
    const tried = new Set<string>();
    const failures: string[] = [];
    async function tryOne(peerId: string): Promise<Fetched | undefined> {
      tried.add(peerId);
      const answer = await ask(peerId, id, signal);
      if (answer instanceof Uint8Array) return { bytes: answer, from: peerId };
      failures.push(answer.failure);
      return undefined;
    }
    for (;;) {
      const next = needs
        .locate(id)
        .filter((peerId) => !tried.has(peerId) && isTrusted(peerId))
        .sort((a, b) => cost(a) - cost(b))[0];
      if (next === undefined) break;
      const fetched = await tryOne(next);
      if (fetched) return fetched;
    }
    const search = AbortSignal.timeout(ANSWER_MS);
    for await (const peerId of needs.search(id, { signal: signal ? AbortSignal.any([signal, search]) : search })) {
      if (tried.has(peerId) || !isTrusted(peerId)) continue;
      const fetched = await tryOne(peerId);
      if (fetched) return fetched;
    }
    const who = failures.length === 0 ? 'no device is known to have it' : failures.join('; ');
    throw new DezentError('UNREACHABLE', `block ${id} cannot be had now: ${who}`, {
      hint: 'Start one of the named devices (or wait for it) and try again; nothing was changed.',
    });
  }

  return {
    async fetch(id, { signal, notLocal = false } = {}) {
      const local = notLocal ? undefined : await needs.store.get(id, signal ? { signal } : {});
      return local === undefined ? fromPeers(id, signal) : { bytes: local, from: undefined };
    },
  };
}
