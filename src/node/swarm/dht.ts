// Provider records in the group's DHT. Keys are the sha2-256 of what is provided: kad-dht 16.4.5 silently drops records under other hashes.
// Answers are hints: only members are named, and each must still prove what it has.
import { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';
import { sha256 } from 'multiformats/hashes/sha2';
import type { PeerAddrs } from '../../protocol/records.ts';
import { withoutPeer } from './addresses.ts';
import type { SwarmNode } from './libp2p-node.ts';

export interface Dht {
  /** Files this device as a provider with the closest peers. Rejects with the signal's reason, or when the node has stopped. */
  provide(bytes: Uint8Array, signal: AbortSignal): Promise<void>;
  /** This device's own record is no longer repeated; those at other peers end within 48 h. */
  withdraw(bytes: Uint8Array): Promise<void>;
  /** Members other than this device that provide it, each once, as they are found. */
  providers(bytes: Uint8Array, signal: AbortSignal): AsyncIterable<PeerAddrs>;
}

export function openDht(node: SwarmNode, isListed: (peerId: string) => boolean): Dht {
  return {
    async provide(bytes, signal) {
      await node.contentRouting.provide(await keyOf(bytes), { signal });
    },
    async withdraw(bytes) {
      await node.contentRouting.cancelReprovide(await keyOf(bytes));
    },
    async *providers(bytes, signal) {
      for await (const { id, multiaddrs } of node.contentRouting.findProviders(await keyOf(bytes), { signal })) {
        if (id.equals(node.peerId) || !isListed(id.toString())) continue;
        yield { peerId: id.toString(), addrs: multiaddrs.map(withoutPeer), seenAt: 0 };
      }
    },
  };
}

async function keyOf(bytes: Uint8Array): Promise<CID> {
  return CID.createV1(raw.code, await sha256.digest(bytes));
}
