// The half of a node that deals with peers: group, swarm, links, what is kept for others, receipts, announcing. Joined here and nowhere else;
// open-files.ts builds the owner's files on top of it. A vault has this half alone.
import { dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDezentError } from '../errors.ts';
import type { BlockId } from '../store/block.ts';
import { openDiskStore, type DiskStore } from '../store/disk-store.ts';
import { openAnnounce, type Announce } from './swarm/announce.ts';
import { readBootstrapPeers } from './swarm/bootstrap.ts';
import type { Config } from './home/config.ts';
import { openFetchBlock, type FetchBlock } from './copies/fetch-block.ts';
import { openGroup, type Group } from './group/group.ts';
import { homePlaces, type HomeIdentity } from './home/home.ts';
import { openKeeper, type Keeper } from './copies/keeper.ts';
import type { DeviceKeys } from './home/key-files.ts';
import { openLinks, type Links } from './copies/links.ts';
import type { Log } from './home/log.ts';
import { openPeerNames, type PeerNames } from './swarm/peer-names.ts';
import { openReceipts, type Receipts } from './copies/receipts.ts';
import type { StateDb } from './home/state.ts';
import { openSwarm, type Swarm } from './swarm/swarm.ts';
import type { Warnings } from './home/warnings.ts';

export interface NetworkNeeds {
  home: string;
  identity: HomeIdentity;
  keys: DeviceKeys;
  config: Config;
  db: StateDb;
  log: Log;
  warnings: Warnings;
  /** Takes over what is opened, to close it in reverse. */
  parts: AsyncDisposableStack;
  /** True while this device needs the block for its own files. */
  isOwn(id: BlockId): boolean;
}

export interface Network {
  /** Puts and deletes are announced to the group. */
  store: DiskStore;
  group: Group;
  keeper: Keeper;
  receipts: Receipts;
  swarm: Swarm;
  links: Links;
  announce: Announce;
  names: PeerNames;
  fetchBlock: FetchBlock;
  /** Some holder's receipts count no more. */
  onDropped(listener: () => void): void;
}

/** Nobody waits for the space of released blocks. */
const COLLECT_EVERY_MS = 3_600_000;

const PROGRAM_DIR: string = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** The same store; whoever listens hears what came and what left. */
function announcing(store: DiskStore, announce: () => Announce): DiskStore {
  return {
    ...store,
    async put(id, bytes, options) {
      await store.put(id, bytes, options);
      announce().added([id]);
    },
    async putMany(blocks, options) {
      const all = [...blocks];
      await store.putMany(all, options);
      announce().added(all.map(({ id }) => id));
    },
    async delete(id, options) {
      await store.delete(id, options);
      announce().removed([id]);
    },
    async deleteMany(ids, options) {
      await store.deleteMany(ids, options);
      announce().removed(ids);
    },
  };
}

async function bootstrapPeers(config: Config): Promise<string[]> {
  const file = config.get('bootstrap.file');
  return readBootstrapPeers(isAbsolute(file) ? file : join(PROGRAM_DIR, file));
}

