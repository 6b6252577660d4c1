// audit: a holder proves that it can give the bytes of named blocks, by a keyed hash of ranges that it could not know before.
//
// Goals: many blocks for few bytes on the wire; a fresh nonce for each call; absent, wrong and "could not tell" are three different answers.
// Non-goals: showing where the bytes are (a holder may fetch them meanwhile); sampling whole blocks (exchange.ts does that).
//
// | type | frame  | body                                                             | limit   |
// |------|--------|------------------------------------------------------------------|---------|
// | 16   | prove  | {nonce 32, items: [[id 36, [offset, length, …]]]}, ≤ 256 items   | 64 KiB  |
// | 17   | proofs | {proofs 16·n, states n: 0 proved, 1 absent, 2 could not tell}    | 8 KiB   |
//
// proof = first 16 bytes of keyed blake3(key = nonce, id ‖ for each range: offset:u32be ‖ length:u32be ‖ bytes). Ranges of one item: 1 … 4,
// together at most the largest block.
import { randomBytes, randomInt } from 'node:crypto';
import { Blake3Hasher } from '@napi-rs/blake-hash';
import type { Stream } from '@libp2p/interface';
import pLimit from 'p-limit';
import * as v from 'valibot';
import { DezentError } from '../errors.ts';
import { BLOCK_ID_BYTES, blockIdFromBytes, blockIdToBytes, MAX_BLOCK_BYTES } from '../store/block.ts';
import type { BlockId } from '../store/block.ts';
import { openChannel } from './channel.ts';
import type { Call, Channel, ChannelSettings, FrameTable } from './channel.ts';
import { decodeBody, encodeBody } from './frame.ts';

const PROVE = 16;
const PROOFS = 17;
const NONCE_BYTES = 32;
/** 2¹²⁸ guesses are out of reach, and a wrong guess is remembered. */
const PROOF_BYTES = 16;
const MAX_ITEMS = 256;
const MAX_RANGES = 4;
/** Length of one range of a sample: a disk's page. */
const RANGE_BYTES = 4096;

export const AUDIT_FRAMES: FrameTable = {
  [PROVE]: { name: 'prove', maxBytes: 64 * 1024 },
  [PROOFS]: { name: 'proofs', maxBytes: 8 * 1024 },
};

interface Range {
  offset: number;
  length: number;
}

/** What the holder's answer says of a block. `unknown`: it could not tell, or this side has no bytes to compare with. */
export type Verdict = 'proved' | 'wrong' | 'absent' | 'unknown';

const STATES: readonly Verdict[] = ['proved', 'absent', 'unknown'];

const proofsSchema = v.strictObject({ proofs: v.instance(Uint8Array), states: v.instance(Uint8Array) });

function proofOf(nonce: Uint8Array, id: Uint8Array, bytes: Uint8Array, ranges: readonly Range[]): Uint8Array {
  const hasher = Blake3Hasher.newKeyed(Buffer.from(nonce));
  hasher.update(id);
  const head = Buffer.alloc(8);
  for (const { offset, length } of ranges) {
    head.writeUInt32BE(offset, 0);
    head.writeUInt32BE(length, 4);
    hasher.update(head);
    hasher.update(bytes.subarray(offset, offset + length));
  }
  return hasher.digestBuffer().subarray(0, PROOF_BYTES);
}

// ── caller ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface Audit {
  ids: readonly BlockId[];
  /** The bytes to compare with; undefined: not here (fetch the whole block instead), and the verdict is `unknown`. */
  read(id: BlockId): Promise<Uint8Array | undefined>;
  /** Every byte of each block instead of up to four pages. */
  whole?: boolean;
  signal?: AbortSignal;
}

/** Asks the holder for proofs of any number of blocks. Throws UNREACHABLE, PEER_REFUSED, BAD_FRAME and what `read` throws. */
export async function proveBlocks(channel: Channel, audit: Audit): Promise<Map<BlockId, Verdict>> {
  const verdicts = new Map<BlockId, Verdict>();
  for (let at = 0; at < audit.ids.length; at += MAX_ITEMS) {
    await proveSome(channel, audit, audit.ids.slice(at, at + MAX_ITEMS), verdicts);
  }
  return verdicts;
}

