// The two data paths: a file's bytes → kept blocks and a manifest, and back. Both are async iterables joined with pipe; what they
// hold at once is bounded by PIPELINE_CHUNKS chunks, whatever the size of the file.
import { pipe } from 'it-pipe';
import { DezentError } from '../errors.ts';
import type { BlockId } from './block.ts';
import type { Batches, PutOptions } from './block-store.ts';
import { compress, expand } from './compress.ts';
import {
  encodeExtents,
  encodeManifest,
  extentsOf,
  INLINE_MAX_BYTES,
  openContentHasher,
  PAGE_EXTENTS,
  type Content,
  type Extent,
  type Manifest,
  type Page,
  type Root,
} from './manifest.ts';
import { keyedHash, type ContentKeys } from './secrets.ts';
import { sealData, unsealData, type SealedBlock } from './seal.ts';
import { openRoot, sealSolid } from './solid.ts';
import { split, splitSizesFor } from './split.ts';

/** Chunks between reading and keeping (or fetching and writing) at once: enough to feed the thread pool, 12 MiB at the largest chunks. */
export const PIPELINE_CHUNKS = 4;
/** Sealed bytes collected for one putMany: one commit to disk for many blocks. */
const KEEP_BATCH_BYTES: number = 8 * 1024 * 1024;

/** What is known of content that was sealed before: hints that save work, never proof that bytes are there. */
export interface ContentIndex {
  extent(plainHash: Uint8Array): Promise<Extent | undefined>;
  addExtents(extents: readonly { plainHash: Uint8Array; extent: Extent }[]): Promise<void>;
}

interface Chunk {
  plainHash: Buffer;
  extent: Extent;
  /** The block to keep; absent when the index knows the content already. */
  block?: SealedBlock;
}

export interface ToContentNeeds {
  keys: ContentKeys;
  store: Batches;
  index: ContentIndex;
}

export interface ToContentOptions extends PutOptions {
  /** Size of the file when it was opened, and the average of its earlier version: they choose the split sizes. */
  sizeBytes: number;
  earlierAverage?: number;
  onBytes?: (count: number) => void;
}

export interface StoredContent {
  /** The encoded manifest, not yet kept: it goes into its batch's solid block. */
  manifest: Uint8Array;
  contentHash: Uint8Array;
  average: number;
  sizeBytes: number;
  /** Every block that the content needs besides the manifest's own: data blocks and page blocks. */
  blocks: BlockId[];
  /** Bytes of blocks that were not known before. */
  newBytes: number;
}

/** Runs `work` on up to `width` items at once and yields the results in order. */
export function mapInOrder<In, Out>(
  width: number,
  work: (item: In) => Promise<Out>,
): (source: AsyncIterable<In>) => AsyncGenerator<Out> {
  return async function* (source) {
    const running: Promise<Out>[] = [];
    try {
      for await (const item of source) {
        const job = work(item);
        // Its error is given where the job is awaited, in order; until then it is not an unhandled one, which would end the process.
        job.catch(() => undefined);
        running.push(job);
        if (running.length >= width) yield await (running.shift() as Promise<Out>);
      }
      while (running.length > 0) yield await (running.shift() as Promise<Out>);
    } finally {
      // An early end leaves work under way: it is waited for, and the first error has been given already.
      await Promise.allSettled(running);
    }
  };
}

/** One chunk hashed, and compressed and sealed unless the index knows its content. */
async function sealChunk(plain: Uint8Array, { keys, index }: ToContentNeeds): Promise<Chunk> {
  const plainHash = keyedHash(keys.plainHash, plain);
  const known = await index.extent(plainHash);
  if (known !== undefined && known.length === plain.length) return { plainHash, extent: known };
  const { key, ...block } = sealData(await compress(plain), keys.current);
  return { plainHash, extent: { block: block.id, offset: 0, length: plain.length, key }, block };
}

/** Passes chunks on once their blocks are durable; many share one commit. */
function keepIn(
  { store, index }: ToContentNeeds,
  options: PutOptions,
): (source: AsyncIterable<Chunk>) => AsyncGenerator<Chunk> {
  return async function* (source) {
    let batch: Chunk[] = [];
    let bytes = 0;
    const keep = async (): Promise<Chunk[]> => {
      const kept = batch;
      batch = [];
      bytes = 0;
      const fresh = kept.filter((chunk) => chunk.block !== undefined);
      if (fresh.length === 0) return kept;
      await store.putMany(
        fresh.map(({ block }) => block as SealedBlock),
        options,
      );
      await index.addExtents(fresh);
      return kept;
    };
    for await (const chunk of source) {
      options.signal?.throwIfAborted();
      batch.push(chunk);
      bytes += chunk.block?.bytes.length ?? 0;
      if (bytes >= KEEP_BATCH_BYTES || batch.length >= PAGE_EXTENTS) yield* await keep();
    }
    yield* await keep();
  };
}

