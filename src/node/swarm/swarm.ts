// The swarm: one libp2p node of the group with its gate, greetings and dial loop, joined. The rest of the node sees peers by id and streams by
// name; a peer is connected once hello and records are done, so whoever opens a stream to it talks to an admitted member.
import type { Connection, Stream } from '@libp2p/interface';
import type { Multiaddr } from '@multiformats/multiaddr';
import { DezentError } from '../../errors.ts';
import { MAX_ADDRS_PER_PEER, MAX_PEERS, type PeerAddrs } from '../../protocol/records.ts';
import { blockIdToBytes, type BlockId } from '../../store/block.ts';
import {
  isLoopbackAddr,
  isThisMachine,
  networkFingerprint,
  tellable,
  usableListenAddrs,
  withoutPeer,
} from './addresses.ts';
import { cutPeer, peerOfAddr } from './bootstrap.ts';
import { openDhtDatastore } from './dht-datastore.ts';
import { openDht, type Dht } from './dht.ts';
import { dialPeer, tagMember } from './dial.ts';
import { openDoorkeeper } from './doorkeeper.ts';
import { openGate, type Gate, type SwarmGroup } from './gate.ts';
import { openGreeting, type Greeting } from './greeting.ts';
import { createSwarmNode, type SwarmNode } from './libp2p-node.ts';
import type { Log } from '../home/log.ts';
import { openMeetings, type Meetings } from './meetings.ts';
import { openPeerBook, type PeerBook } from './peer-book.ts';
import { openPresence, type Presence } from './presence.ts';
import { openReconnect, type Reconnect } from './reconnect.ts';
import type { StateDb } from '../home/state.ts';

/** Asking the system for its interfaces costs about 0.1 ms. */
const NETWORK_CHECK_MS = 5_000;
/** Long streams per protocol and direction, and room for some that are being replaced. */
const MAX_STREAMS_PER_PROTOCOL = 16;

export type SwarmProtocol = 'exchange' | 'fs' | 'release' | 'audit';

export interface SwarmPeer {
  peerId: string;
  /** Multiaddrs without `/p2p/…`, the best first. */
  addrs: string[];
  connected: boolean;
  lastSeenAt: Date | undefined;
}

export interface Swarm extends AsyncDisposable {
  readonly peerId: string;
  /** The TCP port that this node listens on. */
  readonly port: number;
  /** Multiaddrs that others may dial, with `/p2p/…`: for invites. */
  addrs(): string[];
  /** Admitted members and vaults, greeted. */
  connected(): string[];
  /** All other members and vaults. */
  peers(): SwarmPeer[];
  /** A new stream; dials if needed. Throws UNREACHABLE naming the peer, NOT_ALLOWED when it is no member, or the signal's reason. */
  stream(peerId: string, protocol: SwarmProtocol, options: { signal: AbortSignal }): Promise<Stream>;
  /** Serves streams of members and vaults; `serve` must not throw. */
  handle(protocol: SwarmProtocol, serve: (stream: Stream, peerId: string) => void): void;
  /** After hello and records on the first connection, and after the last one has closed. Each returns how to end it. */
  onConnected(listener: (peerId: string) => void): () => void;
  onDisconnected(listener: (peerId: string) => void): () => void;
  /** After the machine's addresses have changed. */
  onNetworkChange(listener: () => void): () => void;
  /** Gives one encoded head to a peer; resolves when it keeps it durably. UNREACHABLE, PEER_REFUSED with its reason. */
  pushHead(peerId: string, head: Uint8Array, options: { signal: AbortSignal }): Promise<void>;
  /** Files this device as a provider in the DHT. */
  provide(id: BlockId, options: { signal: AbortSignal }): Promise<void>;
  /** No longer repeats an own provider record. */
  withdraw(id: BlockId): Promise<void>;
  /** Members that provide it by the DHT, as they are found: hints. */
  providers(id: BlockId, options: { signal: AbortSignal }): AsyncIterable<string>;
  /** Files this device and its addresses under the group, and takes over the addresses of those who did so too. */
  announceSelf(options: { signal: AbortSignal }): Promise<void>;
}

