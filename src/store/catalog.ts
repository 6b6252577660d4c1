// Catalog: the owner's history. Each device writes one log: sealed segments (one per batch, never changed) that a signed head lists.
// Entries are merged by fileId the same way everywhere: the one whose `versions` is newer wins, equal ones by their bytes.
//
// Segment, DAG-CBOR, version 1: {v 1, device (text), incarnation (8 bytes), seq, entries [entry, …]}; entry fields as in docs/formats.md.
import { decode, encode } from '@ipld/dag-cbor';
import * as v from 'valibot';
import { DezentError } from '../errors.ts';
import { BLOCK_ID_BYTES, blockIdFromBytes, blockIdToBytes, isBlockIdBytes, MAX_BLOCK_BYTES } from './block.ts';
import { compress, expand } from './compress.ts';
import type { Root } from './manifest.ts';
import type { ContentKeys } from './secrets.ts';
import { KIND_CATALOG, sealNamed, unsealNamed, type SealedBlock } from './seal.ts';

export const FILE_ID_BYTES = 16;
export const INCARNATION_BYTES = 8;
/** PATH_MAX of Linux; longer ones cannot be opened anyway. */
export const PATH_MAX_BYTES = 4096;
/** A batch closes at this many entries, so a segment stays far below a block. */
export const SEGMENT_MAX_ENTRIES = 4096;
/** A batch closes at about this many encoded bytes: 4,096 entries of the longest paths would not fit a block. */
export const SEGMENT_TARGET_BYTES: number = 1024 * 1024;
const XATTRS_MAX = 64;
const XATTR_VALUE_MAX_BYTES: number = 64 * 1024;
const SEGMENT_VERSION = 1;

export type EntryKind = 'file' | 'folder' | 'link';

/** One file, folder or symlink at one version. Times are microseconds since 1970 (fs.utimes keeps no more). */
export interface CatalogEntry {
  fileId: Uint8Array;
  /** Relative to the folder, `/` between parts, exactly as the file system has it. */
  path: string;
  kind: EntryKind;
  /** Files only. */
  root?: Root;
  sizeBytes: number;
  mode: number;
  mtimeUs: number;
  birthtimeUs?: number;
  /** The target of a symlink: recorded, never followed. */
  link?: string;
  xattrs?: Record<string, Uint8Array>;
  /** When it was deleted. */
  deletedUs?: number;
  /** Version vector: how many changes each device has made to this file. */
  versions: Record<string, number>;
}

export interface Segment {
  device: string;
  incarnation: Uint8Array;
  seq: number;
  entries: CatalogEntry[];
}

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
/** valibot's instance(Uint8Array) would pin the buffer's kind. */
const bytesUpTo = (length: number): v.GenericSchema<Uint8Array> =>
  v.pipe(v.instance(Uint8Array), v.maxLength(length)) as v.GenericSchema<Uint8Array>;
const bytesOf = (length: number): v.GenericSchema<Uint8Array> =>
  v.pipe(v.instance(Uint8Array), v.length(length)) as v.GenericSchema<Uint8Array>;
const blockIdBytes = v.pipe(bytesOf(BLOCK_ID_BYTES), v.check(isBlockIdBytes, 'not a block id'));
/** A map of any text to values, as an object without prototype. (valibot's record takes lists too and drops keys like "constructor".) */
const mapOf = <T>(key: v.GenericSchema<string>, value: v.GenericSchema<T>): v.GenericSchema<Record<string, T>> =>
  v.pipe(
    v.custom<Record<string, T>>((given) => typeof given === 'object' && given !== null && !Array.isArray(given)),
    v.transform(Object.entries),
    v.array(v.strictTuple([key, value])),
    v.transform((pairs) => Object.assign(Object.create(null) as Record<string, T>, Object.fromEntries(pairs))),
  );
const pathText = v.pipe(v.string(), v.maxBytes(PATH_MAX_BYTES));
const deviceText = v.pipe(v.string(), v.maxLength(128));

const entrySchema = v.strictObject({
  fileId: bytesOf(FILE_ID_BYTES),
  path: v.pipe(pathText, v.minLength(1)),
  kind: v.picklist(['file', 'folder', 'link']),
  root: v.exactOptional(
    v.strictTuple([
      blockIdBytes,
      v.pipe(count, v.maxValue(MAX_BLOCK_BYTES)),
      v.pipe(count, v.maxValue(MAX_BLOCK_BYTES)),
    ]),
  ),
  size: count,
  mode: v.pipe(count, v.maxValue(0o7777)),
  mtime: v.pipe(v.number(), v.safeInteger()),
  birthtime: v.exactOptional(v.pipe(v.number(), v.safeInteger())),
  link: v.exactOptional(pathText),
  xattrs: v.exactOptional(
    v.pipe(
      mapOf(v.pipe(v.string(), v.maxLength(255)), bytesUpTo(XATTR_VALUE_MAX_BYTES)),
      v.check((value) => Object.keys(value).length <= XATTRS_MAX),
    ),
  ),
  deleted: v.exactOptional(v.pipe(v.number(), v.safeInteger())),
  versions: mapOf(deviceText, count),
});

