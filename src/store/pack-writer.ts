// Appends to one pack. Several may be open on different packs of one directory, each with its own owner (also in another thread):
// a writer knows nothing of the index and of other packs.
import { open, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import {
  encodePackHeader,
  encodeRecordHeader,
  newPackId,
  PACK_HEADER_BYTES,
  packName,
  recordBytes,
  type PackId,
  type RecordHead,
} from './pack-file.ts';

/** Records up to this size are gathered in one buffer: many small pieces cost more than copying them. */
const GATHER_BYTES: number = 32 * 1024;

export interface NewRecord {
  head: RecordHead;
  bytes: Uint8Array;
}

export interface PackWriter {
  readonly pack: PackId;
  /** The end of what was kept for good, where the next append starts. */
  readonly end: number;
  /** Writes the records one after the other at the end and makes them durable; after an error the pack is as before (see `intact`). */
  append(records: readonly NewRecord[]): Promise<void>;
  /** False once the pack could not be brought back to what it was before a failed append; then nobody may append to it. */
  readonly intact: boolean;
  close(): Promise<void>;
}

/** A new pack, durable with its name. */
export async function createPack(dir: string): Promise<PackWriter> {
  const pack = newPackId();
  const file = await open(join(dir, packName(pack)), 'wx+', 0o600);
  try {
    await writeAll(file, [encodePackHeader(pack)], 0);
    await file.datasync();
    await syncDirectory(dir);
  } catch (error) {
    await file.close();
    await rm(join(dir, packName(pack)), { force: true });
    throw error;
  }
  return packWriter(pack, file, PACK_HEADER_BYTES);
}

/** Goes on appending to a pack at `end`; what is behind it is cut off. */
export async function continuePack(dir: string, pack: PackId, end: number): Promise<PackWriter> {
  const file = await open(join(dir, packName(pack)), 'r+');
  try {
    if ((await file.stat()).size !== end) await file.truncate(end);
  } catch (error) {
    await file.close();
    throw error;
  }
  return packWriter(pack, file, end);
}

/** Makes durable what another thread has appended to a pack. */
export async function syncPack(dir: string, pack: PackId): Promise<void> {
  const file = await open(join(dir, packName(pack)), 'r+');
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Makes names made, renamed and unlinked in a directory durable. */
export async function syncDirectory(dir: string): Promise<void> {
  const file = await open(dir, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

function packWriter(pack: PackId, file: FileHandle, start: number): PackWriter {
  let end = start;
  let intact = true;

  async function append(records: readonly NewRecord[]): Promise<void> {
    try {
      const length = await writeAll(file, gather({ pack, offset: end }, records), end);
      await file.datasync();
      end += length;
    } catch (error) {
      await cutBack().catch(() => {
        intact = false;
      });
      throw error;
    }
  }

  async function cutBack(): Promise<void> {
    await file.truncate(end);
    await file.datasync();
  }

  return {
    pack,
    append,
    close: () => file.close(),
    get end() {
      return end;
    },
    get intact() {
      return intact;
    },
  };
}

/** The records as pieces to write at this place. */
function gather(place: { pack: PackId; offset: number }, records: readonly NewRecord[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  let small: Uint8Array[] = [];
  let offset = place.offset;
  const flush = (): void => {
    if (small.length > 0) pieces.push(Buffer.concat(small));
    small = [];
  };
  for (const { head, bytes } of records) {
    small.push(encodeRecordHeader({ pack: place.pack, offset }, head));
    if (bytes.length <= GATHER_BYTES) small.push(bytes);
    else {
      flush();
      pieces.push(bytes);
    }
    offset += recordBytes(head);
  }
  flush();
  return pieces;
}

/** Writes all pieces at the offset, whatever the system takes at a time (a full disk takes a part before it refuses); the bytes written. */
async function writeAll(file: FileHandle, pieces: Uint8Array[], offset: number): Promise<number> {
  let rest = pieces;
  let done = 0;
  while (rest.length > 0) {
    const { bytesWritten } = await file.writev(rest, offset + done);
    done += bytesWritten;
    rest = behind(rest, bytesWritten);
  }
  return done;
}

function behind(pieces: Uint8Array[], skip: number): Uint8Array[] {
  let left = skip;
  for (const [index, piece] of pieces.entries()) {
    if (left < piece.length) return [piece.subarray(left), ...pieces.slice(index + 1)];
    left -= piece.length;
  }
  return [];
}
