// The half of a node that deals with its owner's files: tree, ingest, replicate, offload, restore, watch. Joined here and nowhere else.
import { openAddFiles } from './control/add-files.ts';
import type { NodeApi } from './control/control-api.ts';
import { openDescribeFiles } from './control/describe-files.ts';
import { openFreeFiles } from './control/free-files.ts';
import { sizeOfIdentity } from './files/identity.ts';
import type { Journal } from './offload/journal.ts';
import { loadKernel } from './files/kernel.ts';
import type { OwnBlocks } from './copies/own-blocks.ts';
import { recoverFiles } from './offload/recover.ts';
import { openRestoreFiles } from './control/restore-files.ts';
import { openSelection } from './control/selection.ts';
import type { Tree } from './files/tree.ts';
import { openVerifyBlocks } from './control/verify-blocks.ts';
import { openLookThrough } from './copies/look-through.ts';
import { openCopying } from './open-copying.ts';
import { openStored, type FilesNeeds } from './open-stored.ts';
import { openSwapping } from './open-swapping.ts';
import { openTending } from './open-tending.ts';

/** What the rest of the node asks of the files. */
export interface Files {
  api: Pick<NodeApi, 'add' | 'free' | 'open' | 'restore' | 'ls' | 'whereis' | 'why' | 'verify'>;
  tree: Tree;
  /** Bytes of originals whose space was given back. */
  freedBytes(): number;
  isOwn: OwnBlocks['isOwn'];
}

export async function openFiles(needs: FilesNeeds): Promise<Files> {
  const { network, config, log, warnings, transfers, events, parts } = needs;
  const { group, swarm, links, receipts, store, names, fetchBlock } = network;
  const kernel = await loadKernel();
  const stored = await openStored(needs);
  const { folder, tree, copies, ownBlocks, confirmHeld, minCopies } = stored;
  const late: { touch?: (path: string) => void } = {};
  const { replicate, possibleCopies } = openCopying(needs, stored, async (item) => {
    await tree.update(item.entry.path, (now) => ({ ...now, seen: '' }));
    late.touch?.(item.entry.path);
  });
  const swapping = await openSwapping(needs, stored, kernel);
  await recoverFiles({
    ...swapping,
    folder,
    warnings,
    onRecovered: (what) => log.warn(what, 'an interrupted step was settled'),
  });
  const { rules, autoOffload, tend, watch, deletions } = await openTending(needs, stored, {
    swapping,
    replicate,
    kernel,
  });
  late.touch = watch.touch;

  tree.onChange((item) => {
    autoOffload.consider(item);
    const { path, kind } = item.entry;
    if (kind === 'file')
      events.emit({ event: 'file', path, state: item.state, ...(item.reason !== '' && { reason: item.reason }) });
  });
  swarm.onConnected((peerId) => {
    replicate.retry();
    void receipts
      .deliverReleases(peerId, (release) => links.release(peerId).release(release))
      .catch((error: unknown) => log.debug({ error, peer: peerId }, 'releases were not delivered'));
  });
  const lookThrough = parts.use(
    openLookThrough({
      tree,
      replicate,
      autoOffload,
      onError: (error) => log.error({ error }, 'files could not be looked through'),
    }),
  );
  group.onChange((what) => {
    if (what === 'members') lookThrough.soon();
  });
  network.onDropped(lookThrough.soon);
  config.onChange((key) => {
    if (key.startsWith('copies.') || key.startsWith('offload.')) lookThrough.soon();
  });

  const { journal, locks, quarantine, offload, restore, layOut } = swapping;
  const selection = openSelection(folder, tree);
  const settings = {
    minCopies,
    target: () => config.get('copies.target'),
    auto: () => config.get('offload.auto'),
    stubMinBytes: () => config.get('offload.stubMinBytes'),
  };
  const restoreFiles = openRestoreFiles({
    folder,
    tree,
    locks,
    selection,
    restore,
    layOut,
    transfers,
    deletedAt: deletions.deletedAt,
  });
  const describe = openDescribeFiles({
    folder,
    tree,
    journal,
    selection,
    copies,
    receipts,
    replicate,
    autoOffload,
    nameOf: names.nameOf,
    possibleCopies,
    settings,
  });
  return {
    tree,
    isOwn: ownBlocks.isOwn,
    freedBytes: () => Math.max(0, tree.stubbedBytes() - quarantinedBytes(journal)),
    api: {
      ...restoreFiles,
      ...describe,
      add: openAddFiles({ folder, rules, tree, tend, replicate, selection }),
      free: openFreeFiles({
        folder,
        tree,
        journal,
        locks,
        selection,
        offload,
        quarantine,
        copies,
        ownBlocks,
        replicate,
        settings,
        confirmHeld,
        compact: async () => void (await store.compact({ now: true })),
      }),
      verify: openVerifyBlocks({
        store,
        selection,
        copies,
        confirmHeld,
        minCopies,
        root: folder.root,
        fetchAgain: async (id, signal) => (await fetchBlock.fetch(id, { signal, notLocal: true })).bytes,
        onBad: (id, error) => log.warn({ block: id, error }, 'a block on this machine is damaged'),
      }),
    },
  };
}

/** Bytes of originals that have a stub but still take their space. */
function quarantinedBytes(journal: Journal): number {
  let bytes = 0;
  for (const { step, seen } of journal.offloads()) if (step === 'stubbed') bytes += sizeOfIdentity(seen);
  return bytes;
}
