// Copies: how many distinct holders besides this machine keep something. The one place where that is decided.

export interface CountedMember {
  peerId: string;
  /** Owner id; null for a vault. */
  owner: string | null;
  machine: string;
}

/**
 * The number of copies that these holders make: own devices and vaults count once per machine, all devices of one other owner once. A holder
 * on this device's machine, or one that is not (any more) on the member list, does not count. Unknown while this device is not listed: 0.
 */
export function countCopies(holders: Iterable<string>, members: Iterable<CountedMember>, self: string): number {
  const byPeer = new Map<string, CountedMember>();
  for (const member of members) byPeer.set(member.peerId, member);
  const here = byPeer.get(self);
  if (here === undefined) return 0;
  const distinct = new Set<string>();
  for (const peerId of holders) {
    const holder = byPeer.get(peerId);
    if (holder === undefined || holder.machine === here.machine) continue;
    const isOther = holder.owner !== null && holder.owner !== here.owner;
    distinct.add(isOther ? `owner ${holder.owner}` : `machine ${holder.machine}`);
  }
  return distinct.size;
}
