// The journal of every step that touches a user's file: written with sync before the step, removed when the last one is done. Recovery
// reads it at start and after any failed step.
import { randomBytes } from 'node:crypto';
import { openTable, SYNC, type StateDb } from './state.ts';

/** An original giving way to its stub. `intent`: somewhere in the swap; `stubbed`: the stub stands, the original waits in quarantine. */
export interface OffloadRecord {
  v: 1;
  op: 'offload';
  id: string;
  step: 'intent' | 'stubbed';
  /** Relative to FOLDER. */
  path: string;
  fileId: Uint8Array;
  /** The root that the stub names, as rootKey: tells its stub from an earlier one. */
  root: string;
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

export type JournalRecord = OffloadRecord | RestoreRecord;

export interface Journal {
  /** Durable when it returns. */
  write(record: JournalRecord): Promise<void>;
  remove(id: string): Promise<void>;
  get(id: string): JournalRecord | undefined;
  all(): AsyncIterable<JournalRecord>;
  /** The operation that holds the original of this path in quarantine. */
  quarantined(path: string): OffloadRecord | undefined;
}

export const newOperationId = (): string => randomBytes(10).toString('hex');

export async function openJournal(db: StateDb): Promise<Journal> {
  const records = openTable<JournalRecord>(db, 'journal');
  const byPath = new Map<string, OffloadRecord>();
  for await (const record of records.values()) if (record.op === 'offload') byPath.set(record.path, record);
  return {
    async write(record) {
      await records.put(record.id, record, SYNC);
      if (record.op === 'offload') byPath.set(record.path, record);
    },
    async remove(id) {
      const record = records.getSync(id);
      await records.del(id, SYNC);
      if (record?.op === 'offload' && byPath.get(record.path)?.id === id) byPath.delete(record.path);
    },
    get: (id) => records.getSync(id),
    all: () => records.values(),
    quarantined: (path) => byPath.get(path),
  };
}
