// The frames of the push session (fs-session.ts): numbers, limits and bodies, as both of its sides use them.
import * as v from 'valibot';
import { DezentError } from '../errors.ts';
import { BLOCK_ID_BYTES, MAX_BLOCK_BYTES } from '../store/block.ts';
import type { BlockId } from '../store/block.ts';
import { joinIds, splitIds } from '../store/block-ids.ts';
import type { Call, Frame, FrameTable } from './channel.ts';
import { decodeBody, encodeBody } from './frame.ts';
import { RECEIPT_MAX_IDS, RECEIPT_NONCE_BYTES } from './receipt.ts';
import { decodeEnvelope, encodeEnvelope, idBytes, idText, PUBLIC_KEY_BYTES } from './signature.ts';
import type { Envelope } from './signature.ts';

export const INIT = 16;
export const INIT_RESPONSE = 17;
export const DATA = 18;
export const CHECK_HASH = 19;
export const CHECK_HASH_RESPONSE = 20;
export const FINISH = 21;
export const FINISHED = 22;

export const FS_FRAMES: FrameTable = {
  [INIT]: { name: 'init', maxBytes: 192 * 1024 },
  [INIT_RESPONSE]: { name: 'initResponse', maxBytes: 1024 },
  [DATA]: { name: 'data', maxBytes: BLOCK_ID_BYTES + MAX_BLOCK_BYTES, bulk: true },
  [CHECK_HASH]: { name: 'checkHash', maxBytes: 32 },
  [CHECK_HASH_RESPONSE]: { name: 'checkHashResponse', maxBytes: 4096 },
  [FINISH]: { name: 'finish', maxBytes: 8192 },
  [FINISHED]: { name: 'finished', maxBytes: 1 },
};

/** Other holders named in a finish: more copies than anybody keeps. */
const MAX_HOLDERS = 64;
const MAX_REFUSAL_CHARS = 200;

export interface PushedBlock {
  id: BlockId;
  /** Bytes. */
  length: number;
}

export interface Init {
  /** Owner id text. */
  owner: string;
  /** Peer id. */
  device: string;
  blocks: readonly PushedBlock[];
}

export interface Refusal {
  /** One plain sentence. */
  refused: string;
}

const peerId: v.GenericSchema<unknown, string> = v.pipe(v.string(), v.maxLength(128));
const bytes: v.GenericSchema<unknown, Uint8Array> = v.instance(Uint8Array);
const bytesOf = (length: number): v.GenericSchema<unknown, Uint8Array> =>
  v.pipe(v.instance(Uint8Array), v.length(length));
const refusal = v.strictObject({ refused: v.pipe(v.string(), v.maxLength(MAX_REFUSAL_CHARS)) });
const initSchema = v.strictObject({
  v: v.literal(1),
  owner: bytesOf(PUBLIC_KEY_BYTES),
  device: peerId,
  ids: bytes,
  lengths: v.pipe(
    v.array(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_BLOCK_BYTES))),
    v.minLength(1),
    v.maxLength(RECEIPT_MAX_IDS),
  ),
});
const initResponseSchema = v.union([v.strictObject({ missing: bytes }), refusal]);
const checkHashSchema = v.strictObject({ xxh3: bytesOf(8) });
const checkHashResponseSchema = v.union([v.strictObject({ receipt: bytes }), refusal]);
const finishSchema = v.strictObject({
  nonce: bytesOf(RECEIPT_NONCE_BYTES),
  holders: v.pipe(v.array(peerId), v.maxLength(MAX_HOLDERS)),
});

export function encodeInit({ owner, device, blocks }: Init): Uint8Array {
  const ids = joinIds(blocks.map(({ id }) => id));
  return encodeBody({ v: 1, owner: idBytes(owner), device, ids, lengths: blocks.map(({ length }) => length) });
}

export function decodeInit(body: Uint8Array): Init {
  const { owner, device, ids, lengths } = decodeBody('init', initSchema, body);
  const all = splitIds(ids);
  if (all.length !== lengths.length) throw new DezentError('BAD_FRAME', 'init has not as many ids as lengths');
  const blocks = all.map((id, index) => ({ id, length: lengths[index] ?? 0 }));
  if (new Set(blocks.map(({ id }) => id)).size !== blocks.length) {
    throw new DezentError('BAD_FRAME', 'init names a block twice');
  }
  return { owner: idText(owner), device, blocks };
}

/** `missing` in the order of `blocks`, one bit each. */
export function encodeMissing(blocks: readonly PushedBlock[], missing: ReadonlySet<BlockId>): Uint8Array {
  const bits = new Uint8Array(Math.ceil(blocks.length / 8));
  for (const [index, { id }] of blocks.entries()) {
    if (missing.has(id)) bits[index >> 3] = (bits[index >> 3] ?? 0) | (1 << (index & 7));
  }
  return encodeBody({ missing: bits });
}

export function decodeInitResponse(
  blocks: readonly PushedBlock[],
  body: Uint8Array,
): { missing: PushedBlock[] } | Refusal {
  const response = decodeBody('initResponse', initResponseSchema, body);
  if ('refused' in response) return response;
  const bits = response.missing;
  if (bits.length !== Math.ceil(blocks.length / 8)) {
    throw new DezentError('BAD_FRAME', 'the list of missing blocks has another length');
  }
  return { missing: blocks.filter((_, index) => ((bits[index >> 3] ?? 0) & (1 << (index & 7))) !== 0) };
}

export function encodeCheckHash(xxh3: Uint8Array): Uint8Array {
  return encodeBody({ xxh3 });
}

export function decodeCheckHash(body: Uint8Array): Uint8Array {
  return decodeBody('checkHash', checkHashSchema, body).xxh3;
}

export function encodeReceiptResponse(receipt: Envelope): Uint8Array {
  return encodeBody({ receipt: encodeEnvelope(receipt) });
}

export function decodeCheckHashResponse(body: Uint8Array): { receipt: Envelope } | Refusal {
  const response = decodeBody('checkHashResponse', checkHashResponseSchema, body);
  return 'refused' in response ? response : { receipt: decodeEnvelope(response.receipt) };
}

export function encodeRefusal({ refused }: Refusal): Uint8Array {
  return encodeBody({ refused: refused.slice(0, MAX_REFUSAL_CHARS) });
}

/** Names at most 64 holders. */
export function encodeFinish(nonce: Uint8Array, holders: readonly string[]): Uint8Array {
  return encodeBody({ nonce, holders: holders.slice(0, MAX_HOLDERS) });
}

export function decodeFinish(body: Uint8Array): { nonce: Uint8Array; holders: string[] } {
  return decodeBody('finish', finishSchema, body);
}

/** The body of the next frame, which must be of this type, else BAD_FRAME. */
export async function answerTo(call: Call, type: number): Promise<Uint8Array> {
  const frame = await call.next();
  if (frame?.type !== type) {
    throw new DezentError('BAD_FRAME', `expected ${FS_FRAMES[type]?.name}, got ${fsNameOf(frame)}`);
  }
  return frame.body;
}

export function fsNameOf(frame: Frame | undefined): string {
  return frame === undefined ? 'the end' : (FS_FRAMES[frame.type]?.name ?? String(frame.type));
}
