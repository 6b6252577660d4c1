// records: member list, owner records, catalog heads and peers' addresses, exchanged first on every connection and again when they change.
// Digests first, so equal sides send no record. Envelopes are passed on byte for byte; whoever merges them checks every signature.
//
//   sync:  caller  have {digests, peers} → answerer give* {what the caller lacks; last: want, peers} → caller give* {wanted} → done {refused}
//   head:  caller  head {envelope}       → done {refused}      (the answer is sent after the head is durable: an acknowledgement)
import { blake3 } from '@napi-rs/blake-hash';
import type { Stream } from '@libp2p/interface';
import * as v from 'valibot';
import { DezentError, isDezentError } from '../errors.ts';
import { MAX_ENTRIES, MAX_HEADS, MAX_OWNER_RECORDS, type GroupRecords } from './group-records.ts';
import { openMessages, type Messages } from './message-stream.ts';
import { MAX_ENVELOPE_BYTES } from './signature.ts';

/** One message: the largest envelope (960 KiB) and its neighbours. */
const MAX_MESSAGE_BYTES: number = 2 * 1024 * 1024;
/** Envelopes are gathered into messages of about this size. */
const GIVE_BYTES: number = 512 * 1024;
/** What an envelope takes besides its own bytes. */
const ENVELOPE_COST_BYTES = 64;
/** All that one side may give in one exchange: 1,000 members with heads of 64 KiB. */
const MAX_GIVEN_BYTES: number = 64 * 1024 * 1024;
/** 16 bytes of blake3 are enough to tell envelopes apart: a clash only delays one record until it changes. */
const DIGEST_BYTES = 16;
/** With 16 addresses each, half a message. */
export const MAX_PEERS = 512;
/** A machine with several interfaces on both IP versions; more is noise. */
export const MAX_ADDRS_PER_PEER = 16;

/** Where a peer was last met. A hint: Noise proves who answers there. */
export interface PeerAddrs {
  peerId: string;
  addrs: string[];
  /** Milliseconds since 1970; 0 = never met. */
  seenAt: number;
}

/** What an exchange needs from the node. */
export interface RecordsSide {
  records(): GroupRecords;
  /** Checks and keeps, durably. Throws BAD_RECORD and keeps nothing of a record that is not valid. */
  merge(records: GroupRecords): Promise<void>;
  /** Keeps one head, durably. Throws BAD_RECORD, also when a later one is held. */
  keepHead(head: Uint8Array): Promise<void>;
  peers(): PeerAddrs[];
  learn(peers: PeerAddrs[]): Promise<void>;
}

const envelopeSchema = v.pipe(v.instance(Uint8Array), v.maxLength(MAX_ENVELOPE_BYTES));
export const recordsSchema: v.GenericSchema<unknown, GroupRecords> = v.strictObject({
  entries: v.pipe(v.array(envelopeSchema), v.maxLength(MAX_ENTRIES)),
  owners: v.pipe(v.array(envelopeSchema), v.maxLength(MAX_OWNER_RECORDS)),
  heads: v.pipe(v.array(envelopeSchema), v.maxLength(MAX_HEADS)),
});
const digestsSchema = v.pipe(
  v.array(v.pipe(v.instance(Uint8Array), v.length(DIGEST_BYTES))),
  v.maxLength(MAX_ENTRIES + MAX_OWNER_RECORDS + MAX_HEADS),
);
export const peersSchema: v.GenericSchema<unknown, PeerAddrs[]> = v.pipe(
  v.array(
    v.strictObject({
      peerId: v.pipe(v.string(), v.maxLength(128)),
      addrs: v.pipe(v.array(v.pipe(v.string(), v.maxLength(256))), v.maxLength(MAX_ADDRS_PER_PEER)),
      seenAt: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
    }),
  ),
  v.maxLength(MAX_PEERS),
);
const haveSchema = v.strictObject({
  t: v.literal('have'),
  v: v.literal(1),
  digests: digestsSchema,
  peers: peersSchema,
});
const giveSchema = v.strictObject({
  t: v.literal('give'),
  records: recordsSchema,
  last: v.nullable(v.strictObject({ want: digestsSchema, peers: peersSchema })),
});
const headSchema = v.strictObject({ t: v.literal('head'), v: v.literal(1), head: envelopeSchema });
const doneSchema = v.strictObject({ t: v.literal('done'), refused: v.nullable(v.pipe(v.string(), v.maxLength(500))) });
const openingSchema = v.variant('t', [haveSchema, headSchema]);

type Last = { want: Uint8Array[]; peers: PeerAddrs[] };

/** The calling side of an exchange. Throws BAD_RECORD when what the peer gave is not valid, PEER_REFUSED when it did not take ours. */
export async function syncRecords(stream: Stream, side: RecordsSide, signal: AbortSignal): Promise<void> {
  const messages = open(stream, signal);
  const mine = side.records();
  await messages.send({ t: 'have', v: 1, digests: [...digestsOf(mine).values()], peers: side.peers() });
  const given = await receiveGiven(messages);
  // Theirs are merged even if ours are refused, and ours are sent even if theirs are bad: each side stands for itself.
  const merging = mergeAndLearn(side, given).then(
    () => undefined,
    (error: unknown) => error,
  );
  await give(messages, wanted(mine, given.last.want), { want: [], peers: [] });
  const done = await receive(messages, doneSchema);
  await messages.end();
  const failure = await merging;
  if (failure !== undefined) throw failure;
  if (done.refused !== null)
    throw new DezentError('PEER_REFUSED', `the peer did not take our records: ${done.refused}`);
}

