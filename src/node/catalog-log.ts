// This device's catalog log: entries go into sealed segments, a signed head lists them. Data → index → manifest → catalog: whoever
// appends has made everything that the entries name durable before.
import { randomBytes } from 'node:crypto';
import { encode } from '@ipld/dag-cbor';
import type { SegmentRef, Head } from '../protocol/head.ts';
import { signHead } from '../protocol/head.ts';
import type { Envelope, SigningKey } from '../protocol/signature.ts';
import { blockIdToBytes, type BlockId } from '../store/block.ts';
import type { LocalStore } from '../store/block-store.ts';
import { INCARNATION_BYTES, sealSegment, type CatalogEntry } from '../store/catalog.ts';
import { compress } from '../store/compress.ts';
import { KIND_CATALOG, sealNamed } from '../store/seal.ts';
import type { ContentKeys } from '../store/secrets.ts';

/** A head lists up to this many segments itself (46 bytes each); older ones go into a sealed checkpoint block, which links to the one before. */
const HEAD_LISTS_SEGMENTS = 512;

export interface CatalogLog {
  /** Durable here, with its head, when it returns. */
  append(entries: readonly CatalogEntry[]): Promise<SegmentRef>;
  /** The blocks that list older segments, newest first: kept by the same holders as any segment. */
  checkpoint(): BlockId | undefined;
  head(): { envelope: Envelope; seq: number } | undefined;
}

export interface CatalogLogNeeds {
  store: LocalStore;
  keys: () => ContentKeys;
  device: SigningKey;
  deviceId: string;
  groupId: Uint8Array;
  owner: Uint8Array;
  /** The head of this device that is known, highest seq first; and the way to keep a new one durably. */
  ownHead(): { head: Head; envelope: Envelope } | undefined;
  putHead(envelope: Envelope): Promise<void>;
}

export function openCatalogLog(needs: CatalogLogNeeds): CatalogLog {
  const { store, keys, device, deviceId, groupId, owner } = needs;
  let tail: Promise<unknown> = Promise.resolve();

  async function sealCheckpoint(head: Head): Promise<SegmentRef> {
    const segments = head.segments.map(({ id, seq }) => [blockIdToBytes(id), seq]);
    const before = head.checkpoint && [blockIdToBytes(head.checkpoint.id), head.checkpoint.seq];
    const block = sealNamed(
      KIND_CATALOG,
      await compress(encode({ v: 1, segments, ...(before && { before }) })),
      keys().current,
    );
    await store.putMany([block], { owner });
    return { id: block.id, seq: head.segments.at(-1)?.seq ?? 0 };
  }

  function nextHead(last: Head | undefined): Head {
    if (last === undefined)
      return { device: deviceId, incarnation: randomBytes(INCARNATION_BYTES), seq: 1, seen: [], segments: [] };
    return { ...last, seq: last.seq + 1, segments: [...last.segments] };
  }

  async function append(entries: readonly CatalogEntry[]): Promise<SegmentRef> {
    const head = nextHead(needs.ownHead()?.head);
    if (head.segments.length >= HEAD_LISTS_SEGMENTS) {
      head.checkpoint = await sealCheckpoint(head);
      head.segments = [];
    }
    const block = await sealSegment(
      { device: deviceId, incarnation: head.incarnation, seq: head.seq, entries: [...entries] },
      keys(),
    );
    await store.putMany([block], { owner });
    const segment = { id: block.id, seq: head.seq };
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
    checkpoint: () => needs.ownHead()?.head.checkpoint?.id,
    head() {
      const own = needs.ownHead();
      return own && { envelope: own.envelope, seq: own.head.seq };
    },
  };
}
