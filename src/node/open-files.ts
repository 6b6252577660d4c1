// The half of a node that deals with its owner's files: tree, ingest, replicate, offload, restore, watch. Joined here and nowhere else.
import { isDezentError } from '../errors.ts';
import { decodeEnvelope, idBytes } from '../protocol/signature.ts';
import { verifyHead, type Head } from '../protocol/head.ts';
import type { Envelope } from '../protocol/signature.ts';
import type { BlockId } from '../store/block.ts';
import { contentKeysOf, type ContentKeys } from '../store/secrets.ts';
import { openAddFiles } from './add-files.ts';
import { openAdoptStub } from './adopt-stub.ts';
import { openAutoOffload, type AutoOffload } from './auto-offload.ts';
import { openCatalogBatch } from './catalog-batch.ts';
import { openCatalogLog } from './catalog-log.ts';
import type { Config } from './config.ts';
import { openConfirmHeld } from './confirm-held.ts';
import { openContentTable } from './content-index.ts';
import type { NodeApi } from './control-api.ts';
import { openDeletions } from './deletions.ts';
import { openDescribeFiles } from './describe-files.ts';
import { openFolder } from './folder.ts';
import { openFreeFiles } from './free-files.ts';
import type { Group } from './group.ts';
import { openHandOver } from './hand-over.ts';
import { openIgnoreRules } from './ignore-rules.ts';
import { openIngest } from './ingest.ts';
import { openItemCopies } from './item-copies.ts';
import { sizeOfIdentity } from './identity.ts';
import { openJournal, type Journal } from './journal.ts';
import type { DeviceKeys } from './key-files.ts';
import { loadKernel, type Kernel } from './kernel.ts';
import type { Log } from './log.ts';
import { openManifests } from './manifests.ts';
import type { NodeEvents } from './node-events.ts';
import { openOffload } from './offload.ts';
import type { Network } from './open-network.ts';
import { openOwnBlocks, type OwnBlocks } from './own-blocks.ts';
import { openPathLocks } from './path-locks.ts';
import { openQuarantine } from './quarantine.ts';
import { recoverFiles } from './recover.ts';
import { openReplicate, type Replicate } from './replicate.ts';
import { rankPeers } from './rank-peers.ts';
import { openRestore } from './restore.ts';
import { openRestoreFiles } from './restore-files.ts';
import { openSelection } from './selection.ts';
import type { StateDb } from './state.ts';
import { openTendFolder } from './tend-folder.ts';
import type { Transfers } from './transfers.ts';
import { openTree, type Tree } from './tree.ts';
import { openVerifyBlocks } from './verify-blocks.ts';
import type { Warnings } from './warnings.ts';
import { openWatch, type Watch } from './watch.ts';
import { readXattrs, writeXattrs } from './xattrs.ts';

export interface FilesNeeds {
  network: Network;
  keys: DeviceKeys;
  folder: string;
  config: Config;
  db: StateDb;
  log: Log;
  warnings: Warnings;
  transfers: Transfers;
  events: NodeEvents;
  parts: AsyncDisposableStack;
}

/** What the rest of the node asks of the files. */
export interface Files {
  api: Pick<NodeApi, 'add' | 'free' | 'open' | 'restore' | 'ls' | 'whereis' | 'why' | 'verify'>;
  tree: Tree;
  /** Bytes of originals whose space was given back. */
  freedBytes(): number;
  isOwn: OwnBlocks['isOwn'];
}

/** Content keys follow the owner record: a new epoch is used as soon as it is held. */
function followKeys(group: Group): () => ContentKeys {
  let keys = contentKeysOf(group.secrets());
  group.onChange((what) => {
    if (what === 'members') keys = contentKeysOf(group.secrets());
  });
  return () => keys;
}

/** This device's newest head, as the group keeps it. */
function openOwnHead(group: Group) {
  const heads = group.records().heads.map((bytes) => decodeEnvelope(bytes));
  const own = heads
    .map((envelope) => ({ envelope, head: verifyHead(group.groupIdBytes, envelope) }))
    .filter(({ head }) => head.device === group.deviceId);
  let newest = own.sort((a, b) => b.head.seq - a.head.seq)[0];
  return {
    get: (): { head: Head; envelope: Envelope } | undefined => newest,
    async put(envelope: Envelope): Promise<void> {
      await group.putHead(envelope);
      newest = { envelope, head: verifyHead(group.groupIdBytes, envelope) };
    },
  };
}

