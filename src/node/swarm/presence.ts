// Who is connected: the peers with at least one open connection on which records were exchanged.
// Two connections to one peer (both dialled at once) are one presence: it comes with the first and goes with the last.
import type { Connection } from '@libp2p/interface';

export interface Presence {
  /** Counts the connection in; false when it was already, or has closed meanwhile. */
  arrive(connection: Connection): boolean;
  leave(connection: Connection): void;
  has(connection: Connection): boolean;
  connected(): string[];
  /** An open connection to the peer, the oldest first. */
  connectionTo(peerId: string): Connection | undefined;
  connectionsTo(peerId: string): Connection[];
  /** Resolves when the peer is connected; rejects with the signal's reason. */
  waitFor(peerId: string, signal: AbortSignal): Promise<void>;
  /** Both return how to end it. */
  onConnected(listener: (peerId: string) => void): () => void;
  onDisconnected(listener: (peerId: string) => void): () => void;
}

export function openPresence(): Presence {
  const connections = new Map<string, Set<Connection>>();
  const connectedListeners = new Set<(peerId: string) => void>();
  const disconnectedListeners = new Set<(peerId: string) => void>();
  const connectionsTo = (peerId: string): Connection[] =>
    [...(connections.get(peerId) ?? [])].filter(({ status }) => status === 'open');
  const onConnected = (listener: (peerId: string) => void): (() => void) => subscribe(connectedListeners, listener);

  return {
    arrive(connection) {
      const peerId = connection.remotePeer.toString();
      const known = connections.get(peerId);
      if (connection.status !== 'open' || known?.has(connection) === true) return false;
      connections.set(peerId, (known ?? new Set()).add(connection));
      if (known === undefined) tell(connectedListeners, peerId);
      return true;
    },
    leave(connection) {
      const peerId = connection.remotePeer.toString();
      const known = connections.get(peerId);
      if (known?.delete(connection) !== true || known.size > 0) return;
      connections.delete(peerId);
      tell(disconnectedListeners, peerId);
    },
    has: (connection) => connections.get(connection.remotePeer.toString())?.has(connection) === true,
    connected: () => [...connections.keys()],
    connectionTo: (peerId) => connectionsTo(peerId)[0],
    connectionsTo,
    async waitFor(peerId, signal) {
      signal.throwIfAborted();
      if (connectionsTo(peerId).length > 0) return;
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const unsubscribe = onConnected((arrived) => {
        if (arrived === peerId) resolve();
      });
      const abort = (): void => reject(signal.reason);
      signal.addEventListener('abort', abort, { once: true });
      try {
        await promise;
      } finally {
        unsubscribe();
        signal.removeEventListener('abort', abort);
      }
    },
    onConnected,
    onDisconnected: (listener) => subscribe(disconnectedListeners, listener),
  };
}

function subscribe<T>(listeners: Set<T>, listener: T): () => void {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

function tell(listeners: ReadonlySet<(peerId: string) => void>, peerId: string): void {
  for (const listener of listeners) listener(peerId);
}
