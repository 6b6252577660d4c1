// Reads a pack from front to back by its headers, for re-indexing and compaction. Damage is stepped over: what lies between is
// reported as a gap, and the search goes on for the next record whose bytes are proven by their id.
import type { FileHandle } from 'node:fs/promises';
import { blockIdOf } from './block.ts';
import {
  decodeRecordHeader,
  isPackHeader,
  PACK_HEADER_BYTES,
  RECORD_HEADER_BYTES,
  RECORD_MAGIC_START,
  recordBytes,
  type PackId,
  type RecordHead,
} from './pack-file.ts';

/** Headers are read ahead in windows of this size; one window is held at a time. */
const WINDOW_BYTES: number = 256 * 1024;

export type Found =
  /** `sure` is false behind damage: a tombstone found there must not end anything. */
  | { kind: 'record'; offset: number; head: RecordHead; sure: boolean }
  /** Bytes that are no record. `torn`: surely the unfinished end of an append, nothing that was ever acknowledged. */
  | { kind: 'gap'; offset: number; end: number; torn: boolean };

export interface Scanned {
  pack: PackId;
  file: FileHandle;
  /** Scanned from here (a record's start, or 0) … */
  from: number;
  /** … to here. */
  size: number;
}

/** Every record and gap in order. */
export async function* scanPack(scanned: Scanned): AsyncIterable<Found> {
  const { pack, file, size } = scanned;
  const read = windowReader(file, size);
  let offset = scanned.from;
  let sure = true;
  if (offset === 0) {
    offset = Math.min(PACK_HEADER_BYTES, size);
    if (!isPackHeader(pack, await read(0, PACK_HEADER_BYTES)))
      yield { kind: 'gap', offset: 0, end: offset, torn: offset < PACK_HEADER_BYTES };
  }
  while (offset < size) {
    const head = decodeRecordHeader({ pack, offset }, await read(offset, RECORD_HEADER_BYTES));
    if (head && offset + recordBytes(head) <= size) {
      yield { kind: 'record', offset, head, sure };
      offset += recordBytes(head);
      continue;
    }
    const next = await nextProvenBlock(scanned, offset + 1);
    const torn =
      next === undefined &&
      (head !== undefined || size - offset < RECORD_HEADER_BYTES || (await isZero(scanned, offset)));
    yield { kind: 'gap', offset, end: next ?? size, torn };
    sure = false;
    offset = next ?? size;
  }
}

/** The bytes of a record that a scan has found. */
export async function readBytes(file: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) return bytes.subarray(0, done);
    done += bytesRead;
  }
  return bytes;
}

/** The next offset at which a block record starts whose bytes are what its id names. */
async function nextProvenBlock({ pack, file, size }: Scanned, from: number): Promise<number | undefined> {
  for (let start = from; start < size; start += WINDOW_BYTES) {
    const window = Buffer.from(
      await readBytes(file, start, Math.min(WINDOW_BYTES + RECORD_HEADER_BYTES, size - start)),
    );
    for (
      let at = window.indexOf(RECORD_MAGIC_START);
      at >= 0 && at < WINDOW_BYTES;
      at = window.indexOf(RECORD_MAGIC_START, at + 1)
    ) {
      const head = decodeRecordHeader({ pack, offset: start + at }, window.subarray(at));
      if (head?.kind !== 'block') continue;
      const bytes = await readBytes(file, start + at + RECORD_HEADER_BYTES, head.length);
      if (bytes.length === head.length && blockIdOf(bytes) === head.id) return start + at;
    }
  }
  return undefined;
}

async function isZero({ file, size }: Scanned, from: number): Promise<boolean> {
  for (let start = from; start < size; start += WINDOW_BYTES) {
    const window = await readBytes(file, start, Math.min(WINDOW_BYTES, size - start));
    if (window.some((byte) => byte !== 0)) return false;
  }
  return true;
}

function windowReader(file: FileHandle, size: number): (offset: number, length: number) => Promise<Uint8Array> {
  let start = 0;
  let window: Uint8Array = new Uint8Array();
  return async (offset, length) => {
    const end = Math.min(offset + length, size);
    if (offset < start || end > start + window.length) {
      start = offset;
      window = await readBytes(file, offset, Math.min(WINDOW_BYTES, size - offset));
    }
    return window.subarray(offset - start, end - start);
  };
}
