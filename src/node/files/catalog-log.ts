// This device's catalog log: entries go into sealed segments, a signed head lists them. Data → index → manifest → catalog: whoever
// appends has made everything that the entries name durable before.
import { randomBytes } from 'node:crypto';
import { encode } from '@ipld/dag-cbor';
import type { SegmentRef, Head } from '../../protocol/head.ts';
import { signHead } from '../../protocol/head.ts';
import type { Envelope, SigningKey } from '../../protocol/signature.ts';
import { blockIdToBytes, type BlockId } from '../../store/block.ts';
import type { LocalStore } from '../../store/block-store.ts';
import { INCARNATION_BYTES, sealSegment, type CatalogEntry } from '../../store/catalog.ts';
import { compress } from '../../store/compress.ts';
import { KIND_CATALOG, sealNamed, type SealedBlock } from '../../store/seal.ts';
import type { ContentKeys } from '../../store/secrets.ts';
import { readSound } from '../home/sound-table.ts';
import { openTable, type StateDb } from '../home/state.ts';

/** A head lists up to this many segments itself (46 bytes each); older ones go into a sealed checkpoint block, which links to the one before. */
const HEAD_LISTS_SEGMENTS = 512;

export interface CatalogLog {
  /** Durable here, with its head, when it returns. */
  append(entries: readonly CatalogEntry[]): Promise<SegmentRef>;
  /** The blocks that list older segments; without them a head does not lead to those. */
  checkpoints(): readonly BlockId[];
  /** Every block of this log, oldest first: segments and checkpoints. */
  ids(): readonly BlockId[];
  head(): { envelope: Envelope; seq: number } | undefined;
}

/** This device's newest head. `adopted`: another disk (or an older state of this one) wrote it, so the log goes on in a new incarnation. */
export interface OwnHead {
  head: Head;
  envelope: Envelope;
  adopted: boolean;
}

export interface CatalogLogNeeds {
  db: StateDb;
  store: Pick<LocalStore, 'putMany'>;
  keys: () => ContentKeys;
  device: SigningKey;
  deviceId: string;
  groupId: Uint8Array;
  owner: Uint8Array;
  ownHead(): OwnHead | undefined;
  /** Keeps a new head durably. */
  putHead(envelope: Envelope): Promise<void>;
}

export async function openCatalogLog(needs: CatalogLogNeeds): Promise<CatalogLog> {
  const { store, keys, device, deviceId, groupId, owner } = needs;
  /** Key: a running number; what is lost of it is only sent again later. */
  const blocks = openTable<[id: string, isCheckpoint: boolean]>(needs.db, 'log-blocks');
  const all: BlockId[] = [];
  const checkpoints: BlockId[] = [];
  for (const [id, isCheckpoint] of (await readSound(blocks)).values()) note(id as BlockId, isCheckpoint);
  let tail: Promise<unknown> = Promise.resolve();

  function note(id: BlockId, isCheckpoint: boolean): void {
    all.push(id);
    if (isCheckpoint) checkpoints.push(id);
  }

  async function keep(block: SealedBlock, isCheckpoint: boolean): Promise<void> {
    await store.putMany([block], { owner });
    await blocks.put(String(all.length).padStart(12, '0'), [block.id, isCheckpoint]);
    note(block.id, isCheckpoint);
  }

  async function sealCheckpoint(head: Head): Promise<SegmentRef> {
    const segments = head.segments.map(({ id, seq }) => [blockIdToBytes(id), seq]);
    const before = head.checkpoint && [blockIdToBytes(head.checkpoint.id), head.checkpoint.seq];
    const frame = await compress(encode({ v: 1, segments, ...(before && { before }) }));
    const block = sealNamed(KIND_CATALOG, frame, keys().current);
    await keep(block, true);
    return { id: block.id, seq: head.segments.at(-1)?.seq ?? 0 };
  }

  function nextHead(last: OwnHead | undefined): Head {
    const incarnation = new Uint8Array(randomBytes(INCARNATION_BYTES));
    if (last === undefined) return { device: deviceId, incarnation, seq: 1, seen: [], segments: [] };
    const { head, adopted } = last;
    if (!adopted) return { ...head, seq: head.seq + 1, segments: [...head.segments] };
    const before = { device: deviceId, incarnation: head.incarnation, seq: head.seq };
    return { device: deviceId, incarnation, seq: head.seq + 1, seen: [...head.seen, before], segments: [] };
  }

  async function append(entries: readonly CatalogEntry[]): Promise<SegmentRef> {
    const head = nextHead(needs.ownHead());
    if (head.segments.length >= HEAD_LISTS_SEGMENTS) {
      head.checkpoint = await sealCheckpoint(head);
      head.segments = [];
    }
    const { incarnation, seq } = head;
    const block = await sealSegment({ device: deviceId, incarnation, seq, entries: [...entries] }, keys());
    await keep(block, false);
    const segment = { id: block.id, seq };
    head.segments.push(segment);
    await needs.putHead(signHead(groupId, head, device));
    return segment;
  }

  return {
    append(entries) {
      const turn = tail.then(() => append(entries));
      tail = turn.catch(() => undefined); // the caller gets the error; the next append starts from the last good head
      return turn;
    },
    checkpoints: () => checkpoints,
    ids: () => all,
    head() {
      const own = needs.ownHead();
      return own && { envelope: own.envelope, seq: own.head.seq };
    },
  };
}
