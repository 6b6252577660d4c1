// Checks the table files of a closed `level` database, whose blocks carry checksums that it does not look at when it reads: a flipped
// bit in them gives wrong or no answers, or ends the process by an assertion. Its logs it does check, and drops what is damaged.
//
// Table file (LevelDB, doc/table_format.md): blocks, each with type (1) ‖ masked crc32c over block and type (4, little-endian), then
// a footer of 48 bytes: handles of metaindex and index block, as varints (offset, size), padded to 40 ‖ magic (8). Both blocks hold
// entries (shared, own and value length as varints ‖ own key bytes ‖ value) whose values are handles, then their restart points.
import { createCRC32, type IHasher } from 'hash-wasm';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { liveTables } from './level-manifest.ts';
import { varintReader, type VarintReader } from './varints.ts';
import { DezentError, systemCode } from '../errors.ts';

const TABLE_NAME: RegExp = /^(\d+)\.(?:ldb|sst)$/;
const FOOTER_BYTES = 48;
const TRAILER_BYTES = 5;
const TABLE_MAGIC: Buffer = Buffer.from('57fb808b247547db', 'hex');
const CRC32C_POLYNOMIAL = 0x82f63b78;
const CRC_MASK = 0xa282ead8;
const UNCOMPRESSED = 0;

interface Handle {
  offset: number;
  size: number;
}

/** Throws BAD_INDEX when a table of the database is damaged. The database must be closed and be written with `compression: false`. */
export async function checkLevelTables(dir: string): Promise<void> {
  const crc = await createCRC32(CRC32C_POLYNOMIAL);
  for (const name of await tableNames(dir)) {
    const table = await readFile(join(dir, name));
    if (!isWhole(table, crc)) throw new DezentError('BAD_INDEX', `the table ${name} in ${dir} is damaged`);
  }
}

async function tableNames(dir: string): Promise<string[]> {
  const names = await readdir(dir).catch((error: unknown) => {
    if (systemCode(error) === 'ENOENT') return [];
    throw error;
  });
  const live = await liveTables(dir);
  return names.filter((name) => {
    const number = TABLE_NAME.exec(name)?.[1];
    return number !== undefined && (live === undefined || live.has(Number(number)));
  });
}

function isWhole(table: Buffer, crc: IHasher): boolean {
  if (table.length < FOOTER_BYTES || !table.subarray(-TABLE_MAGIC.length).equals(TABLE_MAGIC)) return false;
  const footer = varintReader(table.subarray(-FOOTER_BYTES));
  const roots = [handleIn(footer), handleIn(footer)];
  return roots.every((root) => {
    const handles = root && isWholeBlock(table, root, crc) ? handlesIn(table, root) : undefined;
    return handles?.every((handle) => isWholeBlock(table, handle, crc)) ?? false;
  });
}

function isWholeBlock(table: Buffer, { offset, size }: Handle, crc: IHasher): boolean {
  const end = offset + size;
  if (end + TRAILER_BYTES > table.length - FOOTER_BYTES) return false;
  const real = Number.parseInt(
    crc
      .init()
      .update(table.subarray(offset, end + 1))
      .digest('hex'),
    16,
  );
  const masked = (((real >>> 15) | (real << 17)) + CRC_MASK) >>> 0;
  return table.readUInt32LE(end + 1) === masked;
}

/** The handles in a metaindex or index block, or undefined when it does not have its form. */
function handlesIn(table: Buffer, { offset, size }: Handle): Handle[] | undefined {
  if (size < 4 || table[offset + size] !== UNCOMPRESSED) return undefined;
  const end = size - 4 - 4 * table.readUInt32LE(offset + size - 4);
  if (end < 0) return undefined;
  const block = varintReader(table.subarray(offset, offset + end));
  const handles: Handle[] = [];
  while (!block.atEnd()) {
    block.number();
    const ownKeyBytes = block.number() ?? 0;
    const valueBytes = block.number() ?? 0;
    block.skip(ownKeyBytes);
    const handle = valueBytes > 0 ? handleIn(block) : undefined;
    if (handle === undefined) return undefined;
    handles.push(handle);
  }
  return handles;
}

function handleIn(reader: VarintReader): Handle | undefined {
  const [offset, size] = [reader.number(), reader.number()];
  return offset === undefined || size === undefined ? undefined : { offset, size };
}
