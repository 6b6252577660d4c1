// What a holder has promised: its receipts with their lists, and for each block which receipts cover it and when its bytes were last checked.
// One atomic batch per change, synced where somebody relies on it. A damaged record counts as a receipt that nobody can release: doubt keeps data.
//
// tables:  kept  block id → Kept · receipts  serial → KeptReceipt · nonces  hex → serial, 0 = released (for ever, so replays find nothing)
//          free  block id → 0: a release ended its last receipt · meta  'meta' → Meta
import { isDezentError } from '../../errors.ts';
import { joinIds, splitIds } from '../../store/block-ids.ts';
import type { BlockId } from '../../store/block.ts';
import { openTable, SYNC } from '../home/state.ts';
import type { StateDb } from '../home/state.ts';

/** Stands for receipts whose records were lost; never released. */
export const LOST_RECEIPT = 0;

/** Nonces that were released map to this; serials begin at 1. */
const RELEASED = 0;

const META_KEY = 'meta';
const FREE_BATCH = 1024;

/** What is known of a block that is kept for others. */
export interface Kept {
  /** When its bytes were last put or re-hashed, ms since 1970. */
  verifiedAt: number;
  bytes: number;
  /** Serials of the unreleased receipts that cover it. */
  receipts: number[];
}

export interface KeptReceipt {
  /** Peer id of the device that asked. */
  device: string;
  nonce: Uint8Array;
  envelope: Uint8Array;
  /** Ids not yet released, 36 bytes each. */
  ids: Uint8Array;
  /** Who else keeps the list, as the device said at the end. */
  holders: string[];
}

interface Meta {
  v: 1;
  nextSerial: number;
  heldBytes: number;
  /** Records were lost while blocks were here: a block without record may be covered by a receipt. */
  lost: boolean;
}

export interface NewReceipt {
  device: string;
  nonce: Uint8Array;
  envelope: Uint8Array;
  blocks: readonly { id: BlockId; length: number }[];
}

export interface KeepLedger {
  /** Bytes of all blocks with a record. */
  heldBytes(): number;
  kept(id: BlockId): Kept | undefined;
  /** True when an unreleased receipt covers it, or one that was lost may. */
  covers(id: BlockId): boolean;
  /** Blocks were put or re-hashed just now. Not synced: losing it costs a re-hash. */
  noteVerified(blocks: readonly { id: BlockId; length: number }[], how: { at: number; put: boolean }): Promise<void>;
  /** Durable when it returns. */
  addReceipt(receipt: NewReceipt, at: number): Promise<void>;
  receiptOf(nonce: Uint8Array): { serial: number; receipt: KeptReceipt } | 'released' | undefined;
  /** Ends the cover of a receipt for these ids (undefined: all). Durable when it returns. */
  release(serial: number, ids: ReadonlySet<BlockId> | undefined): Promise<void>;
  setHolders(serial: number, holders: string[]): Promise<void>;
  /** Blocks that a release has left without receipt, in pieces. */
  free(): AsyncIterable<BlockId[]>;
  /** The blocks are gone. */
  forget(ids: readonly BlockId[]): Promise<void>;
}