/** The parts that know what is stored: tree, contents, catalog, own blocks, copies. */
async function openStored({ network, keys: deviceKeys, config, db, folder: root, warnings }: FilesNeeds) {
  const { store, group, keeper, receipts, swarm, links, announce, names, fetchBlock } = network;
  const keys = followKeys(group);
  const owner = idBytes(group.ownerId);
  const minCopies = (): number => config.get('copies.min');
  const holdersOf = (id: BlockId): string[] => receipts.holdersOf(id).map(({ peerId }) => peerId);
  const fetch = async (id: BlockId): Promise<Uint8Array> => (await fetchBlock.fetch(id)).bytes;

  const folder = openFolder(root);
  const tree = await openTree(db.sublevel('tree'));
  const contents = openContentTable(db.sublevel('contents'));
  const manifests = openManifests(keys);
  const ownBlocks = await openOwnBlocks({
    db: db.sublevel('own'),
    store,
    settings: { minCopies, cacheMaxBytes: () => config.get('cache.maxBytes') },
    copiesOf: (id) => receipts.copiesOf([id]).copies,
    remove: (ids) => keeper.evict(ids),
    onLeft: (ids) => announce.removed(ids),
  });
  const ownStore = { ...store, putMany: ownBlocks.putMany };
  const ownHead = openOwnHead(group);
  const identity = { device: deviceKeys.device, deviceId: group.deviceId, groupId: group.groupIdBytes, owner };
  const log = openCatalogLog({ ...identity, store: ownStore, keys, ownHead: ownHead.get, putHead: ownHead.put });
  const batch = openCatalogBatch({ keys, store: ownStore, contents, log, tree, owner });
  const { ackedHead, countDistinct } = receipts;
  const copies = openItemCopies({
    contents,
    keys,
    fetch,
    manifests,
    holdersOf,
    checkpoint: log.checkpoint,
    ackedHead,
    countDistinct,
  });
  const confirmHeld = openConfirmHeld({
    copies,
    receipts,
    minCopies,
    local: (id) => store.get(id),
    isConnected: (peerId) => swarm.connected().includes(peerId),
    describe: names.describe,
    prove: (peerId, audit) => links.audit(peerId).prove(audit),
    want: (peerId, id, options) => links.exchange(peerId).want(id, options),
    onBroken(peerId, ids, verdict) {
      const what = verdict === 'wrong' ? 'gave a wrong proof' : 'no longer has the bytes';
      warnings.raise(
        `broken:${peerId}`,
        `${names.describe(peerId)} ${what} for ${ids.length} blocks that it signed for; they no longer count`,
      );
    },
  });
  return {
    keys,
    owner,
    minCopies,
    holdersOf,
    fetch,
    folder,
    tree,
    contents,
    manifests,
    ownBlocks,
    ownStore,
    log,
    batch,
    copies,
    confirmHeld,
  };
}

type Stored = Awaited<ReturnType<typeof openStored>>;

/** The part that brings everything to its copies. */
function openCopying({ network, config, log, transfers, parts }: FilesNeeds, stored: Stored) {
  const { store, group, receipts, swarm, links, names } = network;
  const { tree, copies, holdersOf, minCopies } = stored;
  /** Receipts of the running round: at its end each holder hears of the others, so that one can repair while this device is away. */
  let pushed: { peerId: string; nonce: Uint8Array }[] = [];
  function roundEnded(): void {
    const round = pushed;
    pushed = [];
    for (const { peerId, nonce } of round) {
      const holders = [...new Set(round.map((one) => one.peerId))].filter((other) => other !== peerId);
      links
        .fs(peerId)
        .finish({ nonce, holders })
        .catch((error: unknown) => log.debug({ error, peer: peerId }, 'a holder was not told of the others'));
    }
  }
  const handOver = openHandOver({
    store,
    links,
    receipts,
    transfers,
    log: stored.log,
    pushHead: (peerId, head, options) => swarm.pushHead(peerId, head, options),
    read: stored.fetch,
    describe: names.describe,
    onPushed: ({ peerId, nonce }) => void pushed.push({ peerId, nonce }),
  });
  const possibleCopies = (): number => receipts.countDistinct(group.members().map(({ peerId }) => peerId));
  const replicate = parts.use(
    openReplicate({
      tree,
      copies,
      holdersOf,
      possibleCopies,
      roundEnded,
      settings: { min: minCopies, target: () => config.get('copies.target') },
      candidates: (key) => rankPeers(key, swarm.connected()),
      countDistinct: receipts.countDistinct,
      push: handOver,
      onError: (error) => log.error({ error }, 'a round of replication failed'),
    }),
  );
  return { replicate, possibleCopies };
}

/** The parts that swap originals and stubs. */
async function openSwapping({ network, config, db, log }: FilesNeeds, stored: Stored, kernel: Kernel) {
  const { store, group, fetchBlock } = network;
  const { folder, tree, manifests, keys, ownBlocks } = stored;
  const own = { ownerId: group.ownerId, groupId: group.groupId };
  const locks = openPathLocks();
  const journal = await openJournal(db.sublevel('journal'));
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
  return { own, locks, journal, quarantine, offload, restore, setXattrs, fetchFrom: fetch };
}

type Swapping = Awaited<ReturnType<typeof openSwapping>>;

