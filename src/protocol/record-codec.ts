// The one way from untrusted bytes to a checked record: size, nesting and item count are capped before anything is built, then strict
// DAG-CBOR, its one canonical spelling, the version, and a schema. So equal records are equal bytes and a hash names one record.
import { decode, encode } from '@ipld/dag-cbor';
import * as v from 'valibot';
import { DezentError } from '../errors.ts';
import { BLOCK_ID_BYTES, blockIdFromDigest, blockIdToBytes } from '../store/block.ts';

/** No record of ours nests deeper than 5; deep nesting would otherwise exhaust the decoder's stack. */
const MAX_DEPTH = 8;
/** Twice what the largest record has: a head with 16,384 segments of 3 items each and 1,024 `seen` of 4. */
const MAX_ITEMS = 131_072;
const ARRAY = 4;
const MAP = 5;
const TAG = 6;
const DIGEST_BYTES = 32;

export interface RecordFormat<T> {
  /** For messages: "owner record". */
  name: string;
  /** The version this code writes; a higher one is NEWER_VERSION. */
  version: number;
  maxBytes: number;
  schema: v.GenericSchema<unknown, T>;
}

/** Length of the head of the CBOR item at `at`, its major type and argument. */
function readItem(bytes: Uint8Array, at: number): { major: number; argument: number; next: number } {
  const first = bytes[at] ?? 0;
  const low = first & 0x1f;
  const width = low < 24 ? 0 : 2 ** (low - 24);
  if (low > 27 || at + 1 + width > bytes.length) throw new RangeError('a cut or indefinite item');
  let argument = width === 0 ? low : 0;
  for (let index = 0; index < width; index++) argument = argument * 256 + (bytes[at + 1 + index] ?? 0);
  return { major: first >> 5, argument, next: at + 1 + width };
}

/** Throws RangeError when the items nest too deep, are too many, or are cut short. Allocates nothing that the input chooses. */
function checkShape(bytes: Uint8Array): void {
  const open: number[] = [1];
  let at = 0;
  for (let items = 0; open.length > 0; items++) {
    if (items > MAX_ITEMS || open.length > MAX_DEPTH + 1) throw new RangeError('too many items or too deep');
    open.push((open.pop() ?? 0) - 1);
    const { major, argument, next } = readItem(bytes, at);
    at = next;
    if (major === 2 || major === 3) at += argument;
    if (at > bytes.length) throw new RangeError('an item reaches beyond the end');
    if (major === ARRAY || major === MAP || major === TAG)
      open.push(major === ARRAY ? argument : major === MAP ? 2 * argument : 1);
    while (open.at(-1) === 0) open.pop();
  }
  if (at !== bytes.length) throw new RangeError('bytes after the end');
}

function decodeCanonical(bytes: Uint8Array): unknown {
  checkShape(bytes);
  const value: unknown = decode(bytes);
  if (Buffer.compare(encode(value), bytes) !== 0) throw new RangeError('not the canonical encoding');
  return value;
}

/** The record in these bytes; throws BAD_RECORD, or NEWER_VERSION when a later dezent wrote it. */
export function decodeRecord<T>(format: RecordFormat<T>, bytes: Uint8Array): T {
  if (bytes.length > format.maxBytes)
    throw new DezentError('BAD_RECORD', `${format.name}: ${bytes.length} bytes, more than ${format.maxBytes}`);
  let value: unknown;
  try {
    value = decodeCanonical(bytes);
  } catch (error) {
    throw new DezentError('BAD_RECORD', `${format.name}: not canonical DAG-CBOR`, { cause: error });
  }
  const version = typeof value === 'object' && value !== null && 'v' in value ? value.v : undefined;
  if (typeof version === 'number' && version > format.version)
    throw new DezentError('NEWER_VERSION', `${format.name}: version ${version}, this program knows ${format.version}`);
  const result = v.safeParse(format.schema, value);
  if (!result.success) {
    const [issue] = result.issues;
    throw new DezentError(
      'BAD_RECORD',
      `${format.name}: ${v.getDotPath(issue) ?? 'all'}: ${issue.message.slice(0, 200)}`,
    );
  }
  return result.output;
}

/** The canonical bytes; throws BAD_RECORD when the record breaks its own limits, so that nothing is written that others refuse. */
export function encodeRecord<T>(format: RecordFormat<T>, record: T): Uint8Array {
  // A copy: the encoder may give a Buffer, which compares and slices unlike a Uint8Array.
  const bytes = new Uint8Array(encode(record));
  decodeRecord(format, bytes);
  return bytes;
}

/** A field of exactly this many bytes. */
export function bytesOf(length: number): v.GenericSchema<Uint8Array> {
  return v.pipe(v.instance(Uint8Array), v.length(length));
}

/** A block id as it is encoded. */
export const blockIdBytes: v.GenericSchema<Uint8Array> = v.pipe(
  bytesOf(BLOCK_ID_BYTES),
  v.check(isBlockId, 'not a block id'),
);

function isBlockId(bytes: Uint8Array): boolean {
  return Buffer.compare(blockIdToBytes(blockIdFromDigest(bytes.subarray(-DIGEST_BYTES))), bytes) === 0;
}

/** A counter or time in ms: 0 … 2⁵³ − 1. */
export const count: v.GenericSchema<number> = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

/** 2⁴⁸ changes is beyond any use; above it a forger could make counters that nothing can follow. */
export const MAX_SEQ: number = 2 ** 48;
export const seq: v.GenericSchema<number> = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(MAX_SEQ));

/** A name that people read: no control or bidirectional characters, so it cannot disguise itself in a terminal. */
export function nameOf(maxBytes: number): v.GenericSchema<string> {
  const plain = /^[^\p{Cc}\p{Bidi_Control}\u2028\u2029]*$/u;
  return v.pipe(v.string(), v.minLength(1), v.maxBytes(maxBytes), v.regex(plain));
}
