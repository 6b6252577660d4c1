// Which blocks on this machine are this device's own, and which of those are only a cache because enough others keep them. Own blocks leave
// when their file has given way (`cache.maxBytes`), never while fewer than `min` holders are known, and never at all with `copies.min` 0.
import type { BlockId } from '../../store/block.ts';
import type { Batches, Owners, PutOptions } from '../../store/block-store.ts';
import { openTable, SYNC, type StateDb } from '../home/state.ts';

export interface OwnBlocksNeeds {
  db: StateDb;
  store: Batches & Owners;
  settings: { minCopies(): number; cacheMaxBytes(): number };
  /** Distinct holders of one block. */
  copiesOf(id: BlockId): number;
  /** Deletes those that no one else here needs; gives the ids that left. */
  remove(ids: readonly BlockId[]): Promise<readonly BlockId[]>;
  onLeft(ids: readonly BlockId[]): void;
}

export interface OwnBlocks extends Pick<Batches, 'putMany'> {
  isOwn(id: BlockId): boolean;
  /** These blocks will be put for this device's files. Before that, so that nobody collects one in between. */
  note(ids: readonly BlockId[]): Promise<void>;
  /** These blocks are no longer needed here: they leave now, or when the cache is full. Gives the ids that left. */
  evict(ids: readonly BlockId[], now: boolean): Promise<readonly BlockId[]>;
}

const serialKey = (serial: number): string => String(serial).padStart(15, '0');

export async function openOwnBlocks(needs: OwnBlocksNeeds): Promise<OwnBlocks> {
  const { store, settings, copiesOf, remove, onLeft } = needs;
  const own = openTable<number>(needs.db, 'own-blocks');
  /** The cache in the order in which blocks may leave. */
  const cached = openTable<[id: string, bytes: number]>(needs.db, 'cached-blocks');
  let next = 1;
  let cachedBytes = 0;
  for await (const [key, [, bytes]] of cached.iterator()) {
    next = Number(key) + 1;
    cachedBytes += bytes;
  }
  let evicting: Promise<unknown> = Promise.resolve();

  async function note(ids: readonly BlockId[]): Promise<void> {
    await own.batch(
      ids.map((id) => ({ type: 'put', key: id, value: 1 })),
      SYNC,
    );
  }

  async function removeSafe(ids: readonly BlockId[]): Promise<readonly BlockId[]> {
    const safe = ids.filter((id) => own.getSync(id) !== undefined && copiesOf(id) >= settings.minCopies());
    const left = await remove(safe);
    await own.batch(left.map((id) => ({ type: 'del', key: id })));
    if (left.length > 0) onLeft(left);
    return left;
  }

  async function intoCache(ids: readonly BlockId[]): Promise<void> {
    for (const id of ids) {
      const bytes = (await store.stat(id))?.length;
      if (bytes === undefined) continue;
      await cached.put(serialKey(next), [id, bytes]);
      next += 1;
      cachedBytes += bytes;
    }
  }

  async function shrinkCache(): Promise<readonly BlockId[]> {
    const leaving: { key: string; id: BlockId; bytes: number }[] = [];
    let over = cachedBytes - settings.cacheMaxBytes();
    for await (const [key, [id, bytes]] of cached.iterator()) {
      if (over <= 0) break;
      leaving.push({ key, id: id as BlockId, bytes });
      over -= bytes;
    }
    const left = await removeSafe(leaving.map(({ id }) => id));
    const gone = leaving.filter(({ id }) => left.includes(id) || own.getSync(id) === undefined);
    await cached.batch(gone.map(({ key }) => ({ type: 'del', key })));
    cachedBytes -= gone.reduce((sum, { bytes }) => sum + bytes, 0);
    return left;
  }

  async function evict(ids: readonly BlockId[], now: boolean): Promise<readonly BlockId[]> {
    if (settings.minCopies() === 0) return [];
    if (now) return removeSafe(ids);
    await intoCache(ids);
    return shrinkCache();
  }

  return {
    isOwn: (id) => own.getSync(id) !== undefined,
    note,
    async putMany(blocks, options?: PutOptions) {
      const all = [...blocks];
      await note(all.map(({ id }) => id));
      await store.putMany(all, options);
    },
    evict(ids, now) {
      const turn = evicting.then(() => evict(ids, now));
      evicting = turn.catch(() => undefined); // the caller gets the error; the next eviction goes on
      return turn;
    },
  };
}
