// Which table files belong to a closed `level` database: a crash leaves half-written ones behind that it will never look at.
//
// MANIFEST (LevelDB, db/version_edit.cc), in its log format: blocks of 32 KiB with records crc (4) ‖ length (2, little-endian) ‖ type (1:
// 1 whole, 2 first, 3 middle, 4 last part) ‖ bytes; a rest under 7 bytes is empty. Each record is a list of varint tag and fields.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { varintReader, type VarintReader } from './varints.ts';
import { systemCode } from '../errors.ts';

const LOG_BLOCK_BYTES = 32_768;
const RECORD_HEADER_BYTES = 7;
const [WHOLE, LAST] = [1, 4];
const [COMPARATOR, LOG, NEXT_FILE, LAST_SEQUENCE, COMPACT_POINTER, DELETED_FILE, NEW_FILE, PREVIOUS_LOG] = [
  1, 2, 3, 4, 5, 6, 7, 9,
];

/** The numbers of the tables in use, or undefined when that cannot be told: then `level` will say why, or all are to be looked at. */
export async function liveTables(dir: string): Promise<Set<number> | undefined> {
  const manifest = await manifestOf(dir);
  if (manifest === undefined) return undefined;
  const live = new Set<number>();
  for (const edit of recordsIn(manifest)) {
    if (!apply(live, varintReader(edit))) return undefined;
  }
  return live;
}

async function manifestOf(dir: string): Promise<Buffer | undefined> {
  try {
    const name = (await readFile(join(dir, 'CURRENT'), 'utf8')).trim();
    return /^MANIFEST-\d+$/.test(name) ? await readFile(join(dir, name)) : undefined;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function* recordsIn(log: Buffer): Iterable<Buffer> {
  let parts: Buffer[] = [];
  for (let at = 0; at + RECORD_HEADER_BYTES <= log.length;) {
    const left = LOG_BLOCK_BYTES - (at % LOG_BLOCK_BYTES);
    if (left < RECORD_HEADER_BYTES) {
      at += left;
      continue;
    }
    const length = log.readUInt16LE(at + 4);
    const type = log.readUInt8(at + 6);
    const end = at + RECORD_HEADER_BYTES + length;
    if (type < WHOLE || type > LAST || end > log.length) return; // the unfinished end
    parts.push(log.subarray(at + RECORD_HEADER_BYTES, end));
    if (type === WHOLE || type === LAST) {
      yield Buffer.concat(parts);
      parts = [];
    }
    at = end;
  }
}

/** Adds and removes tables as the edit says; false when it says something unknown. */
function apply(live: Set<number>, edit: VarintReader): boolean {
  while (!edit.atEnd()) {
    const tag = edit.number();
    if (tag === COMPARATOR) edit.skipString();
    else if (tag === LOG || tag === NEXT_FILE || tag === LAST_SEQUENCE || tag === PREVIOUS_LOG) edit.number();
    else if (tag === COMPACT_POINTER) {
      edit.number();
      edit.skipString();
    } else if (tag === DELETED_FILE) {
      edit.number();
      live.delete(edit.number() ?? -1);
    } else if (tag === NEW_FILE) {
      edit.number();
      live.add(edit.number() ?? -1);
      edit.number();
      edit.skipString();
      edit.skipString();
    } else return false;
  }
  return true;
}
