// A wrapper that checks every block against its id, on the way in and on the way out, so that nothing behind it needs to be trusted.
// Wrong bytes are not absence: they are told to `onBad` and thrown, so that the caller goes to another holder.
import { checkBlock, type BlockId } from './block.ts';
import type { Batches, BlockStore } from './block-store.ts';

/** What to do with a block that came out of the store with wrong bytes, before the call throws BAD_BLOCK. */
export type OnBadBlock = (id: BlockId, error: unknown) => void;

/** The same store with the same powers; `get`, `put` and `putMany` throw BAD_BLOCK for bytes that are not what the id names. */
export function verified<S extends BlockStore & Partial<Batches>>(inner: S, onBad: OnBadBlock): S {
  const checks: BlockStore & Partial<Batches> = {
    ...inner,
    async get(id, options) {
      const bytes = await inner.get(id, options);
      if (bytes === undefined) return undefined;
      try {
        checkBlock(id, bytes);
      } catch (error) {
        onBad(id, error);
        throw error;
      }
      return bytes;
    },
    async put(id, bytes, options) {
      checkBlock(id, bytes);
      await inner.put(id, bytes, options);
    },
  };
  const putMany = inner.putMany?.bind(inner);
  if (putMany) checks.putMany = (blocks, options) => putMany(checkedOnTheWay(blocks), options);
  return checks as S;
}

function* checkedOnTheWay<B extends { id: BlockId; bytes: Uint8Array }>(blocks: Iterable<B>): Iterable<B> {
  for (const block of blocks) {
    checkBlock(block.id, block.bytes);
    yield block;
  }
}
