// verify: re-hashes the blocks on this machine (all, or those of some files), fetches bad ones again, or has holders prove what they keep.
import { isDezentError } from '../../errors.ts';
import type { BlockId } from '../../store/block.ts';
import type { LocalStore } from '../../store/block-store.ts';
import type { CallContext, VerifyRequest, VerifyValue } from './control-api.ts';
import type { ItemCopies } from '../copies/item-copies.ts';
import type { Selection } from './selection.ts';
import type { TreeItem } from '../files/tree.ts';

export interface VerifyBlocksNeeds {
  store: LocalStore;
  selection: Selection;
  copies: ItemCopies;
  root: string;
  /** From peers, not from here; rejects when nobody has it. */
  fetchAgain(id: BlockId, signal: AbortSignal): Promise<Uint8Array>;
  confirmHeld(item: TreeItem, fresh: boolean): Promise<{ copies: number; problem: string }>;
  minCopies(): number;
  onBad(id: BlockId, error: unknown): void;
}

export type VerifyBlocks = (request: VerifyRequest, context: CallContext) => Promise<VerifyValue>;

export function openVerifyBlocks(needs: VerifyBlocksNeeds): VerifyBlocks {
  const { store, selection, copies } = needs;

  /** Ids to look at; those of files may have left this machine, which is no fault. */
  async function* idsFor(path: string | undefined): AsyncGenerator<BlockId> {
    if (path === undefined) {
      yield* store.ids();
      return;
    }
    for (const item of await selection.items([path])) yield* await copies.idsOf(item);
  }

  /** The block is put anew, under the owner it had. */
  async function repair(id: BlockId, signal: AbortSignal): Promise<boolean> {
    try {
      const bytes = await needs.fetchAgain(id, signal);
      const owner = (await store.stat(id))?.owner;
      await store.put(id, bytes, owner ? { owner } : {});
      return true;
    } catch (error) {
      if (!isDezentError(error)) throw error;
      return false;
    }
  }

  async function isGood(id: BlockId, signal: AbortSignal): Promise<boolean | undefined> {
    try {
      return (await store.get(id, { signal })) === undefined ? undefined : true;
    } catch (error) {
      if (!isDezentError(error, 'BAD_BLOCK')) throw error;
      needs.onBad(id, error);
      return false;
    }
  }

  async function verifyLocal(path: string | undefined, { signal }: CallContext): Promise<VerifyValue> {
    const value: VerifyValue = { checkedBlocks: 0, badBlocks: 0, repaired: 0 };
    for await (const id of idsFor(path)) {
      signal.throwIfAborted();
      const good = await isGood(id, signal);
      if (good === undefined) continue;
      value.checkedBlocks += 1;
      if (good) continue;
      value.badBlocks += 1;
      if (await repair(id, signal)) value.repaired += 1;
    }
    return value;
  }

  /** Blocks of files that too few holders prove now count as bad. */
  async function verifyRemote(path: string | undefined, { signal }: CallContext): Promise<VerifyValue> {
    const value: VerifyValue = { checkedBlocks: 0, badBlocks: 0, repaired: 0 };
    for (const item of await selection.items([path ?? needs.root])) {
      signal.throwIfAborted();
      const ids = await copies.idsOf(item);
      value.checkedBlocks += ids.length;
      if ((await needs.confirmHeld(item, true)).copies < needs.minCopies()) value.badBlocks += ids.length;
    }
    return value;
  }

  return ({ path, remote }, context) => (remote ? verifyRemote(path, context) : verifyLocal(path, context));
}