/** `storeHasBlocks`: whether a ledger that turns out to be new means that one was lost. Calls must not overlap; the keeper sees to it. */
export async function openKeepLedger(db: StateDb, storeHasBlocks: () => Promise<boolean>): Promise<KeepLedger> {
  const kept = openTable<Kept>(db, 'kept');
  const receipts = openTable<KeptReceipt>(db, 'receipts');
  const nonces = openTable<number>(db, 'nonces');
  const free = openTable<number>(db, 'free');
  const metas = openTable<Meta>(db, 'meta');
  let meta = await loadMeta();

  async function loadMeta(): Promise<Meta> {
    let found: Meta | undefined;
    try {
      found = await metas.get(META_KEY);
    } catch (error) {
      if (!isDezentError(error, 'BAD_RECORD')) throw error;
    }
    if (found !== undefined) return found;
    const lost = await storeHasBlocks();
    const fresh: Meta = { v: 1, nextSerial: await highestSerial(), heldBytes: 0, lost };
    await metas.put(META_KEY, fresh, SYNC);
    return fresh;
  }
  /** One more than the highest used: 1 in a new ledger. */
  async function highestSerial(): Promise<number> {
    for await (const key of receipts.keys({ reverse: true, limit: 1 })) return Number.parseInt(key, 16) + 1;
    return 1;
  }
  function keptOf(id: BlockId): Kept | undefined {
    try {
      return kept.getSync(id);
    } catch (error) {
      if (!isDezentError(error, 'BAD_RECORD')) throw error;
      return { verifiedAt: 0, bytes: 0, receipts: [LOST_RECEIPT] };
    }
  }
  /** Writes what the change queued and the new meta in one batch. */
  async function commit(
    next: Meta,
    options: object,
    fill: (batch: ReturnType<StateDb['batch']>) => void,
  ): Promise<void> {
    const batch = db.batch();
    fill(batch);
    batch.put(META_KEY, next, { sublevel: metas });
    await batch.write(options);
    meta = next;
  }

  return {
    heldBytes: () => meta.heldBytes,
    kept: keptOf,
    covers(id) {
      const record = keptOf(id);
      return record === undefined ? meta.lost : record.receipts.length > 0;
    },
    async noteVerified(blocks, { at, put }) {
      const before = blocks.map(({ id }) => keptOf(id));
      const added = blocks.reduce((sum, { length }, index) => sum + (before[index] === undefined ? length : 0), 0);
      await commit({ ...meta, heldBytes: meta.heldBytes + added }, {}, (batch) => {
        for (const [index, { id, length }] of blocks.entries()) {
          // What was not here until now, no lost receipt can cover.
          const unknown = meta.lost && !put ? [LOST_RECEIPT] : [];
          batch.put(
            id,
            { receipts: before[index]?.receipts ?? unknown, bytes: length, verifiedAt: at },
            { sublevel: kept },
          );
        }
      });
    },
    async addReceipt({ device, nonce, envelope, blocks }, at) {
      const serial = meta.nextSerial;
      let heldBytes = meta.heldBytes;
      const records = blocks.map(({ id, length }) => {
        const before = keptOf(id);
        if (before === undefined) heldBytes += length;
        const older = before?.receipts ?? (meta.lost ? [LOST_RECEIPT] : []);
        return { id, record: { verifiedAt: before?.verifiedAt ?? at, bytes: length, receipts: [...older, serial] } };
      });
      await commit({ ...meta, nextSerial: serial + 1, heldBytes }, SYNC, (batch) => {
        for (const { id, record } of records) batch.put(id, record, { sublevel: kept }).del(id, { sublevel: free });
        const ids = joinIds(blocks.map(({ id }) => id));
        batch.put(serialKey(serial), { device, nonce, envelope, ids, holders: [] }, { sublevel: receipts });
        batch.put(hex(nonce), serial, { sublevel: nonces });
      });
    },
    receiptOf(nonce) {
      const serial = nonces.getSync(hex(nonce));
      if (serial === undefined || serial === RELEASED) return serial === undefined ? undefined : 'released';
      const receipt = receipts.getSync(serialKey(serial));
      return receipt === undefined ? undefined : { serial, receipt };
    },
    async release(serial, ids) {
      const receipt = receipts.getSync(serialKey(serial));
      if (receipt === undefined) return;
      const all = splitIds(receipt.ids);
      const going = ids === undefined ? all : all.filter((id) => ids.has(id));
      const stays = ids === undefined ? [] : all.filter((id) => !ids.has(id));
      await commit(meta, SYNC, (batch) => {
        for (const id of going) {
          const record = keptOf(id);
          if (record === undefined) continue;
          const left = record.receipts.filter((other) => other !== serial);
          batch.put(id, { ...record, receipts: left }, { sublevel: kept });
          if (left.length === 0) batch.put(id, 0, { sublevel: free });
        }
        if (stays.length > 0) {
          batch.put(serialKey(serial), { ...receipt, ids: joinIds(stays) }, { sublevel: receipts });
        } else {
          batch.del(serialKey(serial), { sublevel: receipts }).put(hex(receipt.nonce), RELEASED, { sublevel: nonces });
        }
      });
    },
    async setHolders(serial, holders) {
      const receipt = receipts.getSync(serialKey(serial));
      if (receipt !== undefined) await receipts.put(serialKey(serial), { ...receipt, holders });
    },
    async *free() {
      let piece: BlockId[] = [];
      for await (const key of free.keys()) {
        piece.push(key as BlockId);
        if (piece.length < FREE_BATCH) continue;
        yield piece;
        piece = [];
      }
      if (piece.length > 0) yield piece;
    },
    async forget(ids) {
      const gone = ids.reduce((sum, id) => sum + (keptOf(id)?.bytes ?? 0), 0);
      await commit({ ...meta, heldBytes: Math.max(0, meta.heldBytes - gone) }, SYNC, (batch) => {
        for (const id of ids) batch.del(id, { sublevel: kept }).del(id, { sublevel: free });
      });
    },
  };
}

const serialKey = (serial: number): string => serial.toString(16).padStart(12, '0');
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
