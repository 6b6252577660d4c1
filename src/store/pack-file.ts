// A pack: an append-only file of block records and tombstones. Everything else on the disk can be made again from packs, so each
// record says on its own what it is, where it is and whether its header is whole; its bytes are checked by its BlockId.
//
// Pack file, version 1, at most 64 MiB, named `<pack id>.pack`; integers are big-endian:
//   0  magic "dezpack1" (8) ‖ pack id (8 random bytes, 16 hex digits in text) ‖ crc32 of the 16 bytes before (4)
//  20  records, one after the other, without gaps
// Record header, 80 bytes:
//   0  magic "DZB1" block or "DZT1" tombstone (4)
//   4  BlockId (36)
//  40  block: owner (32)        tombstone: pack id (8) ‖ offset of the dead record (4) ‖ 20 zero bytes
//  72  length of the bytes that follow (4), at most MAX_BLOCK_BYTES; 0 in a tombstone
//  76  crc32 over pack id (8) ‖ offset of this header (4) ‖ the 76 bytes before (4)
// The crc binds a header to its place: a header found inside the bytes of some block (which a stranger may have made) is not taken
// for one, since pack ids are random. A tombstone names the place of the record that it ends, never just an id: it cannot end what
// is put later, and the order of packs does not matter.
import { randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { BLOCK_ID_BYTES, blockIdFromBytes, blockIdToBytes, MAX_BLOCK_BYTES, type BlockId } from './block.ts';
import { OWNER_BYTES } from './block-store.ts';
import { isDezentError } from '../errors.ts';

/** 64 MiB: small enough to compact in a second, large enough that a terabyte is a few thousand files. */
export const PACK_BYTES: number = 64 * 1024 * 1024;
export const PACK_HEADER_BYTES = 20;
export const RECORD_HEADER_BYTES = 80;
const PACK_ID_BYTES = 8;
const PACK_NAME: RegExp = /^([0-9a-f]{16})\.pack$/;

const PACK_MAGIC: Buffer = Buffer.from('dezpack1', 'latin1');
const BLOCK_MAGIC: Buffer = Buffer.from('DZB1', 'latin1');
const TOMBSTONE_MAGIC: Buffer = Buffer.from('DZT1', 'latin1');
/** What both record magics begin with; the search after damage looks for it. */
export const RECORD_MAGIC_START: Buffer = BLOCK_MAGIC.subarray(0, 2);
const [ID_AT, OWNER_AT, LENGTH_AT, CRC_AT] = [4, 40, 72, 76];

/** 16 hex digits, random: packs can be made by several writers at once, and no id is ever used again. */
export type PackId = string;

/** Where a record's header starts. */
export interface Place {
  pack: PackId;
  offset: number;
}

export interface BlockHead {
  kind: 'block';
  id: BlockId;
  owner: Uint8Array;
  /** Of the block's bytes. */
  length: number;
}

export interface TombstoneHead {
  kind: 'tombstone';
  id: BlockId;
  /** The record that is dead. */
  target: Place;
}

export type RecordHead = BlockHead | TombstoneHead;

export function newPackId(): PackId {
  return randomBytes(PACK_ID_BYTES).toString('hex');
}

export function packName(pack: PackId): string {
  return `${pack}.pack`;
}

/** The id in a pack's file name, or undefined for any other name. */
export function packOfName(name: string): PackId | undefined {
  return PACK_NAME.exec(name)?.[1];
}

/** Bytes that a record takes in its pack. */
export function recordBytes(head: RecordHead): number {
  return RECORD_HEADER_BYTES + (head.kind === 'block' ? head.length : 0);
}

export function encodePackHeader(pack: PackId): Uint8Array {
  const header = Buffer.alloc(PACK_HEADER_BYTES);
  PACK_MAGIC.copy(header);
  header.write(pack, PACK_MAGIC.length, 'hex');
  header.writeUInt32BE(crc32(header.subarray(0, 16)), 16);
  return header;
}

/** True when these are the first bytes of this pack. */
export function isPackHeader(pack: PackId, bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, encodePackHeader(pack)) === 0;
}

/** The 80 bytes of a record's header, for this place and no other. */
export function encodeRecordHeader(place: Place, head: RecordHead): Uint8Array {
  const header = Buffer.alloc(RECORD_HEADER_BYTES);
  header.set(blockIdToBytes(head.id), ID_AT);
  if (head.kind === 'block') {
    BLOCK_MAGIC.copy(header);
    header.set(head.owner, OWNER_AT);
    header.writeUInt32BE(head.length, LENGTH_AT);
  } else {
    TOMBSTONE_MAGIC.copy(header);
    header.write(head.target.pack, OWNER_AT, 'hex');
    header.writeUInt32BE(head.target.offset, OWNER_AT + PACK_ID_BYTES);
  }
  header.writeUInt32BE(headerCrc(place, header), CRC_AT);
  return header;
}

/** The header that starts with these bytes at this place, or undefined when no whole header does. */
export function decodeRecordHeader(place: Place, bytes: Uint8Array): RecordHead | undefined {
  if (bytes.length < RECORD_HEADER_BYTES) return undefined;
  const header = Buffer.from(bytes.buffer, bytes.byteOffset, RECORD_HEADER_BYTES);
  const magic = header.subarray(0, ID_AT);
  const kind = magic.equals(BLOCK_MAGIC) ? 'block' : magic.equals(TOMBSTONE_MAGIC) ? 'tombstone' : undefined;
  if (kind === undefined || header.readUInt32BE(CRC_AT) !== headerCrc(place, header)) return undefined;
  const id = blockIdAt(header);
  const length = header.readUInt32BE(LENGTH_AT);
  if (id === undefined || length > MAX_BLOCK_BYTES) return undefined;
  if (kind === 'block')
    return { kind, id, owner: Uint8Array.from(header.subarray(OWNER_AT, OWNER_AT + OWNER_BYTES)), length };
  const pack = header.toString('hex', OWNER_AT, OWNER_AT + PACK_ID_BYTES);
  return { kind, id, target: { pack, offset: header.readUInt32BE(OWNER_AT + PACK_ID_BYTES) } };
}

function headerCrc(place: Place, header: Buffer): number {
  const where = Buffer.alloc(PACK_ID_BYTES + 4);
  where.write(place.pack, 'hex');
  where.writeUInt32BE(place.offset, PACK_ID_BYTES);
  return crc32(header.subarray(0, CRC_AT), crc32(where));
}

function blockIdAt(header: Buffer): BlockId | undefined {
  try {
    return blockIdFromBytes(Uint8Array.from(header.subarray(ID_AT, ID_AT + BLOCK_ID_BYTES)));
  } catch (error) {
    if (isDezentError(error, 'BAD_BLOCK')) return undefined;
    throw error;
  }
}
