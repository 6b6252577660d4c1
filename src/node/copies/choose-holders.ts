// Which peers shall keep some blocks: those that keep most of them already, else in an order of the work's own (rank-peers.ts); one that lately
// refused or failed comes last, so that a full disk does not hold up what others would take.
import type { BlockId } from '../../store/block.ts';
import { rankPeers } from './rank-peers.ts';

/** A peer that refused or failed is asked after all others for so long. */
const FAILED_PAUSE_MS = 120_000;

export interface ChooseHoldersNeeds {
  connected(): string[];
  target(): number;
  countDistinct(peerIds: readonly string[]): number;
  holdersOf(id: BlockId): readonly string[];
}

export interface ChooseHolders {
  /** The peers to give these blocks to, so that with `already` they make `target` distinct copies (or as many as there can be). */
  choose(key: string, ids: readonly BlockId[], already: readonly string[]): string[];
  /** The peer did not take what it was given. */
  failed(peerId: string): void;
}

export function openChooseHolders({ connected, target, countDistinct, holdersOf }: ChooseHoldersNeeds): ChooseHolders {
  const failedAt = new Map<string, number>();
  const hasFailed = (peerId: string): boolean => Date.now() - (failedAt.get(peerId) ?? 0) < FAILED_PAUSE_MS;

  function inOrder(key: string, ids: readonly BlockId[]): string[] {
    const held = new Map<string, number>();
    for (const id of ids) for (const peerId of holdersOf(id)) held.set(peerId, (held.get(peerId) ?? 0) + 1);
    return rankPeers(key, connected()).sort(
      (a, b) => Number(hasFailed(a)) - Number(hasFailed(b)) || (held.get(b) ?? 0) - (held.get(a) ?? 0),
    );
  }

  return {
    choose(key, ids, already) {
      const all = [...already];
      const chosen: string[] = [];
      for (const peerId of inOrder(key, ids)) {
        if (countDistinct(all) >= target()) break;
        if (all.includes(peerId) || countDistinct([...all, peerId]) === countDistinct(all)) continue;
        all.push(peerId);
        chosen.push(peerId);
      }
      return chosen;
    },
    failed: (peerId) => void failedAt.set(peerId, Date.now()),
  };
}
