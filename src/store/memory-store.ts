// A store in memory: for tests and short-lived nodes. Nothing survives the process, so its `put` promises only what memory can.
import { MAX_BLOCK_BYTES, type BlockId } from './block.ts';
import { NO_OWNER, type CallOptions, type LocalStore, type PutOptions } from './block-store.ts';
import { DezentError } from '../errors.ts';

interface Kept {
  bytes: Uint8Array;
  owner: Uint8Array;
}

/** A store that keeps at most `maxBytes` of block bytes; a put beyond that throws DISK_FULL. */
export function openMemoryStore(settings: { maxBytes?: number } = {}): LocalStore {
  const maxBytes = settings.maxBytes ?? Number.MAX_SAFE_INTEGER;
  const blocks = new Map<BlockId, Kept>();
  let usedBytes = 0;

  function keep(id: BlockId, bytes: Uint8Array, owner: Uint8Array): void {
    if (bytes.length > MAX_BLOCK_BYTES) throw new DezentError('BAD_BLOCK', `block ${id} is larger than a block may be`);
    if (blocks.has(id)) return;
    if (usedBytes + bytes.length > maxBytes)
      throw new DezentError('DISK_FULL', `the memory store is full at ${maxBytes} bytes`);
    blocks.set(id, { bytes: bytes.slice(), owner: owner.slice() });
    usedBytes += bytes.length;
  }

  function forget(id: BlockId): void {
    usedBytes -= blocks.get(id)?.bytes.length ?? 0;
    blocks.delete(id);
  }

  return {
    supports: { batches: true, owners: true, space: true },
    get: async (id, options) => ended(options) ?? blocks.get(id)?.bytes.slice(),
    put: async (id, bytes, options) => ended(options) ?? keep(id, bytes, options?.owner ?? NO_OWNER),
    has: async (id, options) => ended(options) ?? blocks.has(id),
    delete: async (id, options) => ended(options) ?? forget(id),
    async *ids(options) {
      for (const id of [...blocks.keys()].sort()) {
        options?.signal?.throwIfAborted();
        if (blocks.has(id)) yield id;
      }
    },
    async putMany(all, options: PutOptions = {}) {
      for (const { id, bytes } of all) {
        options.signal?.throwIfAborted();
        keep(id, bytes, options.owner ?? NO_OWNER);
      }
    },
    hasMany: async (ids, options) => ended(options) ?? new Set(ids.filter((id) => blocks.has(id))),
    deleteMany: async (ids, options) => ended(options) ?? ids.forEach(forget),
    async stat(id, options) {
      options?.signal?.throwIfAborted();
      const kept = blocks.get(id);
      return kept && { owner: kept.owner.slice(), length: kept.bytes.length };
    },
    space: async () => ({ usedBytes, freeBytes: maxBytes - usedBytes }),
    [Symbol.asyncDispose]: async () => blocks.clear(),
  };
}

/** Throws when the call has been ended already; else undefined, so that it reads as a step before the real one. */
function ended(options: CallOptions | undefined): undefined {
  options?.signal?.throwIfAborted();
  return undefined;
}
