// The journal of every step that touches a user's file: written with sync before the step, removed when the last one is done. Recovery
// reads it at start and after any failed step.
import { randomBytes } from 'node:crypto';
import type { Root } from '../../store/manifest.ts';
import { rootKey } from '../files/content-index.ts';
import { readSound } from '../home/sound-table.ts';
import { openTable, SYNC, type StateDb } from '../home/state.ts';

/** An original giving way to its stub. `intent`: somewhere in the swap; `stubbed`: the stub stands, the original waits in quarantine. */
export interface OffloadRecord {
  v: 1;
  op: 'offload';
  id: string;
  step: 'intent' | 'stubbed';
  /** Relative to FOLDER; the file may have been renamed since. */
  path: string;
  /** Its name in quarantine. */
  name: string;
  fileId: Uint8Array;
  /** The content: what the stub names, and what the quarantined original must still be. */
  root: Root;
  /** The catalog segment of its entry: proofs cover it too, also when the owner has deleted the file meanwhile. */
  segment: { id: string; seq: number };
  /** Identity (identity.ts) of the original. */
  seen: string;
  /** ms since 1970: when the original may be removed. */
  dueAt: number;
}

/** An original being written again. Paths are absolute: a stub may be opened outside of FOLDER. */
export interface RestoreRecord {
  v: 1;
  op: 'restore';
  id: string;
  tmp: string;
  target: string;
  stub: string;
  /** Identity of the stub when it was read: only that one is removed. */
  stubSeen: string;
}

/** Entries being laid out below a directory: what a crash leaves there are temporary files of ours. */
export interface LayOutRecord {
  v: 1;
  op: 'lay-out';
  id: string;
  /** Absolute. */
  root: string;
}

export type JournalRecord = OffloadRecord | RestoreRecord | LayOutRecord;

export interface Journal {
  /** Durable when it returns. */
  write(record: JournalRecord): Promise<void>;
  remove(id: string): Promise<void>;
  get(id: string): JournalRecord | undefined;
  all(): JournalRecord[];
  /** The operation that holds this content of this file in quarantine. */
  quarantined(fileId: Uint8Array, root: Root): OffloadRecord | undefined;
  /** All offloads that are not finished, from memory. */
  offloads(): Iterable<OffloadRecord>;
}

export const newOperationId = (): string => randomBytes(10).toString('hex');

const keyOf = ({ fileId, root }: Pick<OffloadRecord, 'fileId' | 'root'>): string =>
  `${Buffer.from(fileId).toString('hex')}/${rootKey(root)}`;

/** Opens the journal; `onDamaged` hears of records that cannot be read: what they were about stays where it is. */
export async function openJournal(db: StateDb, onDamaged: (count: number) => void): Promise<Journal> {
  const table = openTable<JournalRecord>(db, 'journal');
  const records = await readSound(table);
  /** Ids by content, so that looking for one of many thousands is cheap. */
  const byContent = new Map<string, Set<string>>();
  for (const record of records.values()) index(record);
  const keys = await table.keys().all();
  if (keys.length > records.size) onDamaged(keys.length - records.size);

  function index(record: JournalRecord): void {
    if (record.op !== 'offload') return;
    const ids = byContent.get(keyOf(record)) ?? new Set();
    byContent.set(keyOf(record), ids.add(record.id));
  }

  return {
    async write(record) {
      await table.put(record.id, record, SYNC);
      records.set(record.id, record);
      index(record);
    },
    async remove(id) {
      const record = records.get(id);
      await table.del(id, SYNC);
      records.delete(id);
      if (record?.op !== 'offload') return;
      const ids = byContent.get(keyOf(record));
      ids?.delete(id);
      if (ids?.size === 0) byContent.delete(keyOf(record));
    },
    get: (id) => records.get(id),
    all: () => [...records.values()],
    *offloads() {
      for (const record of records.values()) if (record.op === 'offload') yield record;
    },
    quarantined(fileId, root) {
      const [id = ''] = byContent.get(keyOf({ fileId, root })) ?? [];
      const record = records.get(id);
      return record?.op === 'offload' ? record : undefined;
    },
  };
}