async function* counted(
  source: AsyncIterable<Uint8Array>,
  onBytes: (count: number) => void,
): AsyncGenerator<Uint8Array> {
  for await (const piece of source) {
    onBytes(piece.length);
    yield piece;
  }
}

/** All bytes of a small source; CHANGED when it is not that small. */
async function whole(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const piece of source) {
    sizeBytes += piece.length;
    if (sizeBytes > INLINE_MAX_BYTES) throw new DezentError('CHANGED', 'the file grew while it was read');
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

async function inlineContent(
  source: AsyncIterable<Uint8Array>,
  { keys }: ToContentNeeds,
  average: number,
): Promise<StoredContent> {
  const inline = await whole(source);
  const hasher = openContentHasher(keys.contentHash);
  if (inline.length > 0) hasher.add(inline.length, keyedHash(keys.plainHash, inline));
  const contentHash = hasher.digest();
  const manifest = encodeManifest({ size: inline.length, contentHash, average, inline });
  return { manifest, contentHash, average, sizeBytes: inline.length, blocks: [], newBytes: 0 };
}

export type AssemblyNeeds = Pick<ToContentNeeds, 'keys'> & { store: Pick<Batches, 'putMany'> };

/** Collects extents into a manifest; full pages are sealed and kept as they fill, so memory does not grow with the file. */
function openExtentList(needs: AssemblyNeeds, options: PutOptions) {
  const pages: Page[] = [];
  let extents: Extent[] = [];
  async function closePage(): Promise<void> {
    const { block, roots } = await sealSolid([encodeExtents(extents)], needs.keys);
    await needs.store.putMany([block], options);
    pages.push({ ...(roots[0] as Root), size: extents.reduce((sum, { length }) => sum + length, 0) });
    extents = [];
  }
  return {
    async add(extent: Extent): Promise<void> {
      if (extents.length === PAGE_EXTENTS) await closePage();
      extents.push(extent);
    },
    async finish(): Promise<Content> {
      if (pages.length === 0) return { extents };
      await closePage();
      return { pages };
    },
  };
}

/** A chunk whose block is kept. */
export interface KeptChunk {
  plainHash: Uint8Array;
  extent: Extent;
  /** Size of its block when that was not known before, else 0. */
  newBytes: number;
}

/** Puts the chunks of a file together to what is known of its content. */
export interface Assembly {
  /** In the order of the file, one at a time. */
  add(chunk: KeptChunk): Promise<void>;
  finish(): Promise<StoredContent>;
}

export function openAssembly(needs: AssemblyNeeds, average: number, options: PutOptions): Assembly {
  const list = openExtentList(needs, options);
  const hasher = openContentHasher(needs.keys.contentHash);
  const blocks = new Set<BlockId>();
  let sizeBytes = 0;
  let newBytes = 0;
  return {
    async add(chunk) {
      const { extent, plainHash } = chunk;
      hasher.add(extent.length, plainHash);
      sizeBytes += extent.length;
      if (!blocks.has(extent.block)) newBytes += chunk.newBytes;
      blocks.add(extent.block);
      await list.add(extent);
    },
    async finish() {
      const content = await list.finish();
      if ('pages' in content) for (const page of content.pages) blocks.add(page.block);
      const contentHash = hasher.digest();
      const manifest = encodeManifest({ size: sizeBytes, contentHash, average, ...content });
      return { manifest, contentHash, average, sizeBytes, blocks: [...blocks], newBytes };
    },
  };
}

/**
 * toBlocks: reads the source to its end, keeps every block that is not known yet (durable when this returns) and gives the manifest.
 * Content up to INLINE_MAX_BYTES makes no block at all; CHANGED when it was to be that small and turns out larger.
 */
export async function toContent(
  source: AsyncIterable<Uint8Array>,
  needs: ToContentNeeds,
  options: ToContentOptions,
): Promise<StoredContent> {
  const sizes = splitSizesFor(options.sizeBytes, options.earlierAverage);
  const read = counted(source, options.onBytes ?? (() => undefined));
  if (options.sizeBytes <= INLINE_MAX_BYTES) return inlineContent(read, needs, sizes.averageBytes);
  const chunks = pipe(
    read,
    split(needs.keys.gear, sizes),
    mapInOrder(PIPELINE_CHUNKS, (plain: Uint8Array) => sealChunk(plain, needs)),
    keepIn(needs, options),
  );
  const assembly = openAssembly(needs, sizes.averageBytes, options);
  for await (const { extent, plainHash, block } of chunks)
    await assembly.add({ plainHash, extent, newBytes: block?.bytes.length ?? 0 });
  return assembly.finish();
}

export interface FromContentNeeds {
  keys: ContentKeys;
  /** The verified bytes of a block, from wherever they can be had; rejects when nobody has them. */
  fetch(id: BlockId): Promise<Uint8Array>;
}

export interface PlainPiece {
  /** Where it belongs in the file. */
  position: number;
  bytes: Uint8Array;
}

async function openExtent(extent: Extent, { fetch }: FromContentNeeds): Promise<Uint8Array> {
  const plain = expand(unsealData(await fetch(extent.block), extent.key));
  if (extent.offset + extent.length > plain.length)
    throw new DezentError('BAD_MANIFEST', `an extent points beyond block ${extent.block}`);
  return plain.subarray(extent.offset, extent.offset + extent.length);
}

const loadPage =
  ({ keys, fetch }: FromContentNeeds) =>
  async (page: Page): Promise<Uint8Array> =>
    openRoot(page, await fetch(page.block), keys);

/** fromBlocks: the content in order, each piece verified and opened; whoever takes it must check {@link checkedContent}'s hash. */
async function* piecesOf(manifest: Manifest, needs: FromContentNeeds, width: number): AsyncGenerator<PlainPiece> {
  if ('inline' in manifest) {
    if (manifest.size > 0) yield { position: 0, bytes: manifest.inline };
    return;
  }
  let position = 0;
  const opened = pipe(
    extentsOf(manifest, loadPage(needs)),
    mapInOrder(width, (extent: Extent) => openExtent(extent, needs)),
  );
  for await (const bytes of opened) {
    yield { position, bytes };
    position += bytes.length;
  }
}

/**
 * The content of a manifest in order; after the last piece the contentHash has been checked (BAD_MANIFEST when it differs), so the
 * caller may trust the whole only when the iteration ends without an error. `width` blocks are fetched at once.
 */
export async function* checkedContent(
  manifest: Manifest,
  needs: FromContentNeeds,
  width: number = PIPELINE_CHUNKS,
): AsyncGenerator<PlainPiece> {
  const hasher = openContentHasher(needs.keys.contentHash);
  for await (const piece of piecesOf(manifest, needs, width)) {
    hasher.add(piece.bytes.length, keyedHash(needs.keys.plainHash, piece.bytes));
    yield piece;
  }
  if (!Buffer.from(manifest.contentHash).equals(hasher.digest()))
    throw new DezentError('BAD_MANIFEST', 'the content is not what its manifest says');
}

/** The contentHash that these bytes have under this split average, without sealing anything: is a file still what was stored? CHANGED like toContent. */
export async function contentHashOf(
  source: AsyncIterable<Uint8Array>,
  keys: ContentKeys,
  content: { sizeBytes: number; average: number },
): Promise<Uint8Array> {
  const hasher = openContentHasher(keys.contentHash);
  const add = (plain: Uint8Array): void => hasher.add(plain.length, keyedHash(keys.plainHash, plain));
  if (content.sizeBytes <= INLINE_MAX_BYTES) {
    const inline = await whole(source);
    if (inline.length > 0) add(inline);
  } else {
    const sizes = splitSizesFor(content.sizeBytes, content.average);
    for await (const plain of split(keys.gear, sizes)(source)) add(plain);
  }
  return hasher.digest();
}

/** Reads everything back and compares it with the contentHash; throws when a block is absent or wrong. */
export async function readBack(manifest: Manifest, needs: FromContentNeeds): Promise<void> {
  for await (const piece of checkedContent(manifest, needs)) void piece;
}

/** Every block that a manifest needs besides its own. */
export async function blocksOf(manifest: Manifest, needs: FromContentNeeds): Promise<BlockId[]> {
  const blocks = new Set<BlockId>();
  if ('pages' in manifest) for (const page of manifest.pages) blocks.add(page.block);
  for await (const extent of extentsOf(manifest, loadPage(needs))) blocks.add(extent.block);
  return [...blocks];
}
