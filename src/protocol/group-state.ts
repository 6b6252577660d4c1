// The signed records of a group as one value, and how new ones are taken in: everything offered is judged together with everything held, so
// an entry may come before, with or after the owner record that bears it out. What cannot be judged, or is older than held, is left out.
import { judgeList, type ListView } from './list-view.ts';
import type { SignedEntry } from './member-list.ts';
import type { SignedOwnerRecord } from './owner-record.ts';
import { compareOwnerRecords, judgeOwner, type OwnerView } from './owner-view.ts';

export interface GroupState {
  /** All held, by hash; some may have lost their trust since. */
  entries: ReadonlyMap<string, SignedEntry>;
  /** Owners named in an entry held, also removed ones: their devices' signatures on older entries still count. */
  owners: ReadonlyMap<string, OwnerView>;
  /** Undefined until the first entry is there. */
  list: ListView | undefined;
}

export interface Taken {
  state: GroupState;
  entries: SignedEntry[];
  ownerRecords: SignedOwnerRecord[];
  /** Held records that newer ones replace. */
  replaced: SignedOwnerRecord[];
  /** Why the others were left out. */
  refused: string[];
}

export const EMPTY_STATE: GroupState = { entries: new Map(), owners: new Map(), list: undefined };

/** Takes in what the signed records bear out. Pure: nothing is kept until the caller has made it durable. */
export function take(
  held: GroupState,
  entries: readonly SignedEntry[],
  ownerRecords: readonly SignedOwnerRecord[],
): Taken {
  const oneSplit = withOneSplit(held, ownerRecords);
  const allEntries = new Map([...held.entries, ...entries.map((entry) => [entry.hash, entry] as const)]);
  const views = judgeOwners([...recordsOf(held), ...oneSplit]);
  const list = judgeList([...allEntries.values()], views);
  const trusted = new Set(list?.trusted.map(({ hash }) => hash));
  const taken = entries.filter(({ hash }) => trusted.has(hash) && !held.entries.has(hash));
  const kept = new Map([...held.entries, ...taken.map((entry) => [entry.hash, entry] as const)]);
  const named = new Set([...kept.values()].flatMap(({ owners, removed }) => [...owners.keys(), ...removed]));
  const owners = new Map([...views].filter(([owner]) => named.has(owner)));
  const isNew = (hash: Uint8Array): boolean => !heldHashes.has(toHex(hash));
  const heldHashes = new Set(recordsOf(held).map(({ hash }) => toHex(hash)));
  const keptRecords = [...owners.values()].flatMap(({ records }) => records);
  const keptHashes = new Set(keptRecords.map(({ hash }) => toHex(hash)));
  return {
    state: { entries: kept, owners, list },
    entries: taken,
    ownerRecords: keptRecords.filter(({ hash }) => isNew(hash)),
    replaced: recordsOf(held).filter(({ hash }) => !keptHashes.has(toHex(hash))),
    refused: [
      ...entries.filter(({ hash }) => !trusted.has(hash)).map(refusedEntry),
      ...ownerRecords
        .filter(({ hash }) => !keptHashes.has(toHex(hash)))
        .map((record) => refusedRecord(record, owners, oneSplit)),
    ],
  };
}

export function recordsOf({ owners }: GroupState): SignedOwnerRecord[] {
  return [...owners.values()].flatMap(({ records }) => records);
}

function judgeOwners(records: readonly SignedOwnerRecord[]): Map<string, OwnerView> {
  const byOwner = new Map<string, Map<string, SignedOwnerRecord>>();
  for (const record of records) {
    const ofOwner = byOwner.get(record.owner) ?? new Map<string, SignedOwnerRecord>();
    byOwner.set(record.owner, ofOwner.set(toHex(record.hash), record));
  }
  return new Map([...byOwner].map(([owner, ofOwner]) => [owner, judgeOwner([...ofOwner.values()])]));
}

/**
 * An owner's split secret is made once. A record with another one (the phrase was used to found the owner a second time) would make
 * contents unverifiable, so the one held, else the one of the highest record offered, stands.
 */
function withOneSplit(held: GroupState, records: readonly SignedOwnerRecord[]): SignedOwnerRecord[] {
  const splits = new Map<string, Uint8Array>();
  for (const [owner, { latest }] of held.owners) splits.set(owner, latest.split.recovery);
  return records
    .toSorted((a, b) => compareOwnerRecords(b, a))
    .filter(({ owner, split }) => {
      const first = splits.get(owner) ?? split.recovery;
      splits.set(owner, first);
      return Buffer.compare(first, split.recovery) === 0;
    });
}

function refusedEntry({ hash, by, seq }: SignedEntry): string {
  return `member list entry ${hash.slice(0, 12)} (seq ${seq}, in the name of ${by}): its signer is no admin, or what it follows is not known`;
}

function refusedRecord(
  record: SignedOwnerRecord,
  owners: ReadonlyMap<string, OwnerView>,
  oneSplit: readonly SignedOwnerRecord[],
): string {
  const what = `record ${record.seq} of owner ${record.owner}`;
  if (!oneSplit.includes(record)) return `${what}: the owner was founded twice; this one has another split secret`;
  return owners.has(record.owner) ? `${what}: a newer one is held` : `${what}: the owner is not on the member list`;
}

function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
