// libp2p as this project runs it. Every setting here was measured or read in the sources of 3.3.11; the comment says what goes wrong without it.
// Importing this module costs 240–355 ms, so only what needs a swarm imports it.
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys';
import { identify, type Identify } from '@libp2p/identify';
import type { ConnectionGater, Libp2p } from '@libp2p/interface';
import { kadDHT, passthroughMapper, type KadDHT } from '@libp2p/kad-dht';
import { ping, type Ping } from '@libp2p/ping';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { noise } from '@chainsafe/libp2p-noise';
import type { Multiaddr } from '@multiformats/multiaddr';
import type { Datastore } from 'interface-datastore';
import { createLibp2p, type Libp2pOptions } from 'libp2p';
import type { GateComponents } from './gate.ts';

/** A member that was away for a month is still found; the default of 6 h drops providers and, with them, whole DHT answers. */
const PEER_AGE_MS = 30 * 24 * 60 * 60 * 1000;
/** New connections a second from one address; the default of 5 blocks a household behind one NAT. */
const INBOUND_PER_S = 50;
/** With the default of 10, five idle sockets a second lock everybody out; with 256 and a short upgrade, 600/s do not. */
const MAX_PENDING_INBOUND = 256;
const INBOUND_UPGRADE_MS = 3_000;
/** Addresses are tried one after the other, and many a peer tells some that lead nowhere from here. */
const ADDRESS_DIAL_MS = 3_000;
const DIAL_MS = 50_000;
const PING_INTERVAL_MS = 15_000;
const PING_TIMEOUT_MS = 20_000;
/** One connection serves a few long streams and short ones for kad, identify and records. */
const MAX_INBOUND_STREAMS = 64;
/** The default of 16 MiB starves other streams (ping 55 ms); 2 MiB costs no throughput. Must stay under the 4 MiB that a paused stream buffers. */
const STREAM_WINDOW_BYTES: number = 2 * 1024 * 1024;
/** kad-dht at 64 requests at a time fails with full queues; 8 do not. */
const DHT_CONCURRENCY = 8;
/** announce.ts repeats provider records itself, within its budget; this only sweeps out what has expired. */
const DHT_SWEEP_MS = 60 * 60 * 1000;

export interface SwarmServices extends Record<string, unknown> {
  gate: object;
  identify: Identify;
  ping: Ping;
  dht: KadDHT;
}

export type SwarmNode = Libp2p<SwarmServices>;

export interface NodeNeeds {
  /** 32 bytes; the ed25519 seed of the device key. */
  deviceSeed: Uint8Array;
  groupId: string;
  datastore: Datastore;
  gate: { gater: ConnectionGater; service: (components: GateComponents) => object };
}

export interface NodeSettings {
  /** Multiaddrs. */
  listen: string[];
  /** `/ip4/…` and `/ip6/…` of known members: the limits on new connections do not hold for them. */
  knownAddrs: string[];
  announceFilter(addrs: Multiaddr[]): Multiaddr[];
}

/** A node of the group, not yet started. */
export async function createSwarmNode(needs: NodeNeeds, settings: NodeSettings): Promise<SwarmNode> {
  const base = await baseOptions(needs.deviceSeed);
  return createLibp2p<SwarmServices>({
    ...base,
    start: false,
    datastore: needs.datastore,
    addresses: { listen: settings.listen, announceFilter: (addrs) => settings.announceFilter(addrs) },
    connectionGater: needs.gate.gater,
    peerStore: { maxAddressAge: PEER_AGE_MS, maxPeerAge: PEER_AGE_MS },
    connectionManager: {
      inboundConnectionThreshold: INBOUND_PER_S,
      maxIncomingPendingConnections: MAX_PENDING_INBOUND,
      inboundUpgradeTimeout: INBOUND_UPGRADE_MS,
      addressDialTimeout: ADDRESS_DIAL_MS,
      dialTimeout: DIAL_MS,
      // The peer book has put the best first (dial.ts).
      addressSorter: () => 0,
      allow: settings.knownAddrs,
    },
    // A machine that is busy with hashing answers late; the default of 5 s cuts healthy lines.
    connectionMonitor: { pingInterval: PING_INTERVAL_MS, pingTimeout: { minTimeout: PING_TIMEOUT_MS } },
    services: {
      // First, so that it wraps the registrar before the others register (gate.ts).
      gate: (components: unknown) => needs.gate.service(components as GateComponents),
      // Run by hand after admission: on an unadmitted connection it is refused and never tried again.
      identify: identify({ runOnConnectionOpen: false }),
      ping: ping(),
      dht: kadDHT({
        protocol: `/dezent/${needs.groupId}/kad/1.0.0`,
        clientMode: false,
        // The default mapper drops private addresses: tables stay empty on a LAN.
        peerInfoMapper: passthroughMapper,
        // Else a lone node hangs for 180 s.
        allowQueryWithZeroPeers: true,
        reprovide: { concurrency: DHT_CONCURRENCY, interval: DHT_SWEEP_MS },
      }),
    },
  });
}

/** A node that only dials, has no DHT and answers nothing: for init and recover. */
export async function createDialer(deviceSeed: Uint8Array): Promise<Libp2p> {
  return createLibp2p({
    ...(await baseOptions(deviceSeed)),
    addresses: { listen: [] },
    connectionManager: { addressDialTimeout: ADDRESS_DIAL_MS, dialTimeout: DIAL_MS },
    connectionMonitor: { enabled: false },
  });
}

async function baseOptions(deviceSeed: Uint8Array): Promise<Libp2pOptions> {
  return {
    privateKey: await generateKeyPairFromSeed('Ed25519', deviceSeed),
    // The default names libp2p's and Node's versions to everybody.
    nodeInfo: { name: 'dezent', version: '1', userAgent: 'dezent/1' },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [
      yamux({ maxInboundStreams: MAX_INBOUND_STREAMS, streamOptions: { maxStreamWindowSize: STREAM_WINDOW_BYTES } }),
    ],
  };
}
