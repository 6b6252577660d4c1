// The node's state database: one `level` at HOME/state, of which each part makes sublevels of its own. `level` neither verifies on read nor keeps
// unsynced writes over a power cut, so every value carries a crc and what must last is written with SYNC.
import { crc32 } from 'node:zlib';
import { decode, encode } from '@ipld/dag-cbor';
import type { AbstractLevel, AbstractSublevel } from 'abstract-level';
import { Level } from 'level';
import { DezentError, systemCode } from '../../errors.ts';
import { checkLevelTables } from '../../store/level-check.ts';

type Format = string | Buffer | Uint8Array;
export type StateDb = AbstractLevel<Format>;
/** A sublevel with text keys and values of one kind. */
export type Table<T> = AbstractSublevel<StateDb, Format, string, T>;

/** For writes that must survive a power cut when they return. */
export const SYNC: object = { sync: true };

const CRC_BYTES = 4;

/** crc32:u32be ‖ DAG-CBOR. A value that fails its crc throws BAD_RECORD: the part that owns it decides what is lost. */
function checkedCbor<T>(name: string) {
  return {
    name: 'checked-cbor',
    format: 'buffer' as const,
    encode(value: T): Buffer {
      const body = encode(value);
      const bytes = Buffer.allocUnsafe(CRC_BYTES + body.length);
      bytes.writeUInt32BE(crc32(body));
      bytes.set(body, CRC_BYTES);
      return bytes;
    },
    decode(bytes: Buffer): T {
      const body = bytes.subarray(CRC_BYTES);
      if (bytes.length < CRC_BYTES || bytes.readUInt32BE() !== crc32(body)) {
        throw new DezentError('BAD_RECORD', `a value in the state table "${name}" is damaged`);
      }
      return decode(body);
    },
  };
}

/** A table of checked values; T must be a type that DAG-CBOR carries (no undefined, no Date). */
export function openTable<T>(db: StateDb, name: string): Table<T> {
  return db.sublevel<string, T>(name, { valueEncoding: checkedCbor<T>(name) });
}

/** Opens the database; throws ALREADY_RUNNING when another process has it. */
export async function openState(dir: string): Promise<Level> {
  // One flipped bit in a table makes LevelDB abort the process or answer "absent": so the tables are checked before they are opened.
  await checkLevelTables(dir);
  const db = new Level(dir, { compression: false });
  try {
    await db.open();
  } catch (error) {
    const cause = error instanceof Error ? error.cause : undefined;
    if (systemCode(cause) === 'LEVEL_LOCKED') {
      throw new DezentError('ALREADY_RUNNING', `another node is running on this home (${dir} is locked)`, {
        cause: error,
      });
    }
    throw error;
  }
  return db;
}