async function proveSome(
  channel: Channel,
  audit: Audit,
  ids: readonly BlockId[],
  verdicts: Map<BlockId, Verdict>,
): Promise<void> {
  const nonce = randomBytes(NONCE_BYTES);
  const items: { id: BlockId; ranges: Range[]; proof: Uint8Array }[] = [];
  for (const id of ids) {
    const bytes = await audit.read(id);
    const ranges =
      bytes === undefined
        ? []
        : audit.whole === true
          ? [{ offset: 0, length: bytes.length }]
          : someRanges(bytes.length);
    if (bytes === undefined) verdicts.set(id, 'unknown');
    else items.push({ id, ranges, proof: proofOf(nonce, blockIdToBytes(id), bytes, ranges) });
  }
  if (items.length === 0) return;
  const body = encodeBody({
    nonce,
    items: items.map(({ id, ranges }) => [
      blockIdToBytes(id),
      ranges.flatMap(({ offset, length }) => [offset, length]),
    ]),
  });
  const call = channel.open(audit.signal === undefined ? {} : { signal: audit.signal });
  try {
    await call.send(PROVE, body, { last: true });
    const frame = await call.next();
    if (frame?.type !== PROOFS) throw new DezentError('BAD_FRAME', 'a prove was not answered by proofs');
    const { proofs, states } = decodeBody('proofs', proofsSchema, frame.body);
    if (states.length !== items.length || proofs.length !== items.length * PROOF_BYTES) {
      throw new DezentError('BAD_FRAME', 'the proofs are of another number');
    }
    for (const [index, { id, proof }] of items.entries()) {
      const given = proofs.subarray(index * PROOF_BYTES, (index + 1) * PROOF_BYTES);
      const state = STATES[states[index] ?? -1];
      if (state === undefined) throw new DezentError('BAD_FRAME', 'a proof is in an unknown state');
      verdicts.set(id, state === 'proved' && Buffer.compare(given, proof) !== 0 ? 'wrong' : state);
    }
  } finally {
    call.cancel(new DezentError('CANCELLED', 'the audit has ended'));
  }
}

/** Up to four random pages; a small block as a whole. */
function someRanges(length: number): Range[] {
  if (length <= MAX_RANGES * RANGE_BYTES) return [{ offset: 0, length }];
  return Array.from({ length: MAX_RANGES }, () => ({
    offset: randomInt(length - RANGE_BYTES + 1),
    length: RANGE_BYTES,
  }));
}

// ── server ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const place = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(MAX_BLOCK_BYTES));
const proveSchema = v.strictObject({
  nonce: v.pipe(v.instance(Uint8Array), v.length(NONCE_BYTES)),
  items: v.pipe(
    v.array(
      v.tuple([
        v.pipe(v.instance(Uint8Array), v.length(BLOCK_ID_BYTES)),
        v.pipe(v.array(place), v.minLength(2), v.maxLength(2 * MAX_RANGES)),
      ]),
    ),
    v.minLength(1),
    v.maxLength(MAX_ITEMS),
  ),
});

export interface AuditServer {
  /** undefined: surely not here; throws when it could not tell. */
  get(id: BlockId): Promise<Uint8Array | undefined>;
  onFault?: (error: DezentError) => void;
}

export function serveAudit(stream: Stream, needs: AuditServer, settings: Partial<ChannelSettings> = {}): Channel {
  const oneAtATime = pLimit(1);
  return openChannel(stream, {
    frames: AUDIT_FRAMES,
    settings,
    ...(needs.onFault && { onFault: needs.onFault }),
    async onCall(call) {
      const frame = await call.next();
      if (frame?.type !== PROVE) throw new DezentError('BAD_FRAME', 'a call of audit begins with prove');
      await oneAtATime(() => answerProve(call, frame.body, needs));
    },
  });
}

async function answerProve(call: Call, body: Uint8Array, needs: AuditServer): Promise<void> {
  const { nonce, items } = decodeBody('prove', proveSchema, body);
  const proofs = new Uint8Array(items.length * PROOF_BYTES);
  const states = new Uint8Array(items.length);
  for (const [index, [id, places]] of items.entries()) {
    call.signal.throwIfAborted();
    const { proof, state } = await proveOne(nonce, id, { ranges: rangesOf(places), needs });
    proofs.set(proof, index * PROOF_BYTES);
    states[index] = STATES.indexOf(state);
  }
  await call.send(PROOFS, encodeBody({ proofs, states }), { last: true });
}

async function proveOne(
  nonce: Uint8Array,
  idBytes: Uint8Array,
  { ranges, needs }: { ranges: Range[]; needs: AuditServer },
): Promise<{ proof: Uint8Array; state: Verdict }> {
  const none = new Uint8Array(PROOF_BYTES);
  try {
    const bytes = await needs.get(blockIdFromBytes(idBytes));
    if (bytes === undefined) return { proof: none, state: 'absent' };
    return { proof: proofOf(nonce, idBytes, bytes, ranges), state: 'proved' };
  } catch (cause) {
    needs.onFault?.(new DezentError('IO', 'a block could not be proved', { cause }));
    return { proof: none, state: 'unknown' };
  }
}

function rangesOf(places: readonly number[]): Range[] {
  const ranges: Range[] = [];
  let total = 0;
  for (let at = 0; at < places.length; at += 2) {
    const [offset, length] = [places[at], places[at + 1]];
    if (offset === undefined || length === undefined) throw new DezentError('BAD_FRAME', 'a range has no length');
    ranges.push({ offset, length });
    total += length;
  }
  if (total > MAX_BLOCK_BYTES) throw new DezentError('BAD_FRAME', 'the ranges of a block are longer than a block');
  return ranges;
}
