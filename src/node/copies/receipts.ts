// Receipts that other devices gave this one: who keeps which block for us, since when it is known, and what is still to be released there.
// Nothing counts as a copy that is not in here. A damaged record counts as no copy: doubt keeps the file where it is.
//
// tables:  holders  serial → [holder, nonce, issuedAt] (also in memory) · lists  serial → [envelope, ids not let go, 36 bytes each]
//          held  block id → [serial, provedAt, …] · nonces  hex → serial, 0 = let go · pending  number → [holder, nonce, ids; none: all]
//          heads  peer id → seq
import { DezentError, isDezentError } from '../../errors.ts';
import { digestOfIds, RELEASE_MAX_NONCES, signRelease, verifyReceipt } from '../../protocol/receipt.ts';
import { encodeEnvelope } from '../../protocol/signature.ts';
import type { Envelope, SigningKey } from '../../protocol/signature.ts';
import { joinIds, splitIds } from '../../store/block-ids.ts';
import type { BlockId } from '../../store/block.ts';
import { countCopies } from './copies.ts';
import type { CountedMember } from './copies.ts';
import { openTable, SYNC } from '../home/state.ts';
import type { StateDb } from '../home/state.ts';

const LET_GO = 0;

/** A peer that keeps a block for this device. */
export interface Holding {
  peerId: string;
  nonce: Uint8Array;
  /** ms since 1970, the holder's clock. */
  issuedAt: number;
  /** When this device last got the receipt or a proof for this very block, own clock. */
  provedAt: number;
}

export interface Copies {
  /** Distinct copies of the block that has the fewest; 0 for no blocks. */
  copies: number;
  /** Peers that hold every one of the blocks. */
  holders: string[];
  /** The blocks that have just `copies`. */
  scarce: BlockId[];
}

export interface ReceiptsNeeds {
  /** A sublevel for the receipts alone. */
  db: StateDb;
  group: { readonly groupIdBytes: Uint8Array; readonly deviceId: string; members(): readonly CountedMember[] };
  deviceKey: SigningKey;
  now?(): number;
}

export interface Receipts {
  /** Keeps a receipt for exactly these ids, durably. Throws BAD_RECORD when it is not one, not for this device, or was let go before. */
  add(envelope: Envelope, ids: readonly BlockId[]): Promise<void>;
  /** One for each peer that keeps the block and was not dropped. */
  holdersOf(id: BlockId): Holding[];
  /** The peer has proved these blocks. */
  proved(peerId: string, ids: readonly BlockId[], at: number): Promise<void>;
  /** The peer does not keep these blocks as it said: it counts no more, durably, and is told with the next releases. */
  drop(peerId: string, ids: readonly BlockId[]): Promise<void>;
  /** Nobody need keep these blocks any more for this device: no copies count from now on, durably. */
  release(ids: readonly BlockId[]): Promise<void>;
  /** Gives `send` one signed release after the other for this peer, and forgets each that `send` has returned from. */
  deliverReleases(peerId: string, send: (release: Envelope) => Promise<unknown>): Promise<void>;
  copiesOf(ids: readonly BlockId[]): Copies;
  /** Distinct copies that these peers make, as in docs/terms.md. */
  countDistinct(peerIds: Iterable<string>): number;
  /** Those of the ids that the peer gave no receipt for. */
  missingFrom(peerId: string, ids: readonly BlockId[]): BlockId[];
  /** The peer keeps this device's head with this seq. */
  headAcked(peerId: string, seq: number): Promise<void>;
  /** The highest seq that the peer acknowledged; 0: none. */
  ackedHead(peerId: string): number;
}

type Holder = [peerId: string, nonce: Uint8Array, issuedAt: number];
type List = [envelope: Uint8Array, ids: Uint8Array];
type Pending = [holder: string, nonce: Uint8Array, ids: Uint8Array];

interface Tables {
  db: StateDb;
  holders: ReturnType<typeof openTable<Holder>>;
  lists: ReturnType<typeof openTable<List>>;
  held: ReturnType<typeof openTable<number[]>>;
  nonces: ReturnType<typeof openTable<number>>;
  pending: ReturnType<typeof openTable<Pending>>;
  heads: ReturnType<typeof openTable<number>>;
}

