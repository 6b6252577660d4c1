// Files whose content fits their manifest: read by threads in batches, and told to the main thread as a few arrays for all of a batch,
// which costs a tenth of an object for each.
import { isDezentError, systemCode } from '../errors.ts';
import { encodeManifest, INLINE_MAX_BYTES, openContentHasher } from './manifest.ts';
import type { StoredContent } from './pipeline.ts';
import type { FileStats, NotRead, SmallFile, SmallRequest } from './sealing.ts';
import { keyedHash, type ContentKeys } from './secrets.ts';
import { splitSizesFor } from './split.ts';
import type { Given } from './thread-jobs.ts';
import { openUnchanging } from './unchanging-file.ts';

export const TOO_LARGE = 'TOO_LARGE';

/** What is known of content that its manifest holds. */
export type ReadContent = Pick<StoredContent, 'manifest' | 'contentHash' | 'average' | 'sizeBytes'>;

/** A batch of files on the way between threads. */
export interface ReadBatch {
  /** STATS_FIELDS for each file. */
  stats: BigInt64Array<ArrayBuffer>;
  contentHashes: Uint8Array<ArrayBuffer>;
  averages: Uint32Array<ArrayBuffer>;
  /** Where each manifest ends; one that is empty belongs to a file that was not read. */
  ends: Uint32Array<ArrayBuffer>;
  manifests: Uint8Array<ArrayBuffer>;
  notRead: (NotRead & { at: number })[];
}

const STATS_FIELDS = ['dev', 'ino', 'mode', 'nlink', 'size', 'mtimeNs', 'ctimeNs', 'birthtimeNs'] as const;
const HASH_BYTES = 32;

/** Hash and manifest of content up to INLINE_MAX_BYTES. */
export function inlineContentOf(inline: Uint8Array, average: number, keys: ContentKeys): ReadContent {
  const hasher = openContentHasher(keys.contentHash);
  if (inline.length > 0) hasher.add(inline.length, keyedHash(keys.plainHash, inline));
  const contentHash = hasher.digest();
  const manifest = encodeManifest({ size: inline.length, contentHash, average, inline });
  return { manifest, contentHash, average, sizeBytes: inline.length };
}

/** Reads the files one after the other; an error is that of one file. `window` has room for one more byte than is inline. */
export function readSmallFiles(requests: readonly SmallRequest[], keys: ContentKeys, window: Buffer): Given {
  const batch: ReadBatch = {
    stats: new BigInt64Array(requests.length * STATS_FIELDS.length),
    contentHashes: new Uint8Array(requests.length * HASH_BYTES),
    averages: new Uint32Array(requests.length),
    ends: new Uint32Array(requests.length),
    manifests: new Uint8Array(0),
    notRead: [],
  };
  const manifests: Uint8Array[] = [];
  let end = 0;
  for (const [at, request] of requests.entries()) {
    try {
      const { stats, content } = readSmallFile(request, keys, window);
      for (const [field, name] of STATS_FIELDS.entries()) batch.stats[at * STATS_FIELDS.length + field] = stats[name];
      batch.contentHashes.set(content.contentHash, at * HASH_BYTES);
      batch.averages[at] = content.average;
      manifests.push(content.manifest);
      end += content.manifest.length;
    } catch (error) {
      batch.notRead.push({ at, ...notReadOf(error) });
    }
    batch.ends[at] = end;
  }
  batch.manifests = joined(manifests, end);
  const { stats, contentHashes, averages, ends } = batch;
  return {
    value: batch,
    transfer: [stats.buffer, contentHashes.buffer, averages.buffer, ends.buffer, batch.manifests.buffer],
  };
}

function readSmallFile(
  { path, earlierAverage }: SmallRequest,
  keys: ContentKeys,
  window: Buffer,
): { stats: FileStats; content: ReadContent } {
  const file = openUnchanging(path);
  try {
    const sizeBytes = Number(file.stats.size);
    if (sizeBytes > INLINE_MAX_BYTES) throw new TooLarge(`${path} has ${sizeBytes} bytes`);
    const inline = window.subarray(0, sizeBytes);
    file.read(inline, 0);
    file.check();
    const { averageBytes } = splitSizesFor(sizeBytes, earlierAverage);
    return { stats: file.stats, content: inlineContentOf(inline, averageBytes, keys) };
  } finally {
    file.close();
  }
}

class TooLarge extends Error {}

/** An error of one file as data; others are thrown on. */
export function notReadOf(error: unknown): NotRead {
  const code = error instanceof TooLarge ? TOO_LARGE : isDezentError(error) ? error.code : systemCode(error);
  if (code === undefined || !(error instanceof Error)) throw error;
  return { code, message: error.message };
}

function joined(parts: readonly Uint8Array[], length: number): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** The files of a batch, one by one; manifests share its memory. */
export function filesOfBatch(batch: ReadBatch): SmallFile[] {
  const failed = new Map(batch.notRead.map(({ at, code, message }) => [at, { code, message }]));
  return Array.from(batch.ends, (end, at) => failed.get(at) ?? fileOfBatch(batch, at, end));
}

function fileOfBatch(
  { stats, contentHashes, averages, ends, manifests }: ReadBatch,
  at: number,
  end: number,
): SmallFile {
  const field = (index: number): bigint => stats[at * STATS_FIELDS.length + index] as bigint;
  return {
    stats: {
      dev: BigInt.asUintN(64, field(0)),
      ino: BigInt.asUintN(64, field(1)),
      mode: field(2),
      nlink: field(3),
      size: field(4),
      mtimeNs: field(5),
      ctimeNs: field(6),
      birthtimeNs: field(7),
    },
    contentHash: contentHashes.subarray(at * HASH_BYTES, (at + 1) * HASH_BYTES),
    manifest: manifests.subarray(at === 0 ? 0 : ends[at - 1], end),
    average: averages[at] as number,
    sizeBytes: Number(field(4)),
    blocks: [],
    newBytes: 0,
  };
}
