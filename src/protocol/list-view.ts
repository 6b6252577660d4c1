// What the entries held of a member list say together, judged by the owner records held; the same for everybody who holds the same.
//
// Trust: the first entry (it is the group id); then an entry on trusted parents by an admin device of the founder or of an owner whom a parent marks
// admin; and, because devices get revoked, everything below an entry by such a device that rests on it ("endorsed"). An entry by a
// device that is no admin now, and that nobody with the right has built on, counts for nothing.
// Forks: removals of all branches hold; then the additions of each branch up to its newest entry by an owner who is still an admin.
import type { ListState, SignedEntry, VaultInfo } from './member-list.ts';
import type { OwnerView } from './owner-view.ts';
import { idBytes, idText, peerIdOf, publicKeyOf } from './signature.ts';

export interface ListView extends ListState {
  founder: string;
  seq: number;
  /** Trusted entries, parents before children. */
  trusted: SignedEntry[];
  /** Trusted entries that no trusted one follows: the parents of the next. */
  tips: SignedEntry[];
}

/** Judges entries of one group in any order. Undefined while the first entry is not among them. */
export function judgeList(
  entries: readonly SignedEntry[],
  views: ReadonlyMap<string, OwnerView>,
): ListView | undefined {
  const sorted = entries.toSorted((a, b) => a.seq - b.seq || (a.hash < b.hash ? -1 : 1));
  const first = sorted.find(({ prev }) => prev.length === 0);
  if (first === undefined) return undefined;
  const byHash = new Map(sorted.map((entry) => [entry.hash, entry]));
  const isAdmin = (entry: SignedEntry): boolean =>
    views.get(entry.by)?.admins.has(peerIdOf(entry.envelope.signer)) ?? false;
  const candidates = sorted.filter((entry) => entry === first || hasRightForm(entry, first.by, byHash));
  const trusted = trustOf({ first, candidates, byHash, signedByAdmin: new Set(candidates.filter(isAdmin)) });
  const inOrder = sorted.filter((entry) => trusted.has(entry));
  const followed = new Set(inOrder.flatMap(({ prev }) => prev));
  const tips = inOrder.filter(({ hash }) => !followed.has(hash));
  return {
    ...mergeTips(tips, first.by, byHash),
    founder: first.by,
    seq: Math.max(...tips.map(({ seq }) => seq)),
    trusted: inOrder,
    tips,
  };
}

function parentsOf(entry: SignedEntry, byHash: ReadonlyMap<string, SignedEntry>): SignedEntry[] {
  return entry.prev.flatMap((hash) => byHash.get(hash) ?? []);
}

/** All parents are there and it counts on from them; the founder stays an admin for good; whom it drops it names as removed. */
function hasRightForm(entry: SignedEntry, founder: string, byHash: ReadonlyMap<string, SignedEntry>): boolean {
  const parents = parentsOf(entry, byHash);
  const counts =
    parents.length === entry.prev.length && entry.seq === 1 + Math.max(0, ...parents.map(({ seq }) => seq));
  const accounts = parents.every(
    ({ owners, vaults, removed }) =>
      [...owners.keys(), ...removed].every((owner) => isNamed(entry, owner)) &&
      [...vaults.keys()].every((peerId) => entry.vaults.has(peerId) || entry.removed.has(idText(publicKeyOf(peerId)))),
  );
  return counts && accounts && entry.prev.length > 0 && entry.owners.get(founder)?.admin === true;
}

/** As an owner, a vault (by its key) or removed: a removal is undone by listing again, never by silence. */
function isNamed({ owners, vaults, removed }: SignedEntry, id: string): boolean {
  return owners.has(id) || removed.has(id) || vaults.has(peerIdOf(idBytes(id)));
}

interface Trial {
  first: SignedEntry;
  /** By seq, then hash. */
  candidates: SignedEntry[];
  byHash: ReadonlyMap<string, SignedEntry>;
  signedByAdmin: ReadonlySet<SignedEntry>;
}

