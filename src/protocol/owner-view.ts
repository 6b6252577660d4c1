// What the records held of one owner say together. Usually there is one; after a fork there are several until an admin device merges them.
// The records kept are the maximal ones of a partial order, so which came first does not matter: nothing listed, revoked or sealed in a
// record is lost before another record that stands above it contains it too.
import {
  epochKey,
  type Device,
  type OwnerGuest,
  type Revoked,
  type SealedEpoch,
  type SealedSecret,
  type SignedOwnerRecord,
} from './owner-record.ts';
import { hashOf } from './signature.ts';

/** Forks kept of one owner. More only arise when a key is abused; records of revoked devices are dropped first. */
export const MAX_FORKS = 16;

export interface OwnerView {
  owner: string;
  /** The record that wins the fork. */
  latest: SignedOwnerRecord;
  /** All that are kept, the winner first. */
  records: SignedOwnerRecord[];
  /** By peer id; revoked ones are not in it. */
  devices: Map<string, Device>;
  /** Peer ids of listed admin devices. */
  admins: Set<string>;
  revoked: Map<string, Revoked>;
  guests: OwnerGuest[];
  /** Peer ids of the recovery guests. */
  recoveryGuests: Set<string>;
  /** Of all records; the same secret may be sealed in several of them. */
  splits: SealedSecret[];
  /** Oldest first; the last is current. */
  epochs: SealedEpoch[];
}

/** Who stands above in a fork: what rests on the phrase's later word, then the higher seq, then the hash. Never 0 for two records. */
export function compareOwnerRecords(a: SignedOwnerRecord, b: SignedOwnerRecord): number {
  return (
    a.fixed.term - b.fixed.term ||
    Buffer.compare(hashOf(a.fixedEnvelope), hashOf(b.fixedEnvelope)) ||
    a.seq - b.seq ||
    Buffer.compare(a.hash, b.hash)
  );
}

/** True when `above` makes `below` superfluous. Transitive. */
function supersedes(above: SignedOwnerRecord, below: SignedOwnerRecord): boolean {
  if (compareOwnerRecords(above, below) <= 0) return false;
  const revoked = new Set(above.revoked.map(({ peerId }) => peerId));
  const known = new Set([...revoked, ...above.devices.map(({ peerId }) => peerId)]);
  const epochs = new Set(above.epochs.map(epochKey));
  return (
    below.devices.every(({ peerId }) => known.has(peerId)) &&
    below.revoked.every(({ peerId }) => revoked.has(peerId)) &&
    below.epochs.every((epoch) => epochs.has(epochKey(epoch))) &&
    Buffer.compare(above.split.recovery, below.split.recovery) === 0
  );
}

/** The records to keep of these (all of one owner, any order, at least one), and what they say together. */
export function judgeOwner(records: readonly SignedOwnerRecord[]): OwnerView {
  const maximal = records.filter((one) => !records.some((other) => supersedes(other, one)));
  const revokedIds = new Set(maximal.flatMap(({ revoked }) => revoked.map(({ peerId }) => peerId)));
  const isSound = ({ signedBy }: SignedOwnerRecord): boolean => !revokedIds.has(signedBy);
  const rank = (a: SignedOwnerRecord, b: SignedOwnerRecord): number =>
    Number(isSound(b)) - Number(isSound(a)) || compareOwnerRecords(b, a);
  const kept = maximal.toSorted(rank).slice(0, MAX_FORKS);
  const sound = kept.filter(isSound);
  return viewOf(kept, sound.length > 0 ? sound : kept);
}

/** `kept` and `sound` (the ones whose signer nobody has revoked) in order, the winner first. */
function viewOf(kept: SignedOwnerRecord[], sound: SignedOwnerRecord[]): OwnerView {
  const [latest] = sound;
  if (latest === undefined) throw new RangeError('no owner record to judge');
  const revoked = firstOfEach(kept.flatMap((record) => record.revoked));
  const listed = firstOfEach(sound.flatMap(({ devices }) => devices));
  const devices = new Map([...listed].filter(([peerId]) => !revoked.has(peerId)));
  return {
    owner: latest.owner,
    latest,
    records: [latest, ...kept.filter((record) => record !== latest)],
    devices,
    admins: new Set(sound.flatMap(({ fixed }) => fixed.admins).filter((peerId) => devices.has(peerId))),
    revoked,
    guests: latest.guests,
    recoveryGuests: new Set(kept.map(({ fixed }) => fixed.guest)),
    splits: kept.map(({ split }) => split),
    epochs: epochsOf(kept, sound),
  };
}

function firstOfEach<T extends { peerId: string }>(items: readonly T[]): Map<string, T> {
  const found = new Map<string, T>();
  for (const item of items) if (!found.has(item.peerId)) found.set(item.peerId, item);
  return found;
}

/** A revoked device's epochs come first, so they are never current; the winner's before those of a fork that revoked somebody. */
function epochsOf(kept: SignedOwnerRecord[], sound: SignedOwnerRecord[]): SealedEpoch[] {
  const unsound = kept.filter((record) => !sound.includes(record));
  const found = new Map<string, SealedEpoch>();
  for (const epoch of [...unsound, ...sound].flatMap(({ epochs }) => epochs)) {
    const key = epochKey(epoch);
    const held = found.get(key);
    found.set(key, held === undefined ? epoch : { ...held, sealed: [...held.sealed, ...epoch.sealed] });
  }
  const newest = sound[0]?.epochs.map(epochKey) ?? [];
  const foreign = new Set(unsound.flatMap(({ epochs }) => epochs.map(epochKey)));
  const rank = (key: string): number => (newest.includes(key) ? 1 : foreign.has(key) ? 0 : 2);
  return [...found].toSorted(([a], [b]) => rank(a) - rank(b)).map(([, epoch]) => epoch);
}
