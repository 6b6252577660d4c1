// Manifest: a file's content, without name or times: touch and rename change nothing, equal content is one manifest.
//
// DAG-CBOR map, format version 1 (fields in docs/formats.md):
//   v 1 · size · hash (32 bytes) · average · and one of
//   inline  the content itself, at most 32 KiB
//   extents [[block 36 bytes, offset, length, key 32 bytes], …], at most 512
//   pages   [[block 36 bytes, offset, length, size], …]: each page is a DAG-CBOR list of ≤ 512 extents that cover `size` plain bytes
import { decode, encode } from '@ipld/dag-cbor';
import { Blake3Hasher } from '@napi-rs/blake-hash';
import { DezentError } from '../errors.ts';
import { blockIdFromBytes, blockIdToBytes, isBlockIdBytes, MAX_BLOCK_BYTES, type BlockId } from './block.ts';
import { keyedHash, SECRET_BYTES } from './secrets.ts';

/** Content up to here lies in the manifest itself, so that a small file costs no block of its own. */
export const INLINE_MAX_BYTES: number = 32 * 1024;
/** An encoded extent takes at most 95 bytes: a page stays under 64 KiB, and a 1 TiB file is read in bounded memory. */
export const PAGE_EXTENTS = 512;
/** Room for the pages of a 16 TiB file; checked before decoding. */
export const MANIFEST_MAX_BYTES: number = 3 * 1024 * 1024;
const MANIFEST_VERSION = 1;

/** Where a range of plaintext lies: `offset` and `length` count bytes of the block's expanded plaintext. */
export interface Extent {
  block: BlockId;
  offset: number;
  length: number;
  key: Uint8Array;
}

/** Where a manifest (or page) lies; its block opens with the owner's keys alone. */
export interface Root {
  block: BlockId;
  offset: number;
  length: number;
}

export interface Page extends Root {
  /** Plain bytes that the page's extents cover. */
  size: number;
}

export type Content = { inline: Uint8Array } | { extents: Extent[] } | { pages: Page[] };
export type Manifest = { size: number; contentHash: Uint8Array; average: number } & Content;

function bad(why: string, cause?: unknown): DezentError {
  return new DezentError('BAD_MANIFEST', `a manifest cannot be read: ${why}`, { cause });
}

const isCount = (value: unknown, max: number = Number.MAX_SAFE_INTEGER): value is number =>
  Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= max;

function decodeChecked(bytes: Uint8Array): unknown {
  if (bytes.length > MANIFEST_MAX_BYTES) throw bad(`${bytes.length} bytes, more than ${MANIFEST_MAX_BYTES}`);
  try {
    return decode(bytes);
  } catch (error) {
    throw bad('not DAG-CBOR', error);
  }
}

/** The four fields of an extent or a page; the last one is checked by the caller. */
function readPlace(value: unknown): { block: BlockId; offset: number; length: number; last: unknown } {
  if (!Array.isArray(value) || value.length !== 4) throw bad('an extent is not a list of four');
  const [block, offset, length, last] = value as unknown[];
  if (!(block instanceof Uint8Array) || !isCount(offset, MAX_BLOCK_BYTES) || !isCount(length, MAX_BLOCK_BYTES))
    throw bad('an extent has a wrong place');
  if (!isBlockIdBytes(block)) throw bad('an extent names no block');
  return { block: blockIdFromBytes(block), offset, length, last };
}

function readExtent(value: unknown): Extent {
  const { last: key, ...place } = readPlace(value);
  if (!(key instanceof Uint8Array) || key.length !== SECRET_BYTES) throw bad('an extent has a wrong key');
  return { ...place, key };
}

function readPage(value: unknown): Page {
  const { last: size, ...place } = readPlace(value);
  if (!isCount(size)) throw bad('a page has a wrong size');
  return { ...place, size };
}

function readList<T>(value: unknown, read: (item: unknown) => T, max: number): T[] {
  if (!Array.isArray(value) || value.length > max) throw bad('a list is missing or too long');
  return value.map(read);
}

const encodeExtent = ({ block, offset, length, key }: Extent): unknown[] => [
  blockIdToBytes(block),
  offset,
  length,
  key,
];
const encodePage = ({ block, offset, length, size }: Page): unknown[] => [blockIdToBytes(block), offset, length, size];

export function encodeExtents(extents: readonly Extent[]): Uint8Array {
  return encode(extents.map(encodeExtent));
}

