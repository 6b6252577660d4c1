// Keeps every known member connected: one dial loop with backoff per peer, besides libp2p's keep-alive tags, which give up after a few tries.
// Fast at first (1 s, 2 s, …), at most a minute apart; a reason to hope (a peer came, an address was learned, the network changed) starts over.
import type { Log } from '../home/log.ts';

const FIRST_DELAY_MS = 1_000;
const MAX_DELAY_MS = 60_000;
/** Both sides lose a connection at the same moment: the one with the smaller id dials at once, so they rarely dial each other together. */
const YIELD_MS = 1_000;

export interface ReconnectNeeds {
  /** This device. */
  peerId: string;
  /** Peers that should be connected. */
  wanted(): string[];
  isConnected(peerId: string): boolean;
  /** Dials and greets; rejects when the peer is not connected afterwards. */
  dial(peerId: string, signal: AbortSignal): Promise<void>;
  log: Log;
}

export interface Reconnect {
  /** Starts a loop for every wanted peer that has none and is not connected. */
  tend(): void;
  /** Forgets the backoff of these peers (all, if none are named) and dials at once. */
  hurry(peerIds?: readonly string[]): void;
  lost(peerId: string): void;
  stop(): void;
}

interface Loop {
  failures: number;
  timer: NodeJS.Timeout | undefined;
  dialling: boolean;
}

export function openReconnect(needs: ReconnectNeeds): Reconnect {
  const loops = new Map<string, Loop>();
  const stopping = new AbortController();

  const schedule = (peerId: string, delayMs: number): void => {
    if (stopping.signal.aborted) return;
    const loop = loops.get(peerId) ?? { failures: 0, timer: undefined, dialling: false };
    loops.set(peerId, loop);
    if (loop.dialling) return;
    clearTimeout(loop.timer);
    loop.timer = setTimeout(() => void run(peerId, loop), delayMs);
  };
  const run = async (peerId: string, loop: Loop): Promise<void> => {
    if (needs.isConnected(peerId) || !needs.wanted().includes(peerId)) {
      loops.delete(peerId);
      return;
    }
    loop.dialling = true;
    try {
      await needs.dial(peerId, stopping.signal);
      loops.delete(peerId);
    } catch (error) {
      loop.failures += 1;
      if (!stopping.signal.aborted)
        needs.log.debug({ peer: peerId, failures: loop.failures, error }, 'a peer could not be dialled');
    }
    loop.dialling = false;
    if (loops.get(peerId) === loop) schedule(peerId, delayAfter(loop.failures));
  };
  const hurry = (peerIds: readonly string[]): void => {
    for (const peerId of peerIds) {
      if (needs.isConnected(peerId)) continue;
      const loop = loops.get(peerId);
      if (loop !== undefined) loop.failures = 0;
      schedule(peerId, 0);
    }
  };

  return {
    tend: () => hurry(needs.wanted().filter((peerId) => !loops.has(peerId))),
    hurry: (peerIds) => hurry(peerIds?.filter((peerId) => needs.wanted().includes(peerId)) ?? needs.wanted()),
    lost(peerId) {
      if (needs.wanted().includes(peerId)) schedule(peerId, needs.peerId < peerId ? 0 : YIELD_MS);
    },
    stop() {
      stopping.abort();
      for (const { timer } of loops.values()) clearTimeout(timer);
      loops.clear();
    },
  };
}

/** Doubling, with a spread of a quarter so that a group does not dial in step. */
function delayAfter(failures: number): number {
  const delayMs = Math.min(FIRST_DELAY_MS * 2 ** Math.max(0, failures - 1), MAX_DELAY_MS);
  return delayMs * (0.75 + Math.random() / 4);
}
