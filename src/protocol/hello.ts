// hello: the only protocol an unlisted peer may speak and the only name without a group id. One request, one answer, then the stream ends.
// The caller shows signed records and perhaps a claim (a guest's right); the answerer says which group this is and whether the caller is in.
// Goals: a peer that the answerer has not heard of gets in with records that list it; a stranger learns the group id and nothing else.
// Non-goals: exchanging all there is (records.ts does that afterwards), hiding that this is a dezent node.
import type { Stream } from '@libp2p/interface';
import * as v from 'valibot';
import { DezentError, isDezentError } from '../errors.ts';
import type { GroupRecords } from './group-records.ts';
import { openMessages } from './message-stream.ts';
import { peersSchema, recordsSchema, type PeerAddrs } from './records.ts';

export const HELLO_PROTOCOL = '/dezent/hello/1.0.0';
/** Strangers send this much at most: some hundred member-list entries and owner records. */
const MAX_HELLO_BYTES: number = 256 * 1024;
/** An answer may carry all records of a large group; only somebody who dialled us on purpose gets to send one. */
const MAX_ANSWER_BYTES: number = 4 * 1024 * 1024;
/** From the opened stream to the end of the answer; a peer that is not admitted by then is cut off. */
export const HELLO_TIMEOUT_MS = 5_000;
const MAX_CLAIM_BYTES: number = 64 * 1024;
const MAX_REASON_LENGTH = 500;
/** What the CBOR around the envelopes may take. */
const FRAMING_BYTES = 16 * 1024;
/** 512 peers with 16 addresses of 60 bytes. */
const MAX_PEERS_BYTES: number = 1024 * 1024;

export interface HelloRequest {
  /** Absent: the caller does not know yet (an invite names it, a recovering device does not). */
  group: Uint8Array | undefined;
  /** Heads are left out: they say nothing about who may come in. */
  records: GroupRecords;
  /** A signed claim (invite.ts), encoded. */
  claim: Uint8Array | undefined;
}

export interface HelloAnswer {
  group: Uint8Array;
  /** True: every other protocol is open to the caller from now on. */
  admitted: boolean;
  /** Why not, in words; empty when admitted. */
  reason: string;
  /** Empty for a stranger. A guest with the right to recover gets records without being admitted. */
  records: GroupRecords;
  /** Where members were last met; empty for a stranger. */
  peers: PeerAddrs[];
}

export const NO_RECORDS: GroupRecords = { entries: [], owners: [], heads: [] };
const groupSchema = v.pipe(v.instance(Uint8Array), v.length(32));
const requestSchema = v.strictObject({
  v: v.literal(1),
  group: v.nullable(groupSchema),
  records: recordsSchema,
  claim: v.nullable(v.pipe(v.instance(Uint8Array), v.maxLength(MAX_CLAIM_BYTES))),
});
const answerSchema = v.strictObject({
  v: v.literal(1),
  group: groupSchema,
  admitted: v.boolean(),
  reason: v.pipe(v.string(), v.maxLength(MAX_REASON_LENGTH)),
  records: recordsSchema,
  peers: peersSchema,
});

/** The calling side. Throws BAD_FRAME for an answer that is none, UNREACHABLE when the stream breaks or time runs out. */
export async function sayHello(stream: Stream, request: HelloRequest, signal: AbortSignal): Promise<HelloAnswer> {
  const messages = openMessages(stream, { maxReceiveBytes: MAX_ANSWER_BYTES, maxSendBytes: MAX_HELLO_BYTES, signal });
  const records = fit({ ...request.records, heads: [] }, MAX_HELLO_BYTES - (request.claim?.length ?? 0));
  await messages.send({ v: 1, group: request.group ?? null, records, claim: request.claim ?? null });
  const answer = v.safeParse(answerSchema, await messages.receive());
  if (!answer.success) {
    const error = new DezentError('BAD_FRAME', 'the answer to hello is not well formed');
    stream.abort(error);
    throw error;
  }
  await messages.end();
  const { group, admitted, reason, records: given, peers } = answer.output;
  return { group, admitted, reason, records: given, peers };
}

/**
 * The answering side: reads one request, asks `decide`, sends its answer. Resolves with the answer once it has left.
 * A refusal is an answer with `admitted: false`; `decide` throws only what is no fault of the caller.
 */
export async function answerHello(
  stream: Stream,
  decide: (request: HelloRequest) => Promise<HelloAnswer>,
  signal: AbortSignal,
): Promise<HelloAnswer> {
  const messages = openMessages(stream, { maxReceiveBytes: MAX_HELLO_BYTES, maxSendBytes: MAX_ANSWER_BYTES, signal });
  const parsed = v.safeParse(requestSchema, await messages.receive());
  if (!parsed.success) {
    const error = new DezentError('BAD_FRAME', 'a hello is not well formed');
    stream.abort(error);
    throw error;
  }
  const { group, records: shown, claim } = parsed.output;
  const answer = await decide({ group: group ?? undefined, records: shown, claim: claim ?? undefined });
  const records = fit(answer.records, MAX_ANSWER_BYTES - MAX_PEERS_BYTES);
  const reason = answer.reason.slice(0, MAX_REASON_LENGTH);
  await messages.send({ v: 1, group: answer.group, admitted: answer.admitted, reason, records, peers: answer.peers });
  await messages.end();
  return answer;
}

/** The answer to a stranger: which group, and why not. */
export function refusal(group: Uint8Array, reason: string): HelloAnswer {
  return { group, admitted: false, reason, records: NO_RECORDS, peers: [] };
}

/** The words of an error that may be told to a stranger; anything unexpected is told as one word and belongs in the log. */
export function tellable(error: unknown): string {
  const plain =
    isDezentError(error, 'INVITE') || isDezentError(error, 'NOT_ALLOWED') || isDezentError(error, 'BAD_RECORD');
  return plain ? error.message : 'refused';
}

/** As much as fits: owner records, then the newest entries, then heads. What is cut off comes with the records protocol. */
function fit(records: GroupRecords, maxBytes: number): GroupRecords {
  let left = maxBytes - FRAMING_BYTES;
  const take = (envelopes: Uint8Array[]): Uint8Array[] =>
    envelopes.filter((envelope) => {
      // 16: the CBOR head of a byte string is at most 9 bytes.
      left -= envelope.length + 16;
      return left >= 0;
    });
  const owners = take(records.owners);
  const entries = take(records.entries.toReversed()).toReversed();
  return { entries, owners, heads: take(records.heads) };
}