const segmentSchema = v.strictObject({
  v: v.literal(SEGMENT_VERSION),
  device: deviceText,
  incarnation: bytesOf(INCARNATION_BYTES),
  seq: count,
  entries: v.pipe(v.array(entrySchema), v.maxLength(SEGMENT_MAX_ENTRIES)),
});

type EncodedEntry = v.InferOutput<typeof entrySchema>;

function toEncoded(entry: CatalogEntry): EncodedEntry {
  const { root, sizeBytes, mtimeUs, birthtimeUs, deletedUs, fileId, path, kind, mode, link, xattrs, versions } = entry;
  return {
    fileId,
    path,
    kind,
    mode,
    versions,
    size: sizeBytes,
    mtime: mtimeUs,
    ...(root && { root: [blockIdToBytes(root.block), root.offset, root.length] as [Uint8Array, number, number] }),
    ...(birthtimeUs !== undefined && { birthtime: birthtimeUs }),
    ...(link !== undefined && { link }),
    ...(xattrs && { xattrs }),
    ...(deletedUs !== undefined && { deleted: deletedUs }),
  };
}

function fromEncoded(encoded: EncodedEntry): CatalogEntry {
  const { root, size, mtime, birthtime, deleted, fileId, path, kind, mode, link, xattrs, versions } = encoded;
  return {
    fileId,
    path,
    kind,
    mode,
    versions,
    sizeBytes: size,
    mtimeUs: mtime,
    ...(root && { root: { block: blockIdFromBytes(root[0]), offset: root[1], length: root[2] } }),
    ...(birthtime !== undefined && { birthtimeUs: birthtime }),
    ...(link !== undefined && { link }),
    ...(xattrs && { xattrs }),
    ...(deleted !== undefined && { deletedUs: deleted }),
  };
}

/** One entry as bytes: what the local tree keeps. Inverse: {@link decodeEntry}. */
export function encodeEntry(entry: CatalogEntry): Uint8Array {
  return encode(toEncoded(entry));
}

export function decodeEntry(bytes: Uint8Array): CatalogEntry {
  return fromEncoded(parse(entrySchema, bytes, 'entry'));
}

function parse<T>(schema: v.GenericSchema<unknown, T>, bytes: Uint8Array, what: string): T {
  let decoded: unknown;
  try {
    decoded = decode(bytes);
  } catch (error) {
    throw new DezentError('BAD_RECORD', `a catalog ${what} is not DAG-CBOR`, { cause: error });
  }
  const version = (decoded as { v?: unknown } | null)?.v;
  if (typeof version === 'number' && version > SEGMENT_VERSION)
    throw new DezentError('NEWER_VERSION', `a catalog ${what} has version ${version}`);
  const result = v.safeParse(schema, decoded);
  if (!result.success)
    throw new DezentError(
      'BAD_RECORD',
      `a catalog ${what} is not valid: ${result.issues[0].message} at ${v.getDotPath(result.issues[0])}`,
    );
  return result.output;
}

export async function sealSegment(segment: Segment, keys: ContentKeys): Promise<SealedBlock> {
  const plain = encode({ v: SEGMENT_VERSION, ...segment, entries: segment.entries.map(toEncoded) });
  return sealNamed(KIND_CATALOG, await compress(plain), keys.current);
}

/** The inverse of {@link sealSegment}; throws BAD_BLOCK, BAD_RECORD or NEWER_VERSION. */
export function openSegment(sealed: Uint8Array, keys: ContentKeys): Segment {
  const { device, incarnation, seq, entries } = parse(
    segmentSchema,
    expand(unsealNamed(KIND_CATALOG, sealed, keys)),
    'segment',
  );
  return { device, incarnation, seq, entries: entries.map(fromEncoded) };
}

const changesBy = (versions: Record<string, number>, device: string): number =>
  Object.hasOwn(versions, device) ? (versions[device] as number) : 0;

/** How a's version vector stands to b's. */
export function compareVersions(
  a: Record<string, number>,
  b: Record<string, number>,
): 'equal' | 'newer' | 'older' | 'concurrent' {
  const devices = new Set([...Object.keys(a), ...Object.keys(b)]);
  let ahead = false;
  let behind = false;
  for (const device of devices) {
    const difference = changesBy(a, device) - changesBy(b, device);
    ahead ||= difference > 0;
    behind ||= difference < 0;
  }
  if (ahead && behind) return 'concurrent';
  if (ahead) return 'newer';
  return behind ? 'older' : 'equal';
}
