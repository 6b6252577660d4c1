// confirmHeld: which holders keep everything of an item, proved lately or (before an original is removed) just now. A proof is a hash over
// random ranges of every block, compared with the bytes here; where they are not here, the whole block is fetched from that holder instead.
import pLimit from 'p-limit';
import { isDezentError } from '../../errors.ts';
import type { Verdict } from '../../protocol/audit.ts';
import type { BlockId } from '../../store/block.ts';
import type { CopyCount, ItemCopies } from './item-copies.ts';
import type { Receipts } from './receipts.ts';
import type { TreeItem } from '../files/tree.ts';

/** A proof (or the receipt itself) counts for so long before a file is offloaded. */
const PROOF_LASTS_MS = 3_600_000;
/** What a holder may take for its proofs: a beginning, and so much for each block, which both sides read (a slow disk: 10 MB/s). */
const PROVE_MS = 60_000;
const PROVE_BLOCK_MS = 400;
/** Whole blocks fetched at once where there are no bytes here to compare with. */
const FETCH_WIDTH = 4;

export interface ConfirmHeldNeeds {
  copies: ItemCopies;
  receipts: Pick<Receipts, 'holdersOf' | 'proved' | 'drop' | 'countDistinct'>;
  minCopies(): number;
  isConnected(peerId: string): boolean;
  describe(peerId: string): string;
  local(id: BlockId): Promise<Uint8Array | undefined>;
  prove(
    peerId: string,
    audit: { ids: readonly BlockId[]; read(id: BlockId): Promise<Uint8Array | undefined>; signal: AbortSignal },
  ): Promise<Map<BlockId, Verdict>>;
  /** The verified block from this peer; undefined when it does not have it. */
  want(peerId: string, id: BlockId, options: { signal: AbortSignal }): Promise<Uint8Array | undefined>;
  /** The peer does not have what it signed for, or gave other bytes. */
  onBroken(peerId: string, ids: readonly BlockId[], verdict: 'wrong' | 'absent'): void;
}

export type ConfirmHeld = (item: TreeItem, fresh: boolean) => Promise<CopyCount & { problem: string }>;

export function openConfirmHeld(needs: ConfirmHeldNeeds): ConfirmHeld {
  const { copies, receipts, minCopies, isConnected, describe, local, prove, want, onBroken } = needs;

  /** Whole blocks from the holder, for those whose bytes are not here to compare with. */
  async function fetchUnknown(
    peerId: string,
    ids: readonly BlockId[],
    signal: AbortSignal,
  ): Promise<Map<BlockId, Verdict>> {
    const verdicts = new Map<BlockId, Verdict>();
    const limit = pLimit(FETCH_WIDTH);
    const fetchOne = async (id: BlockId): Promise<void> => {
      try {
        verdicts.set(id, (await want(peerId, id, { signal })) === undefined ? 'absent' : 'proved');
      } catch (error) {
        if (!isDezentError(error, 'BAD_BLOCK')) throw error;
        verdicts.set(id, 'wrong');
      }
    };
    await Promise.all(ids.map((id) => limit(() => fetchOne(id))));
    return verdicts;
  }

  async function proveAll(peerId: string, ids: readonly BlockId[]): Promise<Map<BlockId, Verdict>> {
    const signal = AbortSignal.timeout(PROVE_MS + ids.length * PROVE_BLOCK_MS);
    const verdicts = await prove(peerId, { ids, read: local, signal });
    const unknown = ids.filter((id) => verdicts.get(id) === 'unknown');
    return new Map([...verdicts, ...(await fetchUnknown(peerId, unknown, signal))]);
  }

  /** True when the holder proved every block; what it failed on no longer counts for it. */
  async function isProved(peerId: string, ids: readonly BlockId[]): Promise<boolean> {
    const verdicts = await proveAll(peerId, ids);
    for (const failure of ['wrong', 'absent'] as const) {
      const broken = ids.filter((id) => verdicts.get(id) === failure);
      if (broken.length === 0) continue;
      await receipts.drop(peerId, broken);
      onBroken(peerId, broken, failure);
    }
    const proved = ids.filter((id) => verdicts.get(id) === 'proved');
    await receipts.proved(peerId, proved, Date.now());
    return proved.length === ids.length;
  }

  function isRecent(peerId: string, ids: readonly BlockId[]): boolean {
    const since = Date.now() - PROOF_LASTS_MS;
    return ids.every((id) =>
      receipts.holdersOf(id).some((holding) => holding.peerId === peerId && holding.provedAt >= since),
    );
  }

  /** Why this holder does not count now, or undefined when it does. */
  async function problemOf(peerId: string, ids: readonly BlockId[], fresh: boolean): Promise<string | undefined> {
    if (!fresh && isRecent(peerId, ids)) return undefined;
    if (!isConnected(peerId)) return `${describe(peerId)} cannot be asked for a proof now`;
    try {
      return (await isProved(peerId, ids)) ? undefined : `${describe(peerId)} did not prove all blocks`;
    } catch (error) {
      if (!isDezentError(error) && !(error instanceof Error && error.name === 'TimeoutError')) throw error;
      return `${describe(peerId)}: ${error.message}`;
    }
  }

  return async function confirmHeld(item, fresh) {
    const holding = await copies.count(item);
    const ids = await copies.idsOf(item);
    const good: string[] = [];
    const problems: string[] = [];
    for (const peerId of holding.holders) {
      if (receipts.countDistinct(good) >= minCopies()) break;
      const problem = await problemOf(peerId, ids, fresh);
      if (problem === undefined) good.push(peerId);
      else problems.push(problem);
    }
    if (holding.copies < minCopies())
      problems.push(`${holding.copies} distinct device${holding.copies === 1 ? ' keeps' : 's keep'} all of it`);
    return { copies: receipts.countDistinct(good), holders: good, problem: problems.join('; ') };
  };
}