export async function openReceipts({ db, group, deviceKey, now = Date.now }: ReceiptsNeeds): Promise<Receipts> {
  const tables: Tables = {
    db,
    holders: openTable(db, 'holders'),
    lists: openTable(db, 'lists'),
    held: openTable(db, 'held'),
    nonces: openTable(db, 'nonces'),
    pending: openTable(db, 'pending'),
    heads: openTable(db, 'heads'),
  };
  const bySerial = new Map<number, Holder>();
  for await (const [key, holder] of tables.holders.iterator()) bySerial.set(Number.parseInt(key, 16), holder);
  let nextSerial = Math.max(0, ...bySerial.keys()) + 1;
  let nextPending = await firstFree(tables.pending);
  let turn: Promise<unknown> = Promise.resolve();

  /** Changes of the tables, one after the other: each reads what the one before has written. */
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = turn.then(work);
    turn = mine.catch(() => undefined);
    return mine;
  };
  const entriesOf = (id: BlockId): number[] => {
    try {
      return tables.held.getSync(id) ?? [];
    } catch (error) {
      if (isDezentError(error, 'BAD_RECORD')) return [];
      throw error;
    }
  };
  const holdersOf = (id: BlockId): Holding[] => {
    const byPeer = new Map<string, Holding>();
    for (const [serial, provedAt] of pairs(entriesOf(id))) {
      const holder = bySerial.get(serial);
      if (holder === undefined) continue;
      const [peerId, nonce, issuedAt] = holder;
      const other = byPeer.get(peerId);
      if (other === undefined || other.provedAt < provedAt) byPeer.set(peerId, { peerId, nonce, issuedAt, provedAt });
    }
    return [...byPeer.values()];
  };
  const countDistinct = (peerIds: Iterable<string>) => countCopies(peerIds, group.members(), group.deviceId);

  const add = async (envelope: Envelope, ids: readonly BlockId[]) => {
    const receipt = verifyReceipt(group.groupIdBytes, envelope);
    if (receipt.device !== group.deviceId) throw new DezentError('BAD_RECORD', `the receipt is for ${receipt.device}`);
    if (receipt.count !== ids.length || Buffer.compare(receipt.ids, digestOfIds(ids)) !== 0) {
      throw new DezentError('BAD_RECORD', `the receipt of ${receipt.holder} is for other blocks`);
    }
    const known = tables.nonces.getSync(hex(receipt.nonce));
    if (known === LET_GO) throw new DezentError('BAD_RECORD', `the receipt of ${receipt.holder} was let go before`);
    if (known !== undefined) return;
    const serial = nextSerial++;
    const holder: Holder = [receipt.holder, receipt.nonce, receipt.issuedAt];
    const provedAt = now();
    const batch = db.batch();
    batch.put(key(serial), holder, { sublevel: tables.holders });
    batch.put(key(serial), [encodeEnvelope(envelope), joinIds(ids)], { sublevel: tables.lists });
    batch.put(hex(receipt.nonce), serial, { sublevel: tables.nonces });
    for (const id of ids) batch.put(id, [...entriesOf(id), serial, provedAt], { sublevel: tables.held });
    await batch.write(SYNC);
    bySerial.set(serial, holder);
  };

  /** Lets go of these blocks at all holders, or at one: off the counts, off the lists, and onto the releases to be sent. */
  const letGo = async (ids: readonly BlockId[], onlyPeer: string | undefined) => {
    const goingBySerial = new Map<number, Set<BlockId>>();
    const batch = db.batch();
    for (const id of new Set(ids)) {
      const stays: number[] = [];
      for (const [serial, provedAt] of pairs(entriesOf(id))) {
        const peerId = bySerial.get(serial)?.[0];
        if (onlyPeer !== undefined && peerId !== onlyPeer) {
          stays.push(serial, provedAt);
          continue;
        }
        const going = goingBySerial.get(serial) ?? new Set();
        goingBySerial.set(serial, going.add(id));
      }
      if (stays.length > 0) batch.put(id, stays, { sublevel: tables.held });
      else batch.del(id, { sublevel: tables.held });
    }
    const ended: number[] = [];
    for (const [serial, going] of goingBySerial) {
      const holder = bySerial.get(serial);
      const list = tables.lists.getSync(key(serial));
      if (holder === undefined || list === undefined) continue;
      const left = splitIds(list[1]).filter((id) => !going.has(id));
      const released = left.length === 0 ? [] : [...going];
      batch.put(key(nextPending++), [holder[0], holder[1], joinIds(released)], { sublevel: tables.pending });
      if (left.length > 0) {
        batch.put(key(serial), [list[0], joinIds(left)], { sublevel: tables.lists });
        continue;
      }
      ended.push(serial);
      batch.del(key(serial), { sublevel: tables.lists }).del(key(serial), { sublevel: tables.holders });
      batch.put(hex(holder[1]), LET_GO, { sublevel: tables.nonces });
    }
    await batch.write(SYNC);
    for (const serial of ended) bySerial.delete(serial);
  };

  const proved = async (peerId: string, ids: readonly BlockId[], at: number) => {
    const batch = db.batch();
    for (const id of ids) {
      const entries = pairs(entriesOf(id)).flatMap(([serial, provedAt]) =>
        bySerial.get(serial)?.[0] === peerId ? [serial, Math.max(provedAt, at)] : [serial, provedAt],
      );
      if (entries.length > 0) batch.put(id, entries, { sublevel: tables.held });
    }
    await batch.write({});
  };

  return {
    add: (envelope, ids) => inTurn(() => add(envelope, ids)),
    holdersOf,
    proved: (peerId, ids, at) => inTurn(() => proved(peerId, ids, at)),
    drop: (peerId, ids) => inTurn(() => letGo(ids, peerId)),
    release: (ids) => inTurn(() => letGo(ids, undefined)),
    async deliverReleases(peerId, send) {
      for (const { keys, nonces, ids } of await pendingFor(peerId, tables)) {
        const release = { device: group.deviceId, holder: peerId, nonces, ids };
        await send(signRelease(group.groupIdBytes, release, deviceKey));
        await tables.pending.batch(
          keys.map((key) => ({ type: 'del', key })),
          SYNC,
        );
      }
    },
    copiesOf: (ids) => copiesOf(ids, holdersOf, countDistinct),
    countDistinct,
    missingFrom: (peerId, ids) => ids.filter((id) => !holdersOf(id).some((holding) => holding.peerId === peerId)),
    headAcked: (peerId, seq) =>
      inTurn(async () => {
        if (seq > (tables.heads.getSync(peerId) ?? 0)) await tables.heads.put(peerId, seq, SYNC);
      }),
    ackedHead: (peerId) => tables.heads.getSync(peerId) ?? 0,
  };
}

