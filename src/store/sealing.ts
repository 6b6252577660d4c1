// What the threads of the pipeline offer, both ways: sealers take files in, openers give them back. Types only; sealers.ts and
// openers.ts do it. Results are equal, byte for byte, to those of pipeline.ts, which does the same on one thread.
import type { BigIntStats } from 'node:fs';
import type { BlockId } from './block.ts';
import type { CallOptions, PutOptions } from './block-store.ts';
import type { Manifest, Root } from './manifest.ts';
import type { ContentIndex, StoredContent } from './pipeline.ts';

/** Of a file when it was opened; it was the same when its last byte had been read. */
export type FileStats = Pick<
  BigIntStats,
  'dev' | 'ino' | 'mode' | 'nlink' | 'size' | 'mtimeNs' | 'ctimeNs' | 'birthtimeNs'
>;

export interface SealRequest {
  /** Absolute. */
  path: string;
  /** As last seen: decides how many threads share it, nothing else. */
  sizeBytes: number;
  /** Of the file's earlier version; absent: chosen by size. */
  earlierAverage?: number;
}

export interface SealOptions extends PutOptions {
  /** Plain bytes that were read, sealed or known. */
  onBytes?: (count: number) => void;
  /** Blocks of the file that are durable now, in no order: whoever pushes them need not wait for the whole file. */
  onKept?: (blocks: readonly { id: BlockId; length: number }[]) => void;
}

/** What toContent gives, and the state of the file that was read. */
export interface SealedFile extends StoredContent {
  stats: FileStats;
}

export interface SmallRequest {
  /** Absolute. */
  path: string;
  earlierAverage?: number;
}

/** Why a small file was not read: an error code of the system ("ENOENT"), CHANGED, or TOO_LARGE: its content needs blocks, see seal. */
export interface NotRead {
  code: string;
  message: string;
}

export type SmallFile = (StoredContent & { stats: FileStats }) | NotRead;

export interface Sealers extends AsyncDisposable {
  /**
   * One file of any size → kept blocks and a manifest (not yet kept); all blocks are durable when this resolves. Throws CHANGED when the
   * file changed meanwhile, DISK_FULL, the system's own errors (ENOENT, EACCES), the signal's reason. What was sealed before an error
   * is kept and known, so that trying again is cheap.
   */
  seal(request: SealRequest, options?: SealOptions): Promise<SealedFile>;
  /** Content up to INLINE_MAX_BYTES of many files, in their order; errors are data. Nothing is kept by it. */
  readSmall(requests: readonly SmallRequest[], options?: CallOptions): Promise<SmallFile[]>;
  /** These manifests as one solid block (see sealSolid), kept: durable when this resolves. Roots are in the order of the parts. */
  keepSolid(parts: readonly Uint8Array[], options?: PutOptions): Promise<KeptSolid>;
}

export interface KeptSolid {
  block: BlockId;
  /** Of the sealed block. */
  length: number;
  roots: Root[];
}

/** The content index, and all that it knows, so that threads need not ask it for each chunk. */
export interface ChunkIndex extends ContentIndex {
  /** The plain hashes of all extents, in pages. */
  plainHashes(): AsyncIterable<readonly Uint8Array[]>;
}

export interface OpenOptions extends CallOptions {
  /** Verified bytes of a block that is not on this machine (or cannot be read here); rejects when nobody has them. */
  fetch(id: BlockId): Promise<Uint8Array>;
  onBytes?: (count: number) => void;
}

/** A small file to write: its manifest is (part of) a solid block. */
export interface SmallTarget {
  root: Root;
  /** Written first; must not exist. Same file system as `path`. */
  tmp: string;
  /** The name it gets at last; never overwritten. */
  path: string;
  mode: number;
  mtimeUs: number;
}

/** NAME_TAKEN: something has the name, the checked content stays at `tmp`. TOO_LARGE: not inline, nothing was written. Else nothing is left. */
export type SmallWritten = { sizeBytes: number } | NotRead;

export interface OpenSmallOptions extends OpenOptions {
  /** Called when a batch of files is written under their tmp names, before they get their own: the place to make them durable. */
  beforeNames?: (directories: readonly string[]) => Promise<void>;
}

export interface Openers extends AsyncDisposable {
  /**
   * Writes the content of a manifest to a new file that is open for writing; returns when its contentHash is checked (BAD_MANIFEST where
   * it differs: the file is then to be thrown away). Nothing is synced. The descriptor must stay open until this settles.
   */
  open(manifest: Manifest, fd: number, options: OpenOptions): Promise<void>;
  /** Many small files from their solid blocks, in their order; errors are data. */
  openSmall(targets: readonly SmallTarget[], options: OpenSmallOptions): Promise<SmallWritten[]>;
}