function trustOf(trial: Trial): Set<SignedEntry> {
  const { first, candidates, byHash, signedByAdmin } = trial;
  const trusted = new Set([first]);
  const hasRight = (owner: string, states: readonly SignedEntry[]): boolean =>
    owner === first.by ||
    (states.some(({ owners }) => owners.get(owner)?.admin === true) &&
      !states.some(({ removed }) => removed.has(owner)));
  // The founder's word first: an endorsement may change who else has the right, so there is one fixed order.
  const endorsers = [...signedByAdmin].sort((a, b) => Number(b.by === first.by) - Number(a.by === first.by));
  for (;;) {
    for (const entry of candidates) {
      const parents = parentsOf(entry, byHash);
      if (signedByAdmin.has(entry) && parents.every((parent) => trusted.has(parent)) && hasRight(entry.by, parents))
        trusted.add(entry);
    }
    const endorsed = endorsers
      .filter((entry) => !trusted.has(entry))
      .map((entry) => ({ entry, ...below(entry, trusted, trial) }))
      .find(({ entry, bases, isWhole }) => isWhole && hasRight(entry.by, bases));
    if (endorsed === undefined) return trusted;
    for (const entry of [endorsed.entry, ...endorsed.untrusted]) trusted.add(entry);
  }
}

/** What lies below an entry: untrusted ancestors, the trusted ones they rest on, and whether all of them are there and well formed. */
function below(
  entry: SignedEntry,
  trusted: ReadonlySet<SignedEntry>,
  { candidates, byHash }: Trial,
): { untrusted: Set<SignedEntry>; bases: SignedEntry[]; isWhole: boolean } {
  const known = new Set(candidates);
  const untrusted = new Set<SignedEntry>();
  const bases = new Set<SignedEntry>();
  const open = [entry];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    for (const parent of parentsOf(next, byHash)) {
      if (trusted.has(parent)) bases.add(parent);
      else if (!untrusted.has(parent)) {
        untrusted.add(parent);
        open.push(parent);
      }
    }
  }
  return { untrusted, bases: [...bases], isWhole: [...untrusted].every((one) => known.has(one)) };
}

function mergeTips(tips: readonly SignedEntry[], founder: string, byHash: ReadonlyMap<string, SignedEntry>): ListState {
  const removed = new Set(tips.flatMap((tip) => [...tip.removed]));
  const isAdminIn = (states: readonly SignedEntry[], owner: string): boolean =>
    owner === founder || states.every(({ owners }) => owners.get(owner)?.admin ?? true);
  const keepsRight = (owner: string): boolean => !removed.has(owner) && isAdminIn(tips, owner);
  const vouching = vouchingEntries(tips, keepsRight, byHash);
  const owners = new Map<string, { admin: boolean }>();
  const vaults = new Map<string, VaultInfo>();
  for (const entry of vouching) {
    for (const owner of entry.owners.keys()) {
      const admin = keepsRight(owner) && isAdminIn(vouching, owner);
      if (!removed.has(owner)) owners.set(owner, { admin });
    }
    for (const [peerId, vault] of entry.vaults)
      if (!removed.has(idText(publicKeyOf(peerId)))) vaults.set(peerId, vault);
  }
  return { owners, vaults, removed };
}

/** On each branch the newest entry whose owner keeps the right to sign. By hash, so that the same one wins everywhere where two differ. */
function vouchingEntries(
  tips: readonly SignedEntry[],
  keepsRight: (owner: string) => boolean,
  byHash: ReadonlyMap<string, SignedEntry>,
): SignedEntry[] {
  const found = new Set<SignedEntry>();
  const seen = new Set<SignedEntry>();
  const open = [...tips];
  for (let entry = open.pop(); entry !== undefined; entry = open.pop()) {
    if (seen.has(entry)) continue;
    seen.add(entry);
    if (keepsRight(entry.by)) found.add(entry);
    else open.push(...parentsOf(entry, byHash));
  }
  return [...found].sort((a, b) => (a.hash < b.hash ? -1 : 1));
}
