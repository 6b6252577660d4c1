// The group's signed records in the state database, byte for byte as received. On opening each is verified again; what cannot be read or
// verified is set aside by name and comes back from the peers.
import type { AbstractBatchOperation } from 'abstract-level';
import { isDezentError } from '../../errors.ts';
import { EMPTY_STATE, take, type GroupState, type Taken } from '../../protocol/group-state.ts';
import { verifyEntry, type SignedEntry } from '../../protocol/member-list.ts';
import { verifyOwnerRecord, type SignedOwnerRecord } from '../../protocol/owner-record.ts';
import { decodeEnvelope, encodeEnvelope, type Envelope } from '../../protocol/signature.ts';
import { readHead, type HeldHead } from './head-book.ts';
import type { StateWrite } from './invite-book.ts';
import { openTable, SYNC, type StateDb, type Table } from '../home/state.ts';

export interface GroupStore {
  /** What was found on opening. */
  readonly state: GroupState;
  readonly heads: Map<string, HeldHead>;
  /** Names of stored records that could not be read; a peer gives them again. */
  readonly damaged: string[];
  /** Writes a change in one durable batch. */
  save(
    taken: Pick<Taken, 'entries' | 'ownerRecords' | 'replaced'>,
    heads: readonly HeldHead[],
    also?: StateWrite,
  ): Promise<void>;
}

type Operation = AbstractBatchOperation<StateDb, string, Uint8Array>;

const encodings = new WeakMap<Envelope, Uint8Array>();

/** The envelope's bytes; encoded once. */
export function encodingOf(envelope: Envelope): Uint8Array {
  const known = encodings.get(envelope);
  if (known !== undefined) return known;
  const bytes = encodeEnvelope(envelope);
  encodings.set(envelope, bytes);
  return bytes;
}

/** The inverse of {@link encodingOf}. */
export function envelopeOf(bytes: Uint8Array): Envelope {
  const envelope = decodeEnvelope(bytes);
  encodings.set(envelope, bytes);
  return envelope;
}

export async function openGroupStore(db: StateDb, groupId: Uint8Array): Promise<GroupStore> {
  const entries = openTable<Uint8Array>(db, 'member-list');
  const owners = openTable<Uint8Array>(db, 'owner-records');
  const heads = openTable<Uint8Array>(db, 'heads');
  const damaged: string[] = [];
  const read = <T>(table: Table<Uint8Array>, name: string, verify: (envelope: Envelope) => T): Promise<T[]> =>
    readAll(table, verify, (key) => damaged.push(`${name} ${key}`));
  const foundEntries = await read(entries, 'member list entry', (envelope) => verifyEntry(groupId, envelope));
  const foundOwners = await read(owners, 'owner record', (envelope) => verifyOwnerRecord(groupId, envelope));
  const foundHeads = await read(heads, 'head', (envelope) => readHead(groupId, envelope));

  return {
    state: restore(foundEntries, foundOwners),
    heads: new Map(foundHeads.map((held) => [held.key, held])),
    damaged,
    async save(taken, newHeads, also) {
      const puts = (table: Table<Uint8Array>, items: readonly [string, Envelope][]): Operation[] =>
        items.map(([key, envelope]) => ({ type: 'put', sublevel: table, key, value: encodingOf(envelope) }));
      const operations: Operation[] = [
        ...puts(
          entries,
          taken.entries.map(({ hash, envelope }) => [hash, envelope]),
        ),
        ...puts(
          owners,
          taken.ownerRecords.map((record) => [ownerKey(record), record.envelope]),
        ),
        ...taken.replaced.map((record): Operation => ({ type: 'del', sublevel: owners, key: ownerKey(record) })),
        ...puts(
          heads,
          newHeads.map(({ key, envelope }) => [key, envelope]),
        ),
      ];
      const all = also === undefined ? operations : [...operations, also as unknown as Operation];
      if (all.length > 0) await db.batch(all as never, SYNC);
    },
  };
}

/** Entries that have lost their trust are held on: they may be endorsed later. */
function restore(entries: readonly SignedEntry[], owners: readonly SignedOwnerRecord[]): GroupState {
  const held = { ...EMPTY_STATE, entries: new Map(entries.map((entry) => [entry.hash, entry])) };
  return take(held, [], owners).state;
}

function ownerKey({ owner, hash }: SignedOwnerRecord): string {
  return `${owner}/${Buffer.from(hash).toString('hex')}`;
}

async function readAll<T>(
  table: Table<Uint8Array>,
  verify: (envelope: Envelope) => T,
  setAside: (key: string) => void,
): Promise<T[]> {
  const found: T[] = [];
  for (const key of await table.keys().all()) {
    try {
      const bytes = await table.get(key);
      if (bytes !== undefined) found.push(verify(envelopeOf(bytes)));
    } catch (error) {
      // Both mean "not to be used"; anything else (the disk) is no reason to go on without it.
      if (!isDezentError(error, 'BAD_RECORD') && !isDamage(error)) throw error;
      setAside(key);
    }
  }
  return found;
}

/** level wraps what its decoder throws. */
function isDamage(error: unknown): boolean {
  return error instanceof Error && isDezentError(error.cause, 'BAD_RECORD');
}
