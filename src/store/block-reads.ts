// The thread's way to a block: from its pack by the place it is said to have, or as it was handed over. What does not turn out to be the
// block is no error of the data yet: a compaction may have moved it, so the main thread asks again and hands the bytes over.
import { closeSync, openSync, readSync } from 'node:fs';
import { isDezentError, systemCode } from '../errors.ts';
import { checkBlock, type BlockId } from './block.ts';
import type { RecordPlace } from './disk-store.ts';
import { decodeRecordHeader, RECORD_HEADER_BYTES } from './pack-file.ts';

/** A block for a thread: where it lies, or its verified bytes. */
export interface BlockSource {
  id: BlockId;
  place: RecordPlace | undefined;
  bytes: Uint8Array | undefined;
}

export interface BlockReads {
  /** The checked bytes, in memory that the next call uses again; undefined when they are not where they were said to be. */
  read(source: BlockSource): Uint8Array | undefined;
  close(): void;
}

/** Packs stay open until it is closed; `memory` has room for the largest record. */
export function openBlockReads(memory: Buffer): BlockReads {
  const packs = new Map<string, number>();

  function packAt(path: string): number {
    const fd = packs.get(path) ?? openSync(path, 'r');
    packs.set(path, fd);
    return fd;
  }

  function fromPack(id: BlockId, { pack, path, offset, length }: RecordPlace): Uint8Array | undefined {
    const record = memory.subarray(0, RECORD_HEADER_BYTES + length);
    for (let done = 0; done < record.length;) {
      const count = readSync(packAt(path), record, done, record.length - done, offset + done);
      if (count === 0) return undefined;
      done += count;
    }
    const head = decodeRecordHeader({ pack, offset }, record);
    if (head?.kind !== 'block' || head.id !== id || head.length !== length) return undefined;
    const bytes = record.subarray(RECORD_HEADER_BYTES);
    checkBlock(id, bytes);
    return bytes;
  }

  return {
    read({ id, place, bytes }) {
      if (bytes !== undefined) return bytes;
      if (place === undefined) return undefined;
      try {
        return fromPack(id, place);
      } catch (error) {
        if (isDezentError(error, 'BAD_BLOCK') || systemCode(error) !== undefined) return undefined;
        throw error;
      }
    },
    close() {
      for (const fd of packs.values()) closeSync(fd);
    },
  };
}
