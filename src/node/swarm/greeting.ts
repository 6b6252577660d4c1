// The steps on one connection before anybody may use it: hello, records, identify. The side that dialled asks, the other answers.
// identify runs after admission, on both sides: before it, the gate refuses it, and kad-dht hears of peers through identify alone.
import type { Connection, Stream } from '@libp2p/interface';
import { DezentError } from '../../errors.ts';
import { HELLO_PROTOCOL, HELLO_TIMEOUT_MS, answerHello, sayHello } from '../../protocol/hello.ts';
import {
  pushHead,
  serveRecords,
  syncRecords,
  type PeerAddrs,
  type RecordsSide,
  type Served,
} from '../../protocol/records.ts';
import { decodeEnvelope } from '../../protocol/signature.ts';
import { countOf, sameBytes, type Doorkeeper } from './doorkeeper.ts';
import type { Gate, SwarmGroup } from './gate.ts';
import type { SwarmNode } from './libp2p-node.ts';

/** Generous: a large group's records on a slow line. */
const RECORDS_TIMEOUT_MS = 60_000;
const IDENTIFY_TIMEOUT_MS = 5_000;

export interface GreetingNeeds {
  node: SwarmNode;
  group: SwarmGroup;
  gate: Gate;
  doorkeeper: Doorkeeper;
  /** Addresses worth telling the peer on this connection, our own included. */
  addrsFor(connection: Connection): PeerAddrs[];
  learn(from: string, peers: PeerAddrs[]): Promise<void>;
  /** Fires when the node stops. */
  stopping: AbortSignal;
}

export interface Greeting {
  readonly recordsProtocol: string;
  /** hello on a connection that we dialled. Throws NOT_ALLOWED when the peer does not let us in or is no member. */
  greet(connection: Connection): Promise<void>;
  /** Exchanges records and addresses again. */
  exchange(connection: Connection): Promise<void>;
  pushHead(connection: Connection, head: Uint8Array, signal: AbortSignal): Promise<void>;
  serveHello(stream: Stream, connection: Connection): Promise<void>;
  /** Answers one exchange or head. */
  serveRecords(stream: Stream, connection: Connection): Promise<Served>;
  identify(connection: Connection): Promise<void>;
}

export function openGreeting(needs: GreetingNeeds): Greeting {
  const { node, group, gate } = needs;
  const recordsProtocol = `/dezent/${group.groupId}/records/1.0.0`;
  const within = (ms: number): AbortSignal => AbortSignal.any([needs.stopping, AbortSignal.timeout(ms)]);
  const exchange = async (connection: Connection): Promise<void> => {
    const signal = within(RECORDS_TIMEOUT_MS);
    const stream = await connection.newStream(recordsProtocol, { signal });
    await syncRecords(stream, sideOf(needs, connection), signal);
  };
  const identify = async (connection: Connection): Promise<void> => {
    await node.services.identify.identify(connection, { signal: within(IDENTIFY_TIMEOUT_MS) });
  };

  return {
    recordsProtocol,
    exchange,
    identify,
    async greet(connection) {
      const peerId = connection.remotePeer.toString();
      const signal = within(HELLO_TIMEOUT_MS);
      const stream = await connection.newStream(HELLO_PROTOCOL, { signal });
      const answer = await sayHello(
        stream,
        { group: group.groupIdBytes, records: group.records(), claim: undefined },
        signal,
      );
      if (!sameBytes(answer.group, group.groupIdBytes))
        throw new DezentError('NOT_ALLOWED', `${peerId} belongs to another group`);
      if (!answer.admitted)
        throw new DezentError('NOT_ALLOWED', `${peerId} does not let this device in: ${answer.reason}`);
      if (countOf(answer.records) > 0) await group.merge(answer.records, peerId);
      if (!gate.isListed(peerId)) throw new DezentError('NOT_ALLOWED', `${peerId} is not a member of this group`);
    },
    async pushHead(connection, head, callSignal) {
      const signal = AbortSignal.any([callSignal, within(RECORDS_TIMEOUT_MS)]);
      const stream = await connection.newStream(recordsProtocol, { signal });
      await pushHead(stream, head, signal);
    },
    async serveHello(stream, connection) {
      const answer = await answerHello(
        stream,
        (request) => needs.doorkeeper(connection, request),
        within(HELLO_TIMEOUT_MS),
      );
      if (!answer.admitted) await connection.close({ signal: within(HELLO_TIMEOUT_MS) });
    },
    async serveRecords(stream, connection) {
      return serveRecords(stream, sideOf(needs, connection), within(RECORDS_TIMEOUT_MS));
    },
  };
}

function sideOf({ group, addrsFor, learn }: GreetingNeeds, connection: Connection): RecordsSide {
  const peerId = connection.remotePeer.toString();
  return {
    records: () => group.records(),
    merge: async (records) => void (await group.merge(records, peerId)),
    keepHead: (head) => group.putHead(decodeEnvelope(head)),
    peers: () => addrsFor(connection),
    learn: (peers) => learn(peerId, peers),
  };
}