/** Hands one catalog head to a peer; when it returns, the peer keeps it durably. Throws PEER_REFUSED with the peer's reason. */
export async function pushHead(stream: Stream, head: Uint8Array, signal: AbortSignal): Promise<void> {
  const messages = open(stream, signal);
  await messages.send({ t: 'head', v: 1, head });
  const done = await receive(messages, doneSchema);
  await messages.end();
  if (done.refused !== null) throw new DezentError('PEER_REFUSED', `the peer did not take the head: ${done.refused}`);
}

export interface Served {
  kind: 'sync' | 'head';
  /** BAD_RECORD or NEWER_VERSION: what the peer gave was not taken, and it was told so. */
  refused: DezentError | undefined;
}

/** The answering side of both. */
export async function serveRecords(stream: Stream, side: RecordsSide, signal: AbortSignal): Promise<Served> {
  const messages = open(stream, signal);
  const opening = await receive(messages, openingSchema);
  const refused =
    opening.t === 'have' ? await serveSync(messages, opening, side) : await tryTo(() => side.keepHead(opening.head));
  await messages.send({ t: 'done', refused: refused === undefined ? null : refused.message.slice(0, 500) });
  await messages.end();
  return { kind: opening.t === 'have' ? 'sync' : 'head', refused };
}

async function serveSync(
  messages: Messages,
  have: v.InferOutput<typeof haveSchema>,
  side: RecordsSide,
): Promise<DezentError | undefined> {
  const mine = side.records();
  const digests = digestsOf(mine);
  const theirs = new Set(have.digests.map(hex));
  const missing = keepIf(mine, (envelope) => !theirs.has(hex(digests.get(envelope))));
  const held = new Set([...digests.values()].map(hex));
  const want = have.digests.filter((digest) => !held.has(hex(digest)));
  await give(messages, missing, { want, peers: side.peers() });
  const given = await receiveGiven(messages);
  return tryTo(() => mergeAndLearn(side, { ...given, last: { want: [], peers: have.peers } }));
}

interface Given {
  records: GroupRecords;
  last: Last;
}

/** Records first: addresses are kept only for members, and these may be new ones. */
async function mergeAndLearn(side: RecordsSide, given: Given): Promise<void> {
  const { entries, owners, heads } = given.records;
  if (entries.length + owners.length + heads.length > 0) await side.merge(given.records);
  await side.learn(given.last.peers);
}

async function give(messages: Messages, records: GroupRecords, last: Last): Promise<void> {
  let batch = emptyRecords();
  let batchBytes = 0;
  for (const kind of ['entries', 'owners', 'heads'] as const) {
    for (const envelope of records[kind]) {
      if (batchBytes > 0 && batchBytes + envelope.length > GIVE_BYTES) {
        await messages.send({ t: 'give', records: batch, last: null });
        batch = emptyRecords();
        batchBytes = 0;
      }
      batch[kind].push(envelope);
      batchBytes += envelope.length;
    }
  }
  // `want` and `peers` have a message of their own: together with envelopes they could exceed the cap.
  if (batchBytes > 0) await messages.send({ t: 'give', records: batch, last: null });
  await messages.send({ t: 'give', records: emptyRecords(), last });
}

async function receiveGiven(messages: Messages): Promise<Given> {
  const records = emptyRecords();
  let givenBytes = 0;
  for (;;) {
    const message = await receive(messages, giveSchema);
    for (const kind of ['entries', 'owners', 'heads'] as const) {
      // An empty envelope costs memory too.
      for (const envelope of message.records[kind]) givenBytes += ENVELOPE_COST_BYTES + envelope.length;
      records[kind].push(...message.records[kind]);
    }
    if (givenBytes > MAX_GIVEN_BYTES)
      throw new DezentError('BAD_FRAME', `a peer gives more than ${MAX_GIVEN_BYTES} bytes of records`);
    if (message.last !== null) return { records, last: message.last };
  }
}

function wanted(mine: GroupRecords, want: readonly Uint8Array[]): GroupRecords {
  const digests = digestsOf(mine);
  const asked = new Set(want.map(hex));
  return keepIf(mine, (envelope) => asked.has(hex(digests.get(envelope))));
}

function emptyRecords(): GroupRecords {
  return { entries: [], owners: [], heads: [] };
}

function keepIf(records: GroupRecords, keep: (envelope: Uint8Array) => boolean): GroupRecords {
  return {
    entries: records.entries.filter(keep),
    owners: records.owners.filter(keep),
    heads: records.heads.filter(keep),
  };
}

function digestsOf(records: GroupRecords): Map<Uint8Array, Uint8Array> {
  const all = [...records.entries, ...records.owners, ...records.heads];
  return new Map(all.map((envelope) => [envelope, blake3(envelope).subarray(0, DIGEST_BYTES)]));
}

function hex(bytes: Uint8Array | undefined): string {
  return bytes === undefined ? '' : Buffer.from(bytes).toString('hex');
}

function open(stream: Stream, signal: AbortSignal): Messages {
  return openMessages(stream, { maxReceiveBytes: MAX_MESSAGE_BYTES, maxSendBytes: MAX_MESSAGE_BYTES, signal });
}

async function receive<T>(messages: Messages, schema: v.GenericSchema<unknown, T>): Promise<T> {
  const message = await messages.receive();
  if (message === undefined) throw new DezentError('UNREACHABLE', 'the peer ended the exchange of records early');
  const parsed = v.safeParse(schema, message);
  if (!parsed.success)
    throw new DezentError('BAD_FRAME', `a records message is not well formed: ${v.getDotPath(parsed.issues[0]) ?? ''}`);
  return parsed.output;
}

/** The refusal of a record as a value; all else is thrown. */
async function tryTo(work: () => Promise<void>): Promise<DezentError | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    if (isDezentError(error, 'BAD_RECORD') || isDezentError(error, 'NEWER_VERSION')) return error;
    throw error;
  }
}
