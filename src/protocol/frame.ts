// Frames: `type:u8 ‖ requestId:u32be ‖ length:u32be ‖ body`, what every channel is made of. Pure: bytes in, frames out, and back.
// A length is judged by the table of its protocol before one byte of the body is kept, so a peer decides neither sizes nor types.
import { decode, encode } from '@ipld/dag-cbor';
import * as v from 'valibot';
import { DezentError } from '../errors.ts';
import { takeFresh } from './body-pool.ts';

export const FRAME_HEADER_BYTES = 9;

/** High bit of the type: the sender's last frame of this call. Types are 1 … 127. */
const LAST_FLAG = 0x80;
const TYPE_MASK = 0x7f;

/** What a protocol says about one of its frame types. */
export interface FrameRule {
  name: string;
  /** Longest body. The shortest is 1 byte: a run of zero bytes is never a frame. */
  maxBytes: number;
  /** Counts against the byte credit (channel.ts). */
  bulk?: true;
}

/** The frame types of one protocol, by number. */
export type FrameTable = Readonly<Record<number, FrameRule>>;

export interface Frame {
  type: number;
  /** Belongs to the receiver. */
  body: Uint8Array;
  last: boolean;
}

/** Header and body parts of one frame; a body in parts is not copied. */
export function encodeFrame(type: number, requestId: number, body: readonly Uint8Array[], last: boolean): Uint8Array[] {
  const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
  header[0] = last ? type | LAST_FLAG : type;
  header.writeUInt32BE(requestId, 1);
  header.writeUInt32BE(bytesOf(body), 5);
  return [header, ...body];
}

export function bytesOf(parts: readonly Uint8Array[]): number {
  let bytes = 0;
  for (const part of parts) bytes += part.length;
  return bytes;
}

export interface FrameReader {
  /** Takes the next bytes, however they are cut. Throws BAD_FRAME for a type or length that the table does not allow. */
  push(chunk: Uint8Array): void;
  /** True while a frame has begun and not ended. */
  halfway(): boolean;
}

/** Cuts bytes into frames. Each body is copied once, into memory that `take` gives for it. */
export function createFrameReader(
  table: FrameTable,
  onFrame: (requestId: number, frame: Frame, rule: FrameRule) => void,
  take: (length: number) => Uint8Array = takeFresh,
): FrameReader {
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  let headerBytes = 0;
  let body: Uint8Array | undefined;
  let bodyBytes = 0;

  const begin = (): Uint8Array => {
    const type = (header[0] ?? 0) & TYPE_MASK;
    const length = header.readUInt32BE(5);
    const rule = table[type];
    if (rule === undefined) throw new DezentError('BAD_FRAME', `a frame has the unknown type ${type}`);
    if (length === 0 || length > rule.maxBytes) {
      throw new DezentError(
        'BAD_FRAME',
        `a ${rule.name} frame announces ${length} bytes; 1 to ${rule.maxBytes} are allowed`,
      );
    }
    return take(length);
  };
  const finish = (whole: Uint8Array) => {
    const type = (header[0] ?? 0) & TYPE_MASK;
    headerBytes = 0;
    bodyBytes = 0;
    body = undefined;
    const rule = table[type];
    if (rule === undefined) throw new DezentError('INTERNAL', 'a frame began without a rule');
    onFrame(header.readUInt32BE(1), { type, body: whole, last: ((header[0] ?? 0) & LAST_FLAG) !== 0 }, rule);
  };

  return {
    push(chunk) {
      let at = 0;
      while (at < chunk.length) {
        if (body === undefined) {
          const taken = Math.min(FRAME_HEADER_BYTES - headerBytes, chunk.length - at);
          header.set(chunk.subarray(at, at + taken), headerBytes);
          headerBytes += taken;
          at += taken;
          if (headerBytes === FRAME_HEADER_BYTES) body = begin();
        } else {
          const taken = Math.min(body.length - bodyBytes, chunk.length - at);
          body.set(taken === chunk.length ? chunk : chunk.subarray(at, at + taken), bodyBytes);
          bodyBytes += taken;
          at += taken;
          if (bodyBytes === body.length) finish(body);
        }
      }
    },
    halfway: () => headerBytes > 0,
  };
}

/** The value of a control body, checked; throws BAD_FRAME. `name` says which frame it was. */
export function decodeBody<T>(name: string, schema: v.GenericSchema<unknown, T>, body: Uint8Array): T {
  let value: unknown;
  try {
    value = decode(body);
  } catch (cause) {
    throw new DezentError('BAD_FRAME', `a ${name} body is not DAG-CBOR`, { cause });
  }
  const result = v.safeParse(schema, value);
  if (!result.success) {
    throw new DezentError('BAD_FRAME', `a ${name} body is not valid: ${result.issues[0].message}`);
  }
  return result.output;
}

/** A control body. */
export function encodeBody(value: unknown): Uint8Array {
  return encode(value);
}
