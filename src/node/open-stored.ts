// The first stage of open-files.ts: the parts that know what is stored: tree, contents, catalog, own blocks, copies.
import { decodeEnvelope, idBytes } from '../protocol/signature.ts';
import { verifyHead } from '../protocol/head.ts';
import type { Envelope } from '../protocol/signature.ts';
import type { BlockId } from '../store/block.ts';
import type { LocalStore } from '../store/block-store.ts';
import type { ChunkIndex } from '../store/sealing.ts';
import { contentKeysOf, type ContentKeys } from '../store/secrets.ts';
import { openCatalogBatch, type CatalogBatch } from './files/catalog-batch.ts';
import { openCatalogLog, type CatalogLog, type OwnHead } from './files/catalog-log.ts';
import type { Config } from './home/config.ts';
import { openConfirmHeld, type ConfirmHeld } from './copies/confirm-held.ts';
import { openContentTable, type ContentTable } from './files/content-index.ts';
import type { EarlyPush } from './copies/early-push.ts';
import { openFolderMark, type FolderMark } from './files/folder-mark.ts';
import { openFolder, type Folder } from './files/folder.ts';
import type { Group } from './group/group.ts';
import { openItemCopies, type ItemCopies } from './copies/item-copies.ts';
import type { DeviceKeys } from './home/key-files.ts';
import type { Log } from './home/log.ts';
import { openManifests, type Manifests, type Fetch } from './files/manifests.ts';
import type { NodeEvents } from './control/node-events.ts';
import type { Network } from './open-network.ts';
import { openPlainReader, openThreadedReader, type ReadContent } from './files/read-content.ts';
import { openOwnBlocks, type OwnBlocks } from './copies/own-blocks.ts';
import type { StateDb } from './home/state.ts';
import type { Transfers } from './control/transfers.ts';
import { openTree, type Tree } from './files/tree.ts';
import type { Warnings } from './home/warnings.ts';

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

/** Content keys follow the owner record: a new epoch is used as soon as it is held. */
function followKeys(group: Group): () => ContentKeys {
  let keys = contentKeysOf(group.secrets());
  group.onChange((what) => {
    if (what === 'members') keys = contentKeysOf(group.secrets());
  });
  return () => keys;
}

/** This device's newest head, as the group keeps it; one that peers knew and this disk did not is adopted. */
function openOwnHead(group: Group): { get(): OwnHead | undefined; put(envelope: Envelope): Promise<void> } {
  function newestHeld(): Omit<OwnHead, 'adopted'> | undefined {
    const heads = group.records().heads.map((bytes) => decodeEnvelope(bytes));
    const verified = heads.map((envelope) => ({ envelope, head: verifyHead(group.groupIdBytes, envelope) }));
    return verified.filter(({ head }) => head.device === group.deviceId).sort((a, b) => b.head.seq - a.head.seq)[0];
  }
  const atStart = newestHeld();
  let newest: OwnHead | undefined = atStart && { ...atStart, adopted: false };
  group.onChange((what) => {
    const isAhead = group.heads().some(({ device, seq }) => device === group.deviceId && seq > (newest?.head.seq ?? 0));
    const held = what === 'heads' && isAhead ? newestHeld() : undefined;
    if (held !== undefined && held.head.seq > (newest?.head.seq ?? 0)) newest = { ...held, adopted: true };
  });
  return {
    get: () => newest,
    async put(envelope) {
      const before = newest;
      newest = { envelope, head: verifyHead(group.groupIdBytes, envelope), adopted: false };
      await group.putHead(envelope).catch((error: unknown) => {
        newest = before;
        throw error;
      });
    },
  };
}

export interface Stored {
  keys: () => ContentKeys;
  /** 32 bytes: what this owner's blocks are kept under. */
  owner: Uint8Array;
  minCopies(): number;
  /** Listed peers that gave a receipt for the block. */
  holdersOf(id: BlockId): string[];
  /** Each of these blocks is here or with a holder. */
  obtainable(ids: readonly BlockId[]): Promise<boolean>;
  /** From this machine or from peers. */
  fetch: Fetch;
  folder: Folder;
  mark: FolderMark;
  tree: Tree;
  contents: ContentTable;
  manifests: Manifests;
  ownBlocks: OwnBlocks;
  /** The store, with what is put noted as this device's own. */
  ownStore: LocalStore;
  /** Who hears of own blocks as soon as they are durable here. */
  onKept(listener: EarlyPush['kept']): void;
  log: CatalogLog;
  batch: CatalogBatch;
  readContent: ReadContent;
  copies: ItemCopies;
  confirmHeld: ConfirmHeld;
}