export interface SwarmNeeds {
  /** 32 bytes: the ed25519 seed of the device key. */
  deviceSeed: Uint8Array;
  group: SwarmGroup;
  /** A sublevel of its own. */
  db: StateDb;
  /** For libp2p's datastore; made if absent. */
  directory: string;
  log: Log;
}

export interface SwarmSettings {
  /** 0: any free one. */
  port: number;
  /** IPs; empty: all, IPv4 and IPv6. */
  listen: string[];
  /** Multiaddrs ending in `/p2p/…` (bootstrap.ts). */
  bootstrap: string[];
}

interface Parts {
  node: SwarmNode;
  group: SwarmGroup;
  gate: Gate;
  book: PeerBook;
  presence: Presence;
  greeting: Greeting;
  meetings: Meetings;
  reconnect: Reconnect;
  dht: Dht;
  addrsOf(peerId: string): string[];
}

/** Runs in the background; a failure is logged, and stopping waits for it. */
type Background = (work: Promise<unknown>, what: string) => void;

/** Starts the swarm. Throws PORT_IN_USE naming the port, CONFIG for a bad listen address. */
export async function openSwarm(needs: SwarmNeeds, settings: SwarmSettings): Promise<Swarm> {
  await using undo = new AsyncDisposableStack();
  const stopping = new AbortController();
  const stop = (): void => stopping.abort(new DezentError('CANCELLED', 'the node is stopping'));
  const background = openBackground(needs.log, undo);
  const parts = await makeParts(needs, settings, { undo, stopping: stopping.signal });
  undo.defer(stop);
  await start(parts.node, settings.port);
  undo.defer(() => parts.node.stop());
  undo.defer(follow(parts, background));
  const networkListeners = new Set<() => void>();
  undo.defer(watchNetwork(parts, networkListeners));
  undo.defer(() => parts.reconnect.stop());
  undo.defer(stop);
  parts.reconnect.tend();
  const running = undo.move();
  return {
    ...swarmOf(parts, background),
    onNetworkChange: (listener) => {
      networkListeners.add(listener);
      return () => void networkListeners.delete(listener);
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

interface Frame {
  undo: AsyncDisposableStack;
  stopping: AbortSignal;
}

async function makeParts(needs: SwarmNeeds, settings: SwarmSettings, { undo, stopping }: Frame): Promise<Parts> {
  const { group, log } = needs;
  const listen = await usableListenAddrs(settings.port, settings.listen);
  const datastore = await openDhtDatastore(needs.directory);
  undo.defer(() => datastore.close());

  const strangers = new Set<Connection>();
  const countStrangers = (): number => [...strangers].filter((c) => !gate.isListed(c.remotePeer.toString())).length;
  const gate: Gate = openGate(group, countStrangers);
  const book = await openPeerBook(needs.db, gate.isListed);
  const bootstrap = Map.groupBy(settings.bootstrap, peerOfAddr);
  for (const peerId of bootstrap.keys()) gate.allowDial(peerId);
  const addrsOf = (peerId: string): string[] => [
    ...book.addrsOf(peerId),
    ...(bootstrap.get(peerId) ?? []).map(cutPeer),
  ];

  let allAddrs: Multiaddr[] = [];
  const announceFilter = (addrs: Multiaddr[]): Multiaddr[] => tellable((allAddrs = addrs));
  const knownAddrs = book.pages().flatMap(({ addrs }) => addrs);
  const { deviceSeed } = needs;
  const node = await createSwarmNode(
    { deviceSeed, groupId: group.groupId, datastore, gate },
    { listen, knownAddrs, announceFilter },
  );

  const presence = openPresence();
  const addrsFor = (connection: Connection): PeerAddrs[] => {
    const told = node.getMultiaddrs();
    const here = isThisMachine(connection.remoteAddr);
    const pages = pagesFor(book, presence, ownPage(group, here ? allAddrs : told));
    return here ? pages : pages.map(withoutLoopback);
  };
  const learn = async (from: string, peers: PeerAddrs[]): Promise<void> =>
    reconnect.hurry(await book.learn(from, peers));
  const doorkeeper = openDoorkeeper({ group, gate, addrsFor, log });
  const greeting = openGreeting({ node, group, gate, doorkeeper, addrsFor, learn, stopping });
  const meetings = await openMeetings({ node, group, gate, greeting, presence, log, strangers, stopping });
  const reconnect: Reconnect = openReconnect({
    peerId: group.deviceId,
    wanted: () => unique([...otherMembers(group), ...bootstrap.keys()]).filter((id) => id !== group.deviceId),
    isConnected: (peerId) => presence.connectionTo(peerId) !== undefined,
    dial: async (peerId, signal) => void (await dialPeer({ node, presence, addrsOf }, peerId, signal)),
    log,
  });
  const dht = openDht(node, gate.isListed);
  return { node, group, gate, book, presence, greeting, meetings, reconnect, dht, addrsOf };
}

async function start(node: SwarmNode, port: number): Promise<void> {
  try {
    await node.start();
  } catch (error) {
    // Taken since it was tried (addresses.ts); libp2p tells only in words.
    if (!(error instanceof Error) || !error.message.includes('EADDRINUSE')) throw error;
    throw new DezentError('PORT_IN_USE', `port ${port} is in use`, { cause: error });
  }
}

/** What happens when peers come and go and when the group changes; returns how to end it. */
function follow({ node, group, book, presence, reconnect }: Parts, background: Background): () => void {
  const arrived = async (peerId: string): Promise<void> => {
    const addr = presence.connectionsTo(peerId).find(({ direction }) => direction === 'outbound')?.remoteAddr;
    await book.met(peerId, addr === undefined ? undefined : withoutPeer(addr));
    await tagMember(node, peerId);
  };
  const ends = [
    presence.onConnected((peerId) => {
      background(arrived(peerId), 'noting a peer');
      // One peer is back, so the network may be.
      reconnect.hurry();
    }),
    presence.onDisconnected((peerId) => {
      background(book.met(peerId), 'noting a peer');
      reconnect.lost(peerId);
    }),
    group.onChange((what) => {
      if (what === 'members') reconnect.tend();
    }),
  ];
  return () => {
    for (const end of ends) end();
  };
}

function watchNetwork({ reconnect, meetings }: Parts, listeners: ReadonlySet<() => void>): () => void {
  let before = networkFingerprint();
  const timer = setInterval(() => {
    const now = networkFingerprint();
    if (now === before) return;
    before = now;
    reconnect.hurry();
    meetings.resync();
    for (const listener of listeners) listener();
  }, NETWORK_CHECK_MS);
  return () => clearInterval(timer);
}

function openBackground(log: Log, undo: AsyncDisposableStack): Background {
  const running = new Set<Promise<unknown>>();
  undo.defer(async () => void (await Promise.allSettled(running)));
  return (work, what) => {
    const guarded = work
      .catch((error: unknown) => log.warn({ error }, `${what} failed`))
      .finally(() => running.delete(guarded));
    running.add(guarded);
  };
}

type Api = Omit<Swarm, 'onNetworkChange' | typeof Symbol.asyncDispose>;

function swarmOf(parts: Parts, background: Background): Api {
  const { node, group, gate, book, presence, greeting, reconnect, dht } = parts;
  const connect = async (peerId: string, signal: AbortSignal): Promise<Connection> => {
    if (!gate.isListed(peerId)) throw new DezentError('NOT_ALLOWED', `${peerId} is not a member of this group`);
    return presence.connectionTo(peerId) ?? dialPeer(parts, peerId, signal);
  };
  const nameOf = (protocol: SwarmProtocol): string => `/dezent/${group.groupId}/${protocol}/1.0.0`;
  return {
    peerId: group.deviceId,
    port: portOf(node),
    addrs: () => node.getMultiaddrs().map((addr) => addr.toString()),
    connected: () => presence.connected(),
    peers: () =>
      otherMembers(group).map((peerId) => {
        const connected = presence.connectionTo(peerId) !== undefined;
        return {
          peerId,
          addrs: book.addrsOf(peerId),
          connected,
          lastSeenAt: connected ? new Date() : book.lastSeenAt(peerId),
        };
      }),
    async stream(peerId, protocol, { signal }) {
      const connection = await connect(peerId, signal);
      return reaching(peerId, signal, () => connection.newStream(nameOf(protocol), { signal }));
    },
    handle(protocol, serve) {
      const limits = { maxInboundStreams: MAX_STREAMS_PER_PROTOCOL, maxOutboundStreams: MAX_STREAMS_PER_PROTOCOL };
      const serveStream = (stream: Stream, connection: Connection): void =>
        serve(stream, connection.remotePeer.toString());
      background(node.handle(nameOf(protocol), serveStream, limits), `serving ${protocol}`);
    },
    onConnected: presence.onConnected,
    onDisconnected: presence.onDisconnected,
    async pushHead(peerId, head, { signal }) {
      const connection = await connect(peerId, signal);
      await reaching(peerId, signal, () => greeting.pushHead(connection, head, signal));
    },
    provide: (id, { signal }) => dht.provide(blockIdToBytes(id), signal),
    withdraw: (id) => dht.withdraw(blockIdToBytes(id)),
    async *providers(id, { signal }) {
      for await (const { peerId } of dht.providers(blockIdToBytes(id), signal)) yield peerId;
    },
    async announceSelf({ signal }) {
      await dht.provide(group.groupIdBytes, signal);
      for await (const peer of dht.providers(group.groupIdBytes, signal)) {
        reconnect.hurry(await book.learn(group.deviceId, [peer]));
      }
    },
  };
}

/** libp2p's many errors of a line that broke, as UNREACHABLE naming the peer. */
async function reaching<T>(peerId: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof DezentError) throw error;
    throw new DezentError(
      'UNREACHABLE',
      `${peerId} cannot be reached: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
}

function pagesFor(book: PeerBook, presence: Presence, own: PeerAddrs): PeerAddrs[] {
  const connected = new Set(presence.connected());
  const others = book.pages().filter(({ peerId, addrs }) => peerId !== own.peerId && addrs.length > 0);
  const pages = others.map((page) => (connected.has(page.peerId) ? { ...page, seenAt: own.seenAt } : page));
  return [own, ...pages.toSorted((a, b) => b.seenAt - a.seenAt)].slice(0, MAX_PEERS);
}

/** Another machine's peer has no use for what loopback means here; a peer with nothing else keeps it. */
function withoutLoopback(page: PeerAddrs): PeerAddrs {
  const addrs = page.addrs.filter((addr) => !isLoopbackAddr(addr));
  return addrs.length > 0 ? { ...page, addrs } : page;
}

function ownPage(group: SwarmGroup, addrs: readonly Multiaddr[]): PeerAddrs {
  return {
    peerId: group.deviceId,
    addrs: unique(addrs.map(withoutPeer)).slice(0, MAX_ADDRS_PER_PEER),
    seenAt: Date.now(),
  };
}

function otherMembers(group: SwarmGroup): string[] {
  return group
    .members()
    .map(({ peerId }) => peerId)
    .filter((peerId) => peerId !== group.deviceId);
}

function portOf(node: SwarmNode): number {
  const port = node
    .getMultiaddrs()[0]
    ?.getComponents()
    .find(({ name }) => name === 'tcp')?.value;
  if (port === undefined) throw new DezentError('INTERNAL', 'the swarm listens nowhere');
  return Number(port);
}

function unique(texts: readonly string[]): string[] {
  return [...new Set(texts)];
}
