// The gate: who may speak what. Any peer may finish Noise; an unlisted one gets `hello` alone and is cut off when it is not admitted in time.
// Roles are checked for every stream, by wrapping `registrar.handle` before any service has registered anything: `libp2p.use()` in 3.3.11
// repeats handlers, and a refusal by the connection gater would keep out peers that hello is there to admit.
import type { ConnectionGater, PeerId, StreamHandler, StreamHandlerOptions } from '@libp2p/interface';
import { DezentError } from '../../errors.ts';
import { HELLO_PROTOCOL } from '../../protocol/hello.ts';
import type { Group } from '../group/group.ts';

/** Strangers that may be connected at one time; more are refused after Noise, so they cannot crowd out members. */
export const MAX_UNLISTED_CONNECTIONS = 64;

/** What the swarm asks of the group. */
export type SwarmGroup = Pick<
  Group,
  | 'groupId'
  | 'groupIdBytes'
  | 'deviceId'
  | 'roleOf'
  | 'members'
  | 'records'
  | 'merge'
  | 'putHead'
  | 'guestOf'
  | 'join'
  | 'onChange'
>;

export interface Gate {
  /** Listed as a member's device or a vault. */
  isListed(peerId: string): boolean;
  allows(peerId: string, protocol: string): boolean;
  /** Lets us dial a peer that is not listed (a bootstrap peer), so that hello can find out. */
  allowDial(peerId: string): void;
  readonly gater: ConnectionGater;
  /** A libp2p service that must be constructed before all others. */
  readonly service: (components: GateComponents) => object;
}

/** The part of libp2p's components that the gate wraps. */
export interface GateComponents {
  registrar: { handle(protocol: string, serve: StreamHandler, options?: StreamHandlerOptions): Promise<void> };
}

export function openGate(group: Pick<SwarmGroup, 'roleOf'>, unlistedConnections: () => number): Gate {
  const dialable = new Set<string>();

  const isListed = (peerId: string): boolean => {
    const role = group.roleOf(peerId)?.role;
    return role === 'member' || role === 'vault';
  };
  const allows = (peerId: string, protocol: string): boolean => protocol === HELLO_PROTOCOL || isListed(peerId);

  const guarded =
    (protocol: string, serve: StreamHandler): StreamHandler =>
    (stream, connection) => {
      if (allows(connection.remotePeer.toString(), protocol)) return serve(stream, connection);
      stream.abort(new DezentError('NOT_ALLOWED', `${connection.remotePeer.toString()} may not speak ${protocol}`));
    };

  return {
    isListed,
    allows,
    allowDial: (peerId) => void dialable.add(peerId),
    gater: {
      // Kademlia answers and keep-alive tags name peers too; only members and bootstrap peers are ever dialled.
      denyDialPeer: (peerId: PeerId) => !isListed(peerId.toString()) && !dialable.has(peerId.toString()),
      denyInboundEncryptedConnection: (peerId: PeerId) =>
        !isListed(peerId.toString()) && unlistedConnections() >= MAX_UNLISTED_CONNECTIONS,
    },
    service: ({ registrar }) => {
      const handle = registrar.handle.bind(registrar);
      registrar.handle = (protocol, serve, options) => handle(protocol, guarded(protocol, serve), options);
      return {};
    },
  };
}
