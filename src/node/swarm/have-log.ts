// The durable log of what came to and left this node's store, and how far each peer has been told. Old entries go once all members have them,
// or when there are too many: a peer that is behind the log's beginning gets the whole list.
import type { BlockId } from '../../store/block.ts';
import { readSound, soundValue } from '../home/sound-table.ts';
import { openTable, SYNC, type StateDb } from '../home/state.ts';

/** Each entry is what came together, so this is many blocks; a peer behind by more is told everything anew. */
const MAX_LOG_ENTRIES = 10_000;
/** Ids taken together into one message. */
const MAX_DELTA_IDS = 8_192;
const SEQ_DIGITS = 14;

interface Entry {
  added: BlockId[];
  removed: BlockId[];
}

/** For an entry that is damaged: the next whole list mends it. */
const NOTHING: Entry = { added: [], removed: [] };

export interface Cursor {
  /** All entries up to here have been told. */
  seq: number;
  /** When the whole list was told, milliseconds since 1970. */
  fullAt: number;
}

export interface Delta extends Entry {
  /** The last entry in it. */
  seq: number;
}

export interface HaveLog {
  /** The last entry's number; 0 = none. */
  lastSeq(): number;
  append(entry: Entry): Promise<void>;
  /** Undefined when the peer was never told, or entries after its cursor are gone. */
  cursorOf(peerId: string): Cursor | undefined;
  moveCursor(peerId: string, cursor: Cursor): Promise<void>;
  /** The next entries after this number, as one; undefined when there are none. */
  after(seq: number): Promise<Delta | undefined>;
  /** Drops entries that all these peers have been told, and what is too much. */
  trim(peerIds: readonly string[]): Promise<void>;
}

export async function openHaveLog(db: StateDb): Promise<HaveLog> {
  const log = openTable<Entry>(db, 'have-log');
  const cursorTable = openTable<Cursor>(db, 'have-cursors');
  const cursors = await readSound(cursorTable);
  // An empty log still knows its number by the cursors.
  const [first] = await log.keys({ limit: 1 }).all();
  const [last] = await log.keys({ limit: 1, reverse: true }).all();
  let lastSeq = Math.max(
    last === undefined ? 0 : Number.parseInt(last, 16),
    ...[...cursors.values()].map(({ seq }) => seq),
    0,
  );
  let firstSeq = first === undefined ? lastSeq + 1 : Number.parseInt(first, 16);

  return {
    lastSeq: () => lastSeq,
    async append(entry) {
      lastSeq += 1;
      await log.put(keyOf(lastSeq), entry, SYNC);
    },
    cursorOf(peerId) {
      const cursor = cursors.get(peerId);
      return cursor === undefined || cursor.seq < firstSeq - 1 ? undefined : cursor;
    },
    async moveCursor(peerId, cursor) {
      cursors.set(peerId, cursor);
      await cursorTable.put(peerId, cursor);
    },
    async after(seq) {
      const state = new Map<BlockId, 'added' | 'removed'>();
      let reached = seq;
      for await (const key of log.keys({ gt: keyOf(seq) })) {
        const { added, removed } = soundValue(log, key) ?? NOTHING;
        if (reached > seq && state.size + added.length + removed.length > MAX_DELTA_IDS) break;
        for (const id of added) state.set(id, 'added');
        for (const id of removed) state.set(id, 'removed');
        reached = Number.parseInt(key, 16);
      }
      if (reached === seq) return undefined;
      const idsOf = (kind: 'added' | 'removed'): BlockId[] =>
        [...state].filter(([, is]) => is === kind).map(([id]) => id);
      return { seq: reached, added: idsOf('added'), removed: idsOf('removed') };
    },
    async trim(peerIds) {
      const told = Math.min(lastSeq, ...peerIds.map((peerId) => cursors.get(peerId)?.seq ?? lastSeq));
      const upTo = Math.max(told, lastSeq - MAX_LOG_ENTRIES);
      if (upTo < firstSeq) return;
      await log.clear({ lte: keyOf(upTo) });
      firstSeq = upTo + 1;
    },
  };
}

function keyOf(seq: number): string {
  return seq.toString(16).padStart(SEQ_DIGITS, '0');
}