/** Opens all parts in their order; throws what they throw (PORT_IN_USE, ALREADY_RUNNING, KEYS, CONFIG …). */
export async function openNetwork(needs: NetworkNeeds): Promise<Network> {
  const { home, identity, keys, config, db, log, warnings, parts, isOwn } = needs;
  const places = homePlaces(home);
  // The store outlives everything that uses it; the announcer comes last because it needs the links.
  const late: { announce?: Announce } = {};
  const announceNow = (): Announce =>
    late.announce ?? {
      added() {},
      removed() {},
      addedManifests() {},
      heard: async () => undefined,
      locate: () => [],
      [Symbol.asyncDispose]: async () => undefined,
    };
  const disk = parts.use(
    await openDiskStore(places.store, {
      onNotice: (notice) => log.warn({ ...notice }, 'the block store mended itself'),
    }),
  );
  const store = announcing(disk, announceNow);

  const group = await openGroup({ db: db.sublevel('group'), keys }, identity);
  if (group.damaged.length > 0)
    warnings.raise('group', `${group.damaged.length} damaged group records were set aside; peers give them again`);
  const heldReceipts = await openReceipts({ db: db.sublevel('receipts'), group, deviceKey: keys.device });
  const droppedListeners = new Set<() => void>();
  const receipts: Receipts = {
    ...heldReceipts,
    async drop(peerId, ids) {
      await heldReceipts.drop(peerId, ids);
      for (const listener of droppedListeners) listener();
    },
  };
  const keeper = await openKeeper(
    {
      store,
      db: db.sublevel('keeper'),
      group: { ...group, roleOf: (peerId) => roleWithOwner(group, peerId) },
      deviceKey: keys.device,
      isOwn,
    },
    { quotaBytes: () => config.get('store.quotaBytes'), reserveBytes: () => config.get('store.reserveBytes') },
  );
  const swarm = parts.use(
    await openSwarm(
      { deviceSeed: keys.device.seed, group, db: db.sublevel('swarm'), directory: places.datastore, log },
      {
        port: config.get('listen.port'),
        listen: config.get('listen.addresses'),
        bootstrap: await bootstrapPeers(config),
      },
    ),
  );
  const links = parts.use(
    openLinks({ swarm, group, keeper, onHave: (peerId, batch) => announceNow().heard(peerId, batch), log }),
  );
  late.announce = parts.use(
    await openAnnounce({
      swarm,
      tell: (peerId, batch, options) => links.exchange(peerId).have(batch, options),
      store: disk,
      members: () =>
        group
          .members()
          .map(({ peerId }) => peerId)
          .filter((peerId) => peerId !== group.deviceId),
      db: db.sublevel('announce'),
      log,
    }),
  );
  parts.defer(collectRegularly(keeper, log));
  const names = openPeerNames(group, swarm);
  const network = { store, group, keeper, receipts, swarm, links, announce: late.announce, names };
  const onDropped = (listener: () => void): void => void droppedListeners.add(listener);
  return { ...network, onDropped, fetchBlock: openFetch(network, warnings, log) };
}

/** What releases have uncovered leaves within the hour. Returns how to end it. */
function collectRegularly(keeper: Keeper, log: Log): () => void {
  const timer = setInterval(() => {
    keeper.collect().then(
      ({ blocks, bytes }) => {
        if (blocks > 0) log.info({ blocks, bytes }, 'released blocks of others were collected');
      },
      (error: unknown) => log.error({ error }, 'released blocks could not be collected'),
    );
  }, COLLECT_EVERY_MS);
  return () => clearInterval(timer);
}

/** A guest keeps nothing and gets nothing kept. */
function roleWithOwner(group: Group, peerId: string): { role: string; owner: string | null } | undefined {
  const role = group.roleOf(peerId);
  return role?.role === 'guest' ? undefined : role;
}

function openFetch(
  { store, group, receipts, swarm, links, announce, names }: Omit<Network, 'fetchBlock' | 'onDropped'>,
  warnings: Warnings,
  log: Log,
): FetchBlock {
  const isHolder = (peerId: string, id: BlockId): boolean =>
    receipts.holdersOf(id).some((holding) => holding.peerId === peerId);

  function broken(peerId: string, id: BlockId, what: string): void {
    warnings.raise(
      `broken:${peerId}`,
      `${names.describe(peerId)} ${what} (block ${id}); its copies of it no longer count`,
    );
    log.warn({ peer: peerId, block: id }, `a holder ${what}`);
    void receipts.drop(peerId, [id]).catch((error: unknown) => log.error({ error }, 'a receipt could not be dropped'));
  }

  return openFetchBlock({
    store: {
      async get(id, options) {
        try {
          return await store.get(id, options);
        } catch (error) {
          // Rot or a failing disk in this machine's copy: it is said, and peers are asked instead.
          options?.signal?.throwIfAborted();
          if (!isDezentError(error)) throw error;
          warnings.raise(
            `rot:${id}`,
            `the copy of block ${id} on this machine is damaged; run "dezent verify" to mend it`,
          );
          return undefined;
        }
      },
    },
    want: (peerId, id, options) => links.exchange(peerId).want(id, options),
    locate: (id) =>
      [...new Set([...receipts.holdersOf(id).map(({ peerId }) => peerId), ...announce.locate(id)])].filter(
        (peerId) => peerId !== group.deviceId,
      ),
    search: (id, options) => swarm.providers(id, options),
    isConnected: (peerId) => swarm.connected().includes(peerId),
    describe: names.describe,
    onLiar: (peerId, id) => broken(peerId, id, 'gave wrong bytes'),
    onAbsent: (peerId, id) => {
      if (isHolder(peerId, id)) broken(peerId, id, 'no longer has what it signed for');
    },
    onFetched: (peerId, id) => {
      if (isHolder(peerId, id))
        void receipts
          .proved(peerId, [id], Date.now())
          .catch((error: unknown) => log.error({ error }, 'a proof could not be noted'));
    },
  });
}
