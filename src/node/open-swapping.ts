// The third stage of open-files.ts: the parts that swap originals and stubs, and the journal that keeps each swap safe.
import type { BlockId } from '../store/block.ts';
import { openJournal, type Journal } from './offload/journal.ts';
import type { Kernel } from './files/kernel.ts';
import { openLayOut, type LayOut } from './offload/lay-out.ts';
import { openOffload, type Offload } from './offload/offload.ts';
import { openPathLocks, type PathLocks } from './files/path-locks.ts';
import { openQuarantine, type Quarantine } from './offload/quarantine.ts';
import { openRestore, type Restore } from './offload/restore.ts';
import { writeXattrs } from './files/xattrs.ts';
import type { FilesNeeds, Stored } from './open-stored.ts';

export interface Swapping {
  own: { ownerId: string; groupId: string };
  locks: PathLocks;
  journal: Journal;
  quarantine: Quarantine;
  offload: Offload;
  restore: Restore;
  layOut: LayOut;
}

/** The parts that swap originals and stubs. */
export async function openSwapping(
  { network, config, db, log, warnings }: FilesNeeds,
  stored: Stored,
  kernel: Kernel,
): Promise<Swapping> {
  const { store, group, fetchBlock } = network;
  const { folder, tree, manifests, keys, ownBlocks } = stored;
  const own = { ownerId: group.ownerId, groupId: group.groupId };
  const locks = openPathLocks();
  const journal = await openJournal(db.sublevel('journal'), (count) =>
    warnings.raise(
      'journal',
      `${count} records of the journal are damaged; originals they were about stay in quarantine`,
    ),
  );
  const needs = {
    ...stored,
    own,
    journal,
    takeLease: kernel.writeLease,
    evict: async (ids: readonly BlockId[], now: boolean) => void (await ownBlocks.evict(ids, now)),
    onFreed: (path: string, bytes: number) => log.info({ path, bytes }, 'gave its disk space back'),
    onKept: (path: string, error: unknown) =>
      log.info({ path, error }, 'something else has the name of a stub; it stays'),
  };
  const quarantine = openQuarantine(needs);
  const offload = openOffload({
    ...needs,
    quarantine,
    graceMs: () => config.get('offload.graceMs'),
    stubMinBytes: () => config.get('offload.stubMinBytes'),
    hasAll: async (ids) => (await store.hasMany(ids)).size === new Set(ids).size,
  });
  const fetch = (id: BlockId, signal: AbortSignal | undefined) => fetchBlock.fetch(id, signal ? { signal } : {});
  const setXattrs = async (absolute: string, xattrs: Record<string, Uint8Array>): Promise<void> =>
    writeXattrs(kernel, absolute, xattrs);
  const restore = openRestore({ folder, tree, journal, manifests, locks, quarantine, keys, own, setXattrs, fetch });
  const layOut = openLayOut({ journal, manifests, keys, setXattrs, fetchFrom: fetch });
  return { own, locks, journal, quarantine, offload, restore, layOut };
}