function copiesOf(
  ids: readonly BlockId[],
  holdersOf: (id: BlockId) => Holding[],
  countDistinct: (peerIds: Iterable<string>) => number,
): Copies {
  let fewest = Number.POSITIVE_INFINITY;
  let whole: Set<string> | undefined;
  let scarce: BlockId[] = [];
  for (const id of ids) {
    const holders = new Set(holdersOf(id).map(({ peerId }) => peerId));
    whole = whole === undefined ? holders : whole.intersection(holders);
    const copies = countDistinct(holders);
    if (copies < fewest) scarce = [];
    fewest = Math.min(fewest, copies);
    if (copies === fewest) scarce.push(id);
  }
  return { copies: whole === undefined ? 0 : fewest, holders: [...(whole ?? [])], scarce };
}

/** What this peer must be told, in as few releases as may be: whole receipts together, parts of one each by itself. */
async function pendingFor(
  peerId: string,
  { pending }: Tables,
): Promise<{ keys: string[]; nonces: Uint8Array[]; ids: BlockId[] }[]> {
  const parts: { keys: string[]; nonces: Uint8Array[]; ids: BlockId[] }[] = [];
  let whole = { keys: [] as string[], nonces: [] as Uint8Array[], ids: [] as BlockId[] };
  for await (const [key, [holder, nonce, ids]] of pending.iterator()) {
    if (holder !== peerId) continue;
    if (ids.length > 0) parts.push({ keys: [key], nonces: [nonce], ids: splitIds(ids) });
    else {
      if (whole.nonces.length === 0) parts.push(whole);
      whole.keys.push(key);
      whole.nonces.push(nonce);
      if (whole.nonces.length === RELEASE_MAX_NONCES) whole = { keys: [], nonces: [], ids: [] };
    }
  }
  return parts;
}

async function firstFree(table: Tables['pending']): Promise<number> {
  for await (const last of table.keys({ reverse: true, limit: 1 })) return Number.parseInt(last, 16) + 1;
  return 1;
}

/** [serial, provedAt, …] two by two. */
function pairs(entries: readonly number[]): [serial: number, provedAt: number][] {
  const result: [number, number][] = [];
  for (let at = 0; at < entries.length; at += 2) result.push([entries[at] ?? 0, entries[at + 1] ?? 0]);
  return result;
}

const key = (serial: number): string => serial.toString(16).padStart(12, '0');
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
