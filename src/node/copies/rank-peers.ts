// Which peers keep what: for each piece of work an order of its own (rendezvous hashing), so that load spreads over the group and the same
// work goes to the same peers again.
import { createHash } from 'node:crypto';

/** The peers, best first for this key; the same everywhere for the same key. */
export function rankPeers(key: string, peerIds: readonly string[]): string[] {
  const rank = (peerId: string): string => createHash('sha256').update(`${key}\0${peerId}`).digest('hex');
  return peerIds
    .map((peerId) => ({ peerId, rank: rank(peerId) }))
    .sort((a, b) => (a.rank < b.rank ? -1 : 1))
    .map(({ peerId }) => peerId);
}