/** The parts that notice what happens in FOLDER and have files give way. */
async function openTending(
  needs: FilesNeeds,
  stored: Stored,
  { swapping, replicate, kernel }: { swapping: Swapping; replicate: Replicate; kernel: Kernel },
) {
  const { network, config, db, log, warnings, parts } = needs;
  const { folder, tree, keys, batch, holdersOf } = stored;
  const { own, locks } = swapping;
  const { deviceId } = network.group;
  const rules = await openIgnoreRules(folder.root);
  const late: { watch?: Watch } = {};
  const touch = (path: string): void => late.watch?.touch(path);
  const autoOffload = parts.use(
    openAutoOffload({
      ...swapping,
      folder,
      tree,
      settings: {
        auto: () => config.get('offload.auto'),
        afterMs: () => config.get('offload.afterMs'),
        idleMs: () => config.get('offload.idleMs'),
        stubMinBytes: () => config.get('offload.stubMinBytes'),
      },
      onChanged: touch,
      onError: (path, error) =>
        log[isDezentError(error) ? 'info' : 'warn'](
          { error, path },
          'a file could not give way now; it is tried again',
        ),
    }),
  );
  const ingest = openIngest({
    ...stored,
    deviceId,
    store: stored.ownStore,
    xattrsOf: async (absolute) => readXattrs(kernel, absolute),
    async obtainable(ids) {
      const here = await network.store.hasMany(ids);
      return ids.every((id) => here.has(id) || holdersOf(id).length > 0);
    },
  });
  const deletions = openDeletions({
    folder,
    tree,
    locks,
    warnings,
    deviceId,
    log: stored.log,
    db: db.sublevel('deletions'),
    busy: () => (late.watch?.pending() ?? 0) > 0,
    onDeleted: (paths) => log.info({ count: paths.length, first: paths[0] }, 'deleted by their owner'),
  });
  const tend = openTendFolder({
    folder,
    rules,
    tree,
    locks,
    ingest,
    deletions,
    warnings,
    adoptStub: openAdoptStub({ folder, tree, batch, keys, own, deviceId }),
    onIngested({ entry }) {
      if (entry.root !== undefined) network.announce.addedManifests([entry.root.block]);
      replicate.wake([entry.path]);
    },
    later: (path, at) => void setTimeout(() => touch(path), Math.max(0, at - Date.now())).unref(),
  });
  const watch = parts.use(
    openWatch({
      folder,
      rules,
      settings: { settleMs: () => config.get('watch.settleMs'), scanMs: () => config.get('watch.scanMs') },
      onSettled: (path) => tend.look(path),
      onQuiet: () =>
        void deletions.decide().catch((error: unknown) => log.error({ error }, 'deletions could not be decided')),
      onError(error, path) {
        const what = path === '' ? folder.root : path;
        warnings.raise(
          `watch:${path}`,
          `${what} cannot be watched: ${error instanceof Error ? error.message : String(error)}`,
        );
      },
    }),
  );
  late.watch = watch;
  return { rules, autoOffload, tend, watch };
}

/** What is still to be done after a restart, and again whenever a peer comes. */
async function resume(tree: Tree, replicate: Replicate, autoOffload: AutoOffload): Promise<void> {
  for await (const item of tree.items()) {
    replicate.wake([item.entry.path]);
    autoOffload.consider(item);
  }
}

export async function openFiles(needs: FilesNeeds): Promise<Files> {
  const { network, config, log, warnings, transfers, events } = needs;
  const { group, swarm, links, receipts, store, names, fetchBlock } = network;
  const kernel = await loadKernel();
  const stored = await openStored(needs);
  const { folder, tree, copies, ownBlocks, confirmHeld, minCopies, keys, manifests } = stored;
  const { replicate, possibleCopies } = openCopying(needs, stored);
  const swapping = await openSwapping(needs, stored, kernel);
  await recoverFiles({
    ...swapping,
    folder,
    warnings,
    onRecovered: (what) => log.warn(what, 'an interrupted step was settled'),
  });
  const { rules, autoOffload, tend } = await openTending(needs, stored, { swapping, replicate, kernel });

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
  group.onChange((what) => {
    if (what === 'members') replicate.retry();
  });
  config.onChange((key) => {
    if (key.startsWith('copies.')) replicate.retry();
    if (key.startsWith('offload.') || key.startsWith('copies.'))
      void resume(tree, replicate, autoOffload).catch((error: unknown) =>
        log.error({ error }, 'files could not be looked through'),
      );
  });
  void resume(tree, replicate, autoOffload).catch((error: unknown) =>
    log.error({ error }, 'files could not be looked through'),
  );

  const { journal, locks, quarantine, offload, restore, setXattrs, fetchFrom } = swapping;
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
    manifests,
    keys,
    transfers,
    setXattrs,
    fetch: fetchFrom,
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
    freedBytes: () => tree.stubbedBytes() - quarantinedBytes(journal),
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