/** The parts that know what is stored: tree, contents, catalog, own blocks, copies. */
export async function openStored({
  network,
  keys: deviceKeys,
  config,
  db,
  folder: root,
  warnings,
  parts,
}: FilesNeeds): Promise<Stored> {
  const { store, group, keeper, receipts, swarm, links, announce, names, fetchBlock } = network;
  const keys = followKeys(group);
  const owner = idBytes(group.ownerId);
  const minCopies = (): number => config.get('copies.min');
  const isListed = (peerId: string): boolean => group.roleOf(peerId) !== undefined;
  const holdersOf = (id: BlockId): string[] =>
    receipts.holdersOf(id).flatMap(({ peerId }) => (isListed(peerId) ? [peerId] : []));
  async function obtainable(ids: readonly BlockId[]): Promise<boolean> {
    const here = await store.hasMany(ids);
    return ids.every((id) => here.has(id) || holdersOf(id).length > 0);
  }
  const fetch = async (id: BlockId): Promise<Uint8Array> => (await fetchBlock.fetch(id)).bytes;

  const folder = openFolder(root);
  const mark = await openFolderMark(root, db.sublevel('mark'));
  const tree = await openTree(db.sublevel('tree'));
  const contents = openContentTable(db.sublevel('contents'));
  const manifests = openManifests(keys);
  swarm.onDisconnected((peerId) => manifests.forgetFrom(peerId));
  const ownBlocks = await openOwnBlocks({
    db: db.sublevel('own'),
    store,
    settings: { minCopies, cacheMaxBytes: () => config.get('cache.maxBytes') },
    copiesOf: (id) => receipts.copiesOf([id]).copies,
    remove: (ids) => keeper.evict(ids),
    onLeft(ids) {
      announce.removed(ids);
      manifests.forget(ids);
    },
  });
  const late: { kept?: EarlyPush['kept'] } = {};
  const ownStore: LocalStore = {
    ...store,
    async putMany(blocks, options) {
      const all = [...blocks];
      await ownBlocks.putMany(all, options);
      late.kept?.(all.map(({ id, bytes }) => ({ id, length: bytes.length })));
    },
  };
  /** Known content counts only as long as its bytes can be had. */
  const index: ChunkIndex = {
    addExtents: (added) => contents.addExtents(added),
    plainHashes: () => contents.plainHashes(),
    async extent(plainHash) {
      const extent = await contents.extent(plainHash);
      return extent && (await obtainable([extent.block])) ? extent : undefined;
    },
  };
  const workers = config.get('pipeline.workers');
  const readers = { keys, index, owner };
  const readContent =
    workers === 0
      ? openPlainReader({ ...readers, store: ownStore })
      : openThreadedReader(
          {
            ...readers,
            workers,
            store: { lanes: store.lanes, putMany: ownStore.putMany },
            beforeKeep: ownBlocks.note,
            onKept(blocks) {
              announce.added(blocks.map(({ id }) => id));
              late.kept?.(blocks);
            },
          },
          parts,
        );

  const ownHead = openOwnHead(group);
  const identity = { device: deviceKeys.device, deviceId: group.deviceId, groupId: group.groupIdBytes, owner };
  const log = await openCatalogLog({
    db: db.sublevel('log'),
    ...identity,
    store: ownStore,
    keys,
    ownHead: ownHead.get,
    putHead: ownHead.put,
  });
  const batch = openCatalogBatch({ keys, store: ownStore, contents, log, tree, owner });
  const { ackedHead, countDistinct } = receipts;
  const copies = openItemCopies({
    contents,
    keys,
    fetch,
    manifests,
    holdersOf,
    checkpoints: log.checkpoints,
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
    obtainable,
    fetch,
    folder,
    mark,
    tree,
    contents,
    manifests,
    ownBlocks,
    ownStore,
    onKept: (listener) => {
      late.kept = listener;
    },
    log,
    batch,
    readContent,
    copies,
    confirmHeld,
  };
}
