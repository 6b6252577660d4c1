// Dials a member at the addresses of the peer book and waits until it has been greeted.
import { KEEP_ALIVE, type Connection } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import { multiaddr } from '@multiformats/multiaddr';
import { DezentError } from '../../errors.ts';
import type { SwarmNode } from './libp2p-node.ts';
import type { Presence } from './presence.ts';

/** All addresses one after the other (4 s each at most), then hello and records. */
const DIAL_TIMEOUT_MS = 60_000;
/** Above the DHT's own tags: when connections are pruned, members go last. */
const MEMBER_TAG_VALUE = 100;

export interface DialNeeds {
  node: SwarmNode;
  presence: Presence;
  /** Without `/p2p/…`, the best first. */
  addrsOf(peerId: string): string[];
}

/** Throws UNREACHABLE naming the peer, when it has no known address, does not answer, or does not let us in. */
export async function dialPeer(needs: DialNeeds, peerId: string, signal: AbortSignal): Promise<Connection> {
  const { node, presence } = needs;
  const known = presence.connectionTo(peerId);
  if (known !== undefined) return known;
  const addrs = needs.addrsOf(peerId).map((addr) => multiaddr(`${addr}/p2p/${peerId}`));
  if (addrs.length === 0) throw new DezentError('UNREACHABLE', `no address of ${peerId} is known`);
  const limit = AbortSignal.any([signal, AbortSignal.timeout(DIAL_TIMEOUT_MS)]);
  try {
    const connection = await node.dial(addrs, { signal: limit });
    await greetedOrClosed(presence, connection, limit);
  } catch (error) {
    signal.throwIfAborted();
    const connected = presence.connectionTo(peerId);
    if (connected !== undefined) return connected;
    const why = error instanceof Error ? error.message : String(error);
    throw new DezentError('UNREACHABLE', `${peerId} cannot be reached at ${addrs.join(', ')}: ${why}`, {
      cause: error,
    });
  }
  const connection = presence.connectionTo(peerId);
  if (connection === undefined) throw new DezentError('UNREACHABLE', `${peerId} has gone again`);
  return connection;
}

/** A peer that was greeted stays in libp2p's memory as one to keep; its own reconnects help ours (reconnect.ts). */
export async function tagMember(node: SwarmNode, peerId: string): Promise<void> {
  const tags = { [`${KEEP_ALIVE}-dezent`]: { value: MEMBER_TAG_VALUE } };
  await node.peerStore.merge(peerIdFromString(peerId), { tags });
}

async function greetedOrClosed(presence: Presence, connection: Connection, signal: AbortSignal): Promise<void> {
  const closed = new AbortController();
  const onClose = (): void =>
    closed.abort(new DezentError('UNREACHABLE', 'the connection was closed before it was greeted'));
  connection.addEventListener('close', onClose, { once: true });
  if (connection.status !== 'open') onClose();
  try {
    await presence.waitFor(connection.remotePeer.toString(), AbortSignal.any([signal, closed.signal]));
  } finally {
    connection.removeEventListener('close', onClose);
  }
}
