// One running node: the place where all parts are made and joined, in the order in which they need each other; stopping is the reverse.
// Table of contents: home and keys → state → network (open-network.ts) → the owner's files (open-files.ts) → what the control API offers.
import { DezentError } from '../errors.ts';
import { openConfig, type Config } from './home/config.ts';
import type { NodeApi, PeerValue, StatusValue } from './control/control-api.ts';
import { checkFolder } from './files/folder.ts';
import { homePlaces, readIdentity, type HomeIdentity } from './home/home.ts';
import { openKeys } from './home/key-files.ts';
import type { Log } from './home/log.ts';
import { openNodeEvents, type NodeEvents } from './control/node-events.ts';
import { openFiles, type Files } from './open-files.ts';
import { openNetwork, type Network } from './open-network.ts';
import { openState } from './home/state.ts';
import { openTransfers, type Transfers } from './control/transfers.ts';
import { openWarnings, type Warnings } from './home/warnings.ts';

export interface RunningNode {
  readonly api: NodeApi;
  readonly port: number;
  readonly deviceId: string;
  stop(): Promise<void>;
}

interface Parts {
  identity: HomeIdentity;
  config: Config;
  network: Network;
  /** Absent on a vault. */
  files: Files | undefined;
  transfers: Transfers;
  warnings: Warnings;
  events: NodeEvents;
  startedAt: number;
}

/**
 * Starts the node of a home; it accepts peers and commands when this returns, scans go on behind. Throws NOT_FOUND (no device), KEYS,
 * FOLDER, CONFIG, ALREADY_RUNNING, PORT_IN_USE.
 */
export async function startNode(home: string, { log }: { log: Log }): Promise<RunningNode> {
  const identity = await readIdentity(home);
  const keys = await openKeys(home);
  const config = openConfig(home);
  await checkFolder(identity.folder, home);
  await using parts = new AsyncDisposableStack();

  const db = await openState(homePlaces(home).state);
  parts.defer(() => db.close());
  const events = openNodeEvents();
  const warnings = openWarnings((text) => {
    log.warn({}, text);
    events.emit({ event: 'warning', text });
  });
  const transfers = openLoggedTransfers(log, events);

  const isVault = identity.ownerId === '';
  const own: { files?: Files } = {};
  const shared = { config, db, log, warnings, parts, keys };
  const network = await openNetwork({
    ...shared,
    home,
    identity,
    isOwn: (id) => (isVault ? false : (own.files?.isOwn(id) ?? true)),
  });
  tellPeers(network, events, log);
  const files = isVault
    ? undefined
    : await openFiles({ ...shared, network, folder: identity.folder, transfers, events });
  if (files !== undefined) own.files = files;

  const running = parts.move();
  log.info({ device: identity.deviceId, port: network.swarm.port, folder: identity.folder }, 'the node is running');
  return {
    api: apiOf({ identity, config, network, files, transfers, warnings, events, startedAt: Date.now() }),
    port: network.swarm.port,
    deviceId: identity.deviceId,
    stop: () => running.disposeAsync(),
  };
}

function openLoggedTransfers(log: Log, events: NodeEvents): Transfers {
  return openTransfers({
    onChange: ({ rateBytesPerS: _rate, ...value }) => events.emit({ event: 'transfer', ...value }),
    onEnd({ path, direction, peer, doneBytes, tookMs, failure }) {
      const what = { path, direction, peer, bytes: doneBytes, tookMs };
      if (failure === undefined) log.info(what, `${direction} done`);
      else log.warn({ ...what, failure }, `${direction} not done`);
    },
  });
}

function tellPeers({ swarm, names }: Network, events: NodeEvents, log: Log): void {
  const tell = (connected: boolean) => (peerId: string) => {
    log.info({ peer: peerId, name: names.nameOf(peerId) }, connected ? 'a peer is connected' : 'a peer is gone');
    events.emit({ event: 'peer', deviceId: peerId, name: names.nameOf(peerId), connected });
  };
  swarm.onConnected(tell(true));
  swarm.onDisconnected(tell(false));
}

/** A vault has no files of an owner. */
function noFiles(): Files['api'] {
  const refuse = (): never => {
    throw new DezentError('NOT_ALLOWED', 'this device is a vault: it keeps blocks and has no files of its own');
  };
  return {
    add: refuse,
    free: refuse,
    open: refuse,
    restore: refuse,
    ls: refuse,
    whereis: refuse,
    why: refuse,
    verify: refuse,
  };
}

function apiOf(parts: Parts): NodeApi {
  const { config, network, files, events } = parts;
  return {
    ...(files?.api ?? noFiles()),
    status: async () => statusOf(parts),
    peers: async () => peersOf(network),
    async invite({ vault, uses, ttlMs }) {
      const expiresAt = new Date(Date.now() + ttlMs).toISOString();
      return {
        invite: await network.group.createInvite({ vault, uses, ttlMs, addrs: network.swarm.addrs() }),
        uses,
        expiresAt,
      };
    },
    configGet: async ({ key }) => config.show(key),
    configSet: ({ key, value }) => config.set(key, value),
    events: (signal) => events.listen(signal),
  };
}

async function statusOf({
  identity,
  config,
  network,
  files,
  transfers,
  warnings,
  startedAt,
}: Parts): Promise<StatusValue> {
  const none = { total: 0, working: 0, waiting: 0, protected: 0, stubbed: 0, restored: 0, failed: 0 };
  const { usedBytes } = await network.store.space();
  return {
    deviceId: identity.deviceId,
    ownerId: identity.ownerId,
    groupId: identity.groupId,
    folder: identity.folder,
    port: network.swarm.port,
    uptimeMs: Date.now() - startedAt,
    peers: { connected: network.swarm.connected().length, known: network.swarm.peers().length },
    files: files?.tree.counts() ?? none,
    store: { usedBytes, quotaBytes: config.get('store.quotaBytes') },
    heldForOthersBytes: network.keeper.heldBytes(),
    freedBytes: files?.freedBytes() ?? 0,
    transfers: transfers.list(),
    warnings: warnings.list(),
  };
}

/** All other devices and vaults of the group. */
function peersOf({ group, swarm }: Network): PeerValue[] {
  const members = new Map(group.members().map((member) => [member.peerId, member]));
  return swarm.peers().flatMap(({ peerId, addrs, connected, lastSeenAt }) => {
    const member = members.get(peerId);
    if (member === undefined) return [];
    const { name, owner, machine, role } = member;
    return [
      { deviceId: peerId, name, owner, machine, role, addrs, connected, lastSeenAt: lastSeenAt?.toISOString() ?? null },
    ];
  });
}
