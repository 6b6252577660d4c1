// BlockStore: the one interface of everything that keeps blocks (disk, memory, a peer, a remote) and of every wrapper around one.
// Absent is not failed: `undefined` and `false` mean "surely not here"; an error means "could not tell".
import type { BlockId } from './block.ts';

/** How a call may be ended early; an ended call rejects with the signal's reason. */
export interface CallOptions {
  signal?: AbortSignal;
}

export const OWNER_BYTES = 32;
/** The owner of what was put without one. */
export const NO_OWNER: Uint8Array = new Uint8Array(OWNER_BYTES);

export interface PutOptions extends CallOptions {
  /** Whose block it is: 32 bytes, opaque to the store and kept with the block. Default: {@link NO_OWNER}. */
  owner?: Uint8Array;
}

/** The optional powers of a store; a wrapper names those that it passes on. */
export interface Supports {
  /** {@link Batches}. */
  batches?: true;
  /** {@link Owners}. */
  owners?: true;
  /** {@link Space}. */
  space?: true;
}

export interface BlockStore extends AsyncDisposable {
  readonly supports: Supports;
  /** The bytes as they were put, or undefined when absent. Bytes belong to the caller. */
  get(id: BlockId, options?: CallOptions): Promise<Uint8Array | undefined>;
  /** When it returns, the block survives a power cut. Putting what is there already is no error and writes nothing. */
  put(id: BlockId, bytes: Uint8Array, options?: PutOptions): Promise<void>;
  has(id: BlockId, options?: CallOptions): Promise<boolean>;
  /** Deleting what is absent is no error. */
  delete(id: BlockId, options?: CallOptions): Promise<void>;
  /** All ids, ascending by their text, each once; blocks put or deleted meanwhile may or may not be seen. */
  ids(options?: CallOptions): AsyncIterable<BlockId>;
}

/** Many at once, for the price of about one. */
export interface Batches {
  /** All or as many as could be kept; when it returns, all survive a power cut. */
  putMany(blocks: Iterable<{ id: BlockId; bytes: Uint8Array }>, options?: PutOptions): Promise<void>;
  /** The ids that are here. */
  hasMany(ids: readonly BlockId[], options?: CallOptions): Promise<Set<BlockId>>;
  deleteMany(ids: readonly BlockId[], options?: CallOptions): Promise<void>;
}

/** Knows what was put under which owner, and how large it is, without reading the bytes. */
export interface Owners {
  stat(id: BlockId, options?: CallOptions): Promise<{ owner: Uint8Array; length: number } | undefined>;
}

export interface Space {
  /** Bytes that the store takes on its disk, and bytes free there for it. */
  space(): Promise<{ usedBytes: number; freeBytes: number }>;
}

export type LocalStore = BlockStore & Batches & Owners & Space;
