// The head of a device's catalog log: which sealed segments make it up, and how far the device has seen the logs of the others.
// One log per device incarnation; a head replaces the one with a lower seq, and no two heads have the same seq.
//
// Payload, DAG-CBOR map, version 1. Signature kind "head"; the signer is the device.
//   field        type   limits
//   v            int    1
//   device       text   peer id; must be the signer
//   incarnation  bytes  8, random, new when a device finds itself restored from an image
//   seq          int    1 … 2⁴⁸, one more for each head
//   seen         list   ≤ 1,024 × [peer id, incarnation 8 bytes, seq], ascending by peer id, then incarnation
//   checkpoint   list   absent, or [block id 36 bytes, seq]: a sealed block that lists the segments up to seq
//   segments     list   ≤ 16,384 × [block id 36 bytes, seq], ascending by seq, each once
import * as v from 'valibot';
import { DezentError } from '../errors.ts';
import { blockIdFromBytes, blockIdToBytes, type BlockId } from '../store/block.ts';
import { INCARNATION_BYTES } from '../store/catalog.ts';
import { blockIdBytes, bytesOf, count, decodeRecord, encodeRecord, seq, type RecordFormat } from './record-codec.ts';
import {
  MAX_PAYLOAD_BYTES,
  peerIdOf,
  peerIdSchema,
  sign,
  verify,
  type Envelope,
  type SigningKey,
} from './signature.ts';

/** 46 bytes each: the list stays under 740 KiB; older ones go into the checkpoint. */
export const HEAD_MAX_SEGMENTS = 16_384;
/** 64 devices with 16 incarnations each. */
export const HEAD_MAX_SEEN = 1024;

export interface SegmentRef {
  id: BlockId;
  seq: number;
}

export interface Seen {
  /** Peer id. */
  device: string;
  incarnation: Uint8Array;
  /** The highest segment seq of that log that this device has merged. */
  seq: number;
}

export interface Head {
  /** Peer id. */
  device: string;
  /** 8 bytes. */
  incarnation: Uint8Array;
  seq: number;
  seen: Seen[];
  checkpoint?: SegmentRef;
  /** Ascending by seq. */
  segments: SegmentRef[];
}

const segmentSchema = v.strictTuple([blockIdBytes, count]);
const headSchema = v.strictObject({
  v: v.literal(1),
  device: peerIdSchema,
  incarnation: bytesOf(INCARNATION_BYTES),
  seq,
  seen: v.pipe(v.array(v.strictTuple([peerIdSchema, bytesOf(INCARNATION_BYTES), count])), v.maxLength(HEAD_MAX_SEEN)),
  checkpoint: v.exactOptional(segmentSchema),
  segments: v.pipe(v.array(segmentSchema), v.maxLength(HEAD_MAX_SEGMENTS)),
});
const headFormat: RecordFormat<v.InferOutput<typeof headSchema>> = {
  name: 'head',
  version: 1,
  maxBytes: MAX_PAYLOAD_BYTES,
  schema: headSchema,
};

function toTuple({ id, seq }: SegmentRef): [Uint8Array, number] {
  return [blockIdToBytes(id), seq];
}

function fromTuple([id, seq]: [Uint8Array, number]): SegmentRef {
  return { id: blockIdFromBytes(id), seq };
}

function seenBytes({ device, incarnation }: Seen): Buffer {
  return Buffer.concat([Buffer.from(device), incarnation]);
}

/** Throws BAD_RECORD unless segments and `seen` are in their one order, each once. */
function checkOrder(head: Head): Head {
  const { segments, seen, checkpoint } = head;
  const first = segments[0];
  const inOrder =
    segments.every(({ seq }, index) => index === 0 || seq > (segments[index - 1]?.seq ?? 0)) &&
    (checkpoint === undefined || first === undefined || first.seq > checkpoint.seq) &&
    seen.map(seenBytes).every((key, index, keys) => index === 0 || Buffer.compare(key, keys[index - 1] ?? key) > 0);
  if (!inOrder)
    throw new DezentError('BAD_RECORD', `the head of ${head.device} lists segments or devices twice or out of order`);
  return head;
}

/** Signed with the key of `head.device`; `seen` is put in order here. Throws BAD_RECORD when it breaks a limit. */
export function signHead(groupId: Uint8Array, head: Head, key: SigningKey): Envelope {
  const seen = [...head.seen].sort((a, b) => Buffer.compare(seenBytes(a), seenBytes(b)));
  const { device, incarnation, seq, checkpoint, segments } = checkOrder({ ...head, seen });
  const payload = encodeRecord(headFormat, {
    v: 1,
    device,
    incarnation,
    seq,
    seen: seen.map((one) => [one.device, one.incarnation, one.seq]),
    ...(checkpoint && { checkpoint: toTuple(checkpoint) }),
    segments: segments.map(toTuple),
  });
  const envelope = sign('head', groupId, payload, key);
  if (peerIdOf(envelope.signer) !== device)
    throw new DezentError('BAD_RECORD', `a head of ${device} is signed by another key`);
  return envelope;
}

/** The head in the envelope; throws BAD_RECORD unless its device signed it for this group. */
export function verifyHead(groupId: Uint8Array, envelope: Envelope): Head {
  verify('head', groupId, envelope);
  const encoded = decodeRecord(headFormat, envelope.payload);
  if (encoded.device !== peerIdOf(envelope.signer))
    throw new DezentError('BAD_RECORD', 'a head is signed by another key');
  return checkOrder({
    device: encoded.device,
    incarnation: encoded.incarnation,
    seq: encoded.seq,
    seen: encoded.seen.map(([device, incarnation, seq]) => ({ device, incarnation, seq })),
    ...(encoded.checkpoint && { checkpoint: fromTuple(encoded.checkpoint) }),
    segments: encoded.segments.map(fromTuple),
  });
}
