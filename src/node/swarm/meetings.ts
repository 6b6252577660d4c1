// Watches libp2p's connections: greets each new one, counts in those that are ready, ends those of strangers and of members that were removed.
import type { Connection, Stream, StreamHandler } from '@libp2p/interface';
import { DezentError, isDezentError } from '../../errors.ts';
import { HELLO_PROTOCOL, HELLO_TIMEOUT_MS } from '../../protocol/hello.ts';
import type { Gate, SwarmGroup } from './gate.ts';
import type { Greeting } from './greeting.ts';
import type { SwarmNode } from './libp2p-node.ts';
import type { Log } from '../home/log.ts';
import type { Presence } from './presence.ts';

/** Changes come in bursts (entry, owner record on a join); one exchange carries them all. */
const MEMBERS_DELAY_MS = 100;
/** Heads are pushed to their holders as they are made; this is for all others. */
const HEADS_DELAY_MS = 2_000;

export interface MeetingNeeds {
  node: SwarmNode;
  group: SwarmGroup;
  gate: Gate;
  greeting: Greeting;
  presence: Presence;
  log: Log;
  /** Connections of strangers, kept up to date here; the gate counts them. */
  strangers: Set<Connection>;
  stopping: AbortSignal;
}

export interface Meetings {
  /** Exchanges records and addresses with all connected peers at once, in the background. */
  resync(): void;
}

/** Registers hello and records and begins to watch; call before the node starts. Ends with `stopping`. */
export async function openMeetings(needs: MeetingNeeds): Promise<Meetings> {
  const { node, group, greeting, presence, stopping } = needs;
  const onOpen = ({ detail: connection }: CustomEvent<Connection>): void => onConnection(needs, connection);
  const onClose = ({ detail: connection }: CustomEvent<Connection>): void => {
    presence.leave(connection);
    if (needs.strangers.delete(connection)) forgetStranger(needs, connection);
  };
  const resync = openResync(needs);
  const unsubscribe = group.onChange((what) => {
    if (what === 'members') dropRemoved(needs);
    resync(what === 'members' ? MEMBERS_DELAY_MS : HEADS_DELAY_MS);
  });
  node.addEventListener('connection:open', onOpen);
  node.addEventListener('connection:close', onClose);
  stopping.addEventListener('abort', unsubscribe, { once: true });

  await node.handle(HELLO_PROTOCOL, guarded(needs, greeting.serveHello), { maxInboundStreams: 1 });
  await node.handle(
    greeting.recordsProtocol,
    guarded(needs, async (stream, connection) => {
      const { kind, refused } = await greeting.serveRecords(stream, connection);
      if (refused !== undefined) report(needs, connection, 'a peer gave records that are not valid', refused);
      if (kind === 'sync' && !presence.has(connection)) await settle(needs, connection);
    }),
  );
  return { resync: () => resync(0) };
}

function onConnection(needs: MeetingNeeds, connection: Connection): void {
  const { gate, strangers } = needs;
  if (!gate.isListed(peerOf(connection))) {
    strangers.add(connection);
    const timer = setTimeout(() => {
      if (!gate.isListed(peerOf(connection))) connection.abort(new DezentError('NOT_ALLOWED', 'not admitted in time'));
    }, HELLO_TIMEOUT_MS);
    connection.addEventListener('close', () => clearTimeout(timer), { once: true });
  }
  if (connection.direction !== 'outbound') return;
  greetAll(needs, connection).catch((error: unknown) => {
    report(needs, connection, 'the greeting failed', error);
    connection.abort(asError(error));
  });
}

async function greetAll(needs: MeetingNeeds, connection: Connection): Promise<void> {
  await needs.greeting.greet(connection);
  try {
    await needs.greeting.exchange(connection);
  } catch (error) {
    // A peer with a bad record may still hold good blocks.
    if (!isDezentError(error, 'BAD_RECORD') && !isDezentError(error, 'PEER_REFUSED')) throw error;
    report(needs, connection, 'records were not taken', error);
  }
  await settle(needs, connection);
}

/** libp2p notes every peer that negotiates a protocol; strangers must not fill the disk. */
function forgetStranger(needs: MeetingNeeds, connection: Connection): void {
  if (needs.gate.isListed(peerOf(connection)) || needs.stopping.aborted) return;
  needs.node.peerStore
    .delete(connection.remotePeer)
    .catch((error: unknown) => report(needs, connection, 'a stranger could not be forgotten', error));
}

function dropRemoved({ gate, presence }: MeetingNeeds): void {
  for (const peerId of presence.connected().filter((id) => !gate.isListed(id))) {
    for (const connection of presence.connectionsTo(peerId)) {
      connection.abort(new DezentError('NOT_ALLOWED', `${peerId} is no longer a member`));
    }
  }
}

/** The earliest of the delays asked for counts. */
function openResync(needs: MeetingNeeds): (delayMs: number) => void {
  let timer: NodeJS.Timeout | undefined;
  let dueAt = Infinity;
  needs.stopping.addEventListener('abort', () => clearTimeout(timer), { once: true });
  const run = (): void => {
    dueAt = Infinity;
    for (const peerId of needs.presence.connected()) {
      const connection = needs.presence.connectionTo(peerId);
      if (connection === undefined) continue;
      needs.greeting
        .exchange(connection)
        .catch((error: unknown) => report(needs, connection, 'the exchange of records failed', error));
    }
  };
  return (delayMs) => {
    if (needs.stopping.aborted || dueAt <= Date.now() + delayMs) return;
    dueAt = Date.now() + delayMs;
    clearTimeout(timer);
    timer = setTimeout(run, delayMs);
  };
}

/** The last step on both sides. Without identify the peer is missing from the DHT's tables, nothing else; its streams work. */
async function settle(needs: MeetingNeeds, connection: Connection): Promise<void> {
  try {
    await needs.greeting.identify(connection);
  } catch (error) {
    report(needs, connection, 'identify failed', error);
  }
  if (needs.gate.isListed(peerOf(connection))) needs.presence.arrive(connection);
}

function guarded(needs: MeetingNeeds, serve: (stream: Stream, connection: Connection) => Promise<void>): StreamHandler {
  return (stream, connection) => {
    serve(stream, connection).catch((error: unknown) => {
      report(needs, connection, `serving ${stream.protocol} failed`, error);
      stream.abort(asError(error));
    });
  };
}

/** Broken lines are everyday life; a peer that breaks the rules is named. */
function report({ log, stopping }: MeetingNeeds, connection: Connection, message: string, error: unknown): void {
  if (stopping.aborted) return;
  const fault =
    isDezentError(error, 'BAD_RECORD') || isDezentError(error, 'BAD_FRAME') || isDezentError(error, 'PEER_REFUSED');
  log[fault ? 'warn' : 'debug']({ peer: peerOf(connection), error }, message);
}

function peerOf(connection: Connection): string {
  return connection.remotePeer.toString();
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new DezentError('INTERNAL', String(error));
}
