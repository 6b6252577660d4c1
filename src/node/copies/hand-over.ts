// Hands blocks over to one peer: push sessions of at most 4,096 blocks, the receipts kept, then this device's head, so that the peer holds
// all that is needed to bring the files back.
import pLimit, { type LimitFunction } from 'p-limit';
import type { PushResult } from '../../protocol/fs-session.ts';
import { RECEIPT_MAX_IDS } from '../../protocol/receipt.ts';
import { encodeEnvelope } from '../../protocol/signature.ts';
import type { BlockId } from '../../store/block.ts';
import type { Owners } from '../../store/block-store.ts';
import type { CatalogLog } from '../files/catalog-log.ts';
import type { Links } from './links.ts';
import type { Receipts } from './receipts.ts';
import type { Transfers } from '../control/transfers.ts';

/** Bytes in one session: a broken one loses little, and progress is counted in files soon. */
const SESSION_BYTES: number = 256 * 1024 * 1024;
/** A head is small; a peer that takes longer is stuck. */
const HEAD_MS = 20_000;
/** No block moved for so long ends a push; it goes on from there at the next try. A holder may re-hash what it has meanwhile. */
const STALLED_MS = 300_000;

export interface HandOverNeeds {
  store: Owners;
  links: Pick<Links, 'fs'>;
  receipts: Pick<Receipts, 'add' | 'holdersOf' | 'headAcked' | 'ackedHead'>;
  log: Pick<CatalogLog, 'head'>;
  transfers: Transfers;
  pushHead(peerId: string, head: Uint8Array, options: { signal: AbortSignal }): Promise<void>;
  /** The bytes of an own block, from here or, where it has left, from a holder. */
  read(id: BlockId): Promise<Uint8Array>;
  describe(peerId: string): string;
  onPushed(what: { peerId: string; bytes: number; nonce: Uint8Array }): void;
}

/** Gives undefined when the peer keeps all of it (durably, by its receipts) and has the head; else why not. */
export type HandOver = (
  peerId: string,
  ids: readonly BlockId[],
  what: { name: string; signal: AbortSignal },
) => Promise<string | undefined>;

export function openHandOver(needs: HandOverNeeds): HandOver {
  const { store, links, receipts, transfers, read, describe } = needs;

  async function lengthOf(id: BlockId): Promise<number> {
    return (await store.stat(id))?.length ?? (await read(id)).length;
  }

  /** Sessions of bounded count and bytes. */
  async function* sessionsOf(ids: readonly BlockId[]): AsyncGenerator<{ id: BlockId; length: number }[]> {
    let session: { id: BlockId; length: number }[] = [];
    let bytes = 0;
    for (const id of ids) {
      const length = await lengthOf(id);
      if (session.length === RECEIPT_MAX_IDS || (bytes + length > SESSION_BYTES && session.length > 0)) {
        yield session;
        session = [];
        bytes = 0;
      }
      session.push({ id, length });
      bytes += length;
    }
    if (session.length > 0) yield session;
  }

  async function push(
    peerId: string,
    blocks: { id: BlockId; length: number }[],
    what: { name: string; signal: AbortSignal },
  ): Promise<PushResult> {
    const totalBytes = blocks.reduce((sum, { length }) => sum + length, 0);
    const transfer = transfers.start({ path: what.name, direction: 'upload', totalBytes, peer: peerId });
    const stalled = new AbortController();
    const watchdog = setTimeout(() => stalled.abort(new Error(`no progress for ${STALLED_MS / 1000} s`)), STALLED_MS);
    let failure: string | undefined = 'interrupted';
    let before = 0;
    try {
      const result = await links.fs(peerId).push({
        blocks,
        read,
        signal: AbortSignal.any([stalled.signal, what.signal]),
        onProgress(sentBytes) {
          watchdog.refresh();
          transfer.moved(sentBytes - before);
          before = sentBytes;
        },
      });
      failure = 'refused' in result ? result.refused : undefined;
      return result;
    } finally {
      clearTimeout(watchdog);
      transfer.end(failure);
    }
  }

  async function pushHead(peerId: string): Promise<void> {
    const head = needs.log.head();
    if (head === undefined || receipts.ackedHead(peerId) >= head.seq) return;
    await needs.pushHead(peerId, encodeEnvelope(head.envelope), { signal: AbortSignal.timeout(HEAD_MS) });
    await receipts.headAcked(peerId, head.seq);
  }

  async function handOverNow(
    peerId: string,
    ids: readonly BlockId[],
    what: { name: string; signal: AbortSignal },
  ): Promise<string | undefined> {
    // Another round (or an early push) may have brought some of them there while this one waited for its turn.
    const lacking = ids.filter((id) => !receipts.holdersOf(id).some((holding) => holding.peerId === peerId));
    try {
      for await (const blocks of sessionsOf(lacking)) {
        const result = await push(peerId, blocks, what);
        if ('refused' in result) return `${describe(peerId)} refused: ${result.refused}`;
        await receipts.add(
          result.receipt,
          blocks.map(({ id }) => id),
        );
        needs.onPushed({ peerId, bytes: result.sentBytes, nonce: result.content.nonce });
      }
      await pushHead(peerId);
      return undefined;
    } catch (error) {
      return `${describe(peerId)}: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  /** One at a time per peer: a session is pipelined in itself, and two would send the same blocks twice. */
  const turns = new Map<string, LimitFunction>();
  return (peerId, ids, what) => {
    const turn = turns.get(peerId) ?? pLimit(1);
    turns.set(peerId, turn);
    return turn(() => handOverNow(peerId, ids, what));
  };
}
