// The one holder of a store's loaded packs: readers come as they like, changes come one after the other, in turn. After a change that
// failed half-way all is loaded again from the disk before the next one.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { BlockId } from './block.ts';
import { takeLevelLock } from './level-lock.ts';
import type { PackId } from './pack-file.ts';
import { loadPacks, type LoadedPacks, type Notify } from './pack-load.ts';
import { rebuildIndex, type StorePaths } from './pack-rebuild.ts';
import { syncDirectory } from './pack-writer.ts';
import { DezentError } from '../errors.ts';

export interface PackSession {
  /** For reading. What it gives may be replaced by the next change, so it is asked anew after each wait. */
  loaded(): Promise<LoadedPacks>;
  /** Runs the task when all earlier ones are done. */
  inTurn<T>(task: (packs: LoadedPacks) => Promise<T>): Promise<T>;
  /** Called in turn: because of this error the disk may hold something else than `packs` says of these ids. */
  spoil(packs: LoadedPacks, ids: Iterable<BlockId>, error: unknown): void;
  /** Packs that somebody else appends to (pack-lanes.ts), with the number of the loan: what lies behind their indexed end is theirs. */
  readonly lent: Map<PackId, number>;
  /** True between such an error and the next task that is begun. */
  isSpoilt(): boolean;
  /** Rebuilds the index; 0 blocks when `seen` has been replaced meanwhile, which will have mended it. */
  rebuild(seen?: LoadedPacks): Promise<{ blocks: number }>;
  close(): Promise<void>;
}

/** Throws ALREADY_RUNNING, NEWER_VERSION, IO, DISK_FULL. */
export async function openPackSession(paths: StorePaths, notify: Notify): Promise<PackSession> {
  let current: Promise<LoadedPacks> | undefined;
  let turn: Promise<unknown> = Promise.resolve();
  let spoilt = false;
  let closed = false;
  const lent = new Map<PackId, number>();
  const load = (): Promise<LoadedPacks> => loadPacks(paths, notify, lent);

  function loaded(): Promise<LoadedPacks> {
    if (closed) return Promise.reject(new DezentError('IO', `the block store ${paths.dir} is closed`));
    return current ?? replace(load);
  }

  /** Closes what is loaded and puts another in its place; readers wait meanwhile. Where it fails, the next caller tries again. */
  function replace(load: () => Promise<LoadedPacks>): Promise<LoadedPacks> {
    const old = current;
    const loading = (async () => {
      await unload(old);
      return load();
    })();
    current = loading;
    loading.catch(() => {
      if (current === loading) current = undefined;
    });
    return loading;
  }

  async function unload(old: Promise<LoadedPacks> | undefined): Promise<void> {
    const packs = await old;
    await packs?.writer?.close();
    await packs?.index.close();
  }

  /** The result goes to the caller alone; the queue goes on after an error. */
  function queue<T>(task: () => Promise<T>): Promise<T> {
    const result = turn.then(task);
    turn = result.catch(() => undefined);
    return result;
  }

  async function sound(): Promise<LoadedPacks> {
    const packs = await (spoilt ? replace(load) : loaded());
    spoilt = false;
    return packs;
  }

  async function rebuild(seen: LoadedPacks | undefined): Promise<{ blocks: number }> {
    if (seen && seen !== (await loaded())) return { blocks: 0 };
    let rebuilt = { blocks: 0 };
    await replace(async () => {
      rebuilt = await rebuildIndex(paths);
      return load();
    });
    notify({ what: 'index-rebuilt', message: `the index was rebuilt from the packs: ${rebuilt.blocks} blocks` });
    return rebuilt;
  }

  await mkdir(paths.packs, { recursive: true, mode: 0o700 });
  await syncDirectory(paths.dir);
  const lock = await takeLevelLock(join(paths.dir, 'lock'));
  try {
    await loaded();
  } catch (error) {
    await lock.release();
    throw error;
  }
  return {
    lent,
    loaded,
    inTurn: (task) => queue(async () => task(await sound())),
    spoil: (packs, ids, error) => {
      spoilt = true;
      for (const id of ids) packs.uncertain.set(id, error);
    },
    isSpoilt: () => spoilt,
    rebuild: (seen) => queue(() => rebuild(seen)),
    close: () =>
      queue(async () => {
        closed = true;
        await unload(current);
        await lock.release();
      }),
  };
}
