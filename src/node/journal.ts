// The journal of every step that touches a user's file: written with sync before the step, removed when the last one is done. Recovery
// reads it at start and after any failed step.
import { randomBytes } from 'node:crypto';
import type { Root } from '../store/manifest.ts';
import { rootKey } from './content-index.ts';
import { openTable, SYNC, type StateDb } from './state.ts';

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
  /** The operation that holds this content of this file in quarantine. */
  quarantined(fileId: Uint8Array, root: Root): OffloadRecord | undefined;
  /** All offloads that are not finished, from memory. */
  offloads(): Iterable<OffloadRecord>;
}

export const newOperationId = (): string => randomBytes(10).toString('hex');

const keyOf = (fileId: Uint8Array, root: Root): string => `${Buffer.from(fileId).toString('hex')}/${rootKey(root)}`;

export async function openJournal(db: StateDb): Promise<Journal> {
  const records = openTable<JournalRecord>(db, 'journal');
  const byContent = new Map<string, OffloadRecord>();
  for await (const record of records.values()) {
    if (record.op === 'offload') byContent.set(keyOf(record.fileId, record.root), record);
  }
  return {
    async write(record) {
      await records.put(record.id, record, SYNC);
      if (record.op === 'offload') byContent.set(keyOf(record.fileId, record.root), record);
    },
    async remove(id) {
      const record = records.getSync(id);
      await records.del(id, SYNC);
      if (record?.op !== 'offload') return;
      const key = keyOf(record.fileId, record.root);
      if (byContent.get(key)?.id === id) byContent.delete(key);
    },
    get: (id) => records.getSync(id),
    all: () => records.values(),
    offloads: () => byContent.values(),
    quarantined: (fileId, root) => byContent.get(keyOf(fileId, root)),
  };
}