/** The extents of a page; throws BAD_MANIFEST. */
export function decodeExtents(bytes: Uint8Array): Extent[] {
  return readList(decodeChecked(bytes), readExtent, PAGE_EXTENTS);
}

export function encodeManifest(manifest: Manifest): Uint8Array {
  const common = { v: MANIFEST_VERSION, size: manifest.size, hash: manifest.contentHash, average: manifest.average };
  if ('inline' in manifest) return encode({ ...common, inline: manifest.inline });
  if ('extents' in manifest) return encode({ ...common, extents: manifest.extents.map(encodeExtent) });
  return encode({ ...common, pages: manifest.pages.map(encodePage) });
}

function readInline(value: unknown): Uint8Array {
  if (!(value instanceof Uint8Array) || value.length > INLINE_MAX_BYTES) throw bad('its inline content is wrong');
  return value;
}

/** `rest` are the fields that are not common to all forms: exactly one of three is right. */
function readContent(rest: Record<string, unknown>): Content {
  const [[form, value] = [], ...more] = Object.entries(rest);
  if (more.length === 0 && form === 'inline') return { inline: readInline(value) };
  if (more.length === 0 && form === 'extents') return { extents: readList(value, readExtent, PAGE_EXTENTS) };
  if (more.length === 0 && form === 'pages') return { pages: readList(value, readPage, MANIFEST_MAX_BYTES) };
  throw bad('it needs one of inline, extents and pages');
}

function sizeOf(content: Content): number {
  if ('inline' in content) return content.inline.length;
  if ('extents' in content) return content.extents.reduce((sum, { length }) => sum + length, 0);
  return content.pages.reduce((sum, { size }) => sum + size, 0);
}

/** The inverse of {@link encodeManifest}. Throws BAD_MANIFEST, or NEWER_VERSION; sizes are those of its parts. */
export function decodeManifest(bytes: Uint8Array): Manifest {
  const fields = decodeChecked(bytes);
  if (fields === null || typeof fields !== 'object' || Array.isArray(fields)) throw bad('not a map');
  const { v, size, hash, average, ...rest } = fields as Record<string, unknown>;
  if (isCount(v) && v > MANIFEST_VERSION)
    throw new DezentError('NEWER_VERSION', `a manifest has version ${v}, this dezent knows ${MANIFEST_VERSION}`);
  if (v !== MANIFEST_VERSION || !isCount(size) || !isCount(average)) throw bad('version, size or average is wrong');
  if (!(hash instanceof Uint8Array) || hash.length !== SECRET_BYTES) throw bad('its hash is wrong');
  const content = readContent(rest);
  if (sizeOf(content) !== size) throw bad(`its parts have ${sizeOf(content)} bytes and it says ${size}`);
  return { size, contentHash: hash, average, ...content };
}

/** Small files have few chunks: they are hashed without a hasher of their own, which takes longer to make than they to hash. */
const HASHED_AT_ONCE = 64;

/** contentHash: keyed blake3 over (length:u32be ‖ plain hash) of each chunk, so that chunks can be hashed in parallel. */
export interface ContentHasher {
  add(length: number, plainHash: Uint8Array): void;
  digest(): Uint8Array;
}

export function openContentHasher(key: Buffer): ContentHasher {
  let hasher: Blake3Hasher | undefined;
  let waiting: Uint8Array[] = [];
  return {
    add(length, plainHash) {
      const head = Buffer.allocUnsafe(4);
      head.writeUInt32BE(length);
      waiting.push(head, plainHash);
      if (waiting.length < HASHED_AT_ONCE) return;
      hasher ??= Blake3Hasher.newKeyed(key);
      hasher.update(Buffer.concat(waiting));
      waiting = [];
    },
    digest() {
      if (hasher === undefined) return keyedHash(key, ...waiting);
      if (waiting.length > 0) hasher.update(Buffer.concat(waiting));
      waiting = [];
      return hasher.digestBuffer();
    },
  };
}

/** The extents of a manifest in their order; pages are loaded one at a time. Inline content has none. */
export async function* extentsOf(
  manifest: Manifest,
  loadPage: (page: Page) => Promise<Uint8Array>,
): AsyncGenerator<Extent> {
  if ('inline' in manifest) return;
  if ('extents' in manifest) {
    yield* manifest.extents;
    return;
  }
  for (const page of manifest.pages) {
    const extents = decodeExtents(await loadPage(page));
    if (extents.reduce((sum, { length }) => sum + length, 0) !== page.size)
      throw bad('a page does not cover what it says');
    yield* extents;
  }
}
