// Stub: the readable `name.ext.f` that stands for an offloaded file. One canonical encoding, under 1 KiB, tamper-evident by its mac;
// self-contained: renamed, moved or copied it still opens, under the name it has then. It holds no key and no list of blocks.
import { timingSafeEqual } from 'node:crypto';
import { base32 } from 'multiformats/bases/base32';
import { DezentError, isDezentError } from '../errors.ts';
import { parseBlockId } from './block.ts';
import { FILE_ID_BYTES } from './catalog.ts';
import type { Root } from './manifest.ts';
import { EPOCH_ID_BYTES, keyedHash, type ContentKeys } from './secrets.ts';
import { formatRoot } from './solid.ts';

export const STUB_SUFFIX = '.f';
export const STUB_MAX_BYTES = 1024;
const MAGIC = 'dezent-stub ';
const VERSION = 1;
/** How far to look for the end of the first line's version number. */
const VERSION_MAX_DIGITS = 8;
const NAME_MAX_BYTES = 400;
/** Owner and group ids come from strangers' stubs too and are shown in messages. */
const PLAIN_ID: RegExp = /^[A-Za-z0-9]{1,80}$/;
const ABOUT =
  'This file gave its disk space back; its content is kept, encrypted, by your peers. Open it, or run "dezent open" on it, and the original is here again.';
const KEYS = ['epoch', 'file', 'group', 'mac', 'mode', 'mtime', 'name', 'owner', 'root', 'size'] as const;
type Key = (typeof KEYS)[number];

export interface Stub {
  /** 8 bytes: the epoch whose stub secret made the mac. */
  epoch: Uint8Array;
  fileId: Uint8Array;
  groupId: string;
  ownerId: string;
  mode: number;
  mtimeUs: number;
  /** The name when it was made, for people; cut at 400 bytes. */
  name: string;
  root: Root;
  sizeBytes: number;
}

/** True when these first bytes of a file are a stub's: else a `.f` file is an ordinary one (Fortran, for example). */
export function hasStubMagic(start: Uint8Array): boolean {
  return Buffer.from(start.subarray(0, MAGIC.length)).toString('latin1') === MAGIC;
}

/** Control bytes and % as %XX; cut so that the escaped form has at most 400 bytes and no half character. */
function escapeName(name: string): string {
  let text = '';
  for (const character of name.toWellFormed()) {
    const code = character.codePointAt(0) as number;
    const escaped =
      code < 0x20 || code === 0x7f || character === '%'
        ? `%${code.toString(16).toUpperCase().padStart(2, '0')}`
        : character;
    if (Buffer.byteLength(text) + Buffer.byteLength(escaped) > NAME_MAX_BYTES) break;
    text += escaped;
  }
  return text;
}

const unescapeName = (text: string): string =>
  text.replaceAll(/%([0-9A-F]{2})/g, (_, hex: string) => String.fromCodePoint(Number.parseInt(hex, 16)));

function formatTime(us: number): string {
  const seconds = Math.floor(us / 1e6);
  return `${seconds}.${String(us - seconds * 1e6).padStart(6, '0')}`;
}

function parseTime(text: string): number {
  const match = /^(-?\d{1,12})\.(\d{6})$/.exec(text);
  if (match === null) throw bad('its mtime is not a time');
  return Number(match[1]) * 1e6 + Number(match[2]);
}

function bad(why: string, cause?: unknown): DezentError {
  return new DezentError('BAD_STUB', `not an intact stub: ${why}`, { cause });
}

function textOf(stub: Stub, mac: string | undefined): string {
  const values: Record<Key, string | undefined> = {
    epoch: Buffer.from(stub.epoch).toString('hex'),
    file: base32.encode(stub.fileId),
    group: stub.groupId,
    mac,
    mode: stub.mode.toString(8),
    mtime: formatTime(stub.mtimeUs),
    name: escapeName(stub.name),
    owner: stub.ownerId,
    root: formatRoot(stub.root),
    size: String(stub.sizeBytes),
  };
  const lines = KEYS.flatMap((key) => (values[key] === undefined ? [] : [`${key} ${values[key]}`]));
  return [`${MAGIC}${VERSION}`, ABOUT, ...lines, ''].join('\n');
}

const macOf = (stub: Stub, keys: ContentKeys): Buffer =>
  keyedHash(keys.epoch(stub.epoch).stub, Buffer.from(textOf(stub, undefined)));

/** The mac that a stub that is to be read should have. */
function expectedMac(stub: Stub, keys: ContentKeys): Buffer {
  try {
    return macOf(stub, keys);
  } catch (error) {
    if (!isDezentError(error, 'BAD_BLOCK')) throw error;
    throw new DezentError('BAD_STUB', `the stub is ${error.message}`, { cause: error, hint: error.hint });
  }
}

/** The stub's text, with its mac. */
export function encodeStub(stub: Stub, keys: ContentKeys): Buffer {
  const bytes = Buffer.from(textOf(stub, macOf(stub, keys).toString('hex')));
  if (bytes.length > STUB_MAX_BYTES) throw new DezentError('INTERNAL', `a stub of ${bytes.length} bytes`);
  return bytes;
}

function linesOf(bytes: Uint8Array): string[] {
  if (!hasStubMagic(bytes)) throw bad("it does not begin with a stub's first line");
  const start = Buffer.from(bytes.subarray(0, MAGIC.length + VERSION_MAX_DIGITS + 1)).toString('latin1');
  const version = Number(/^\d+(?=\n)/.exec(start.slice(MAGIC.length))?.[0] ?? 0);
  if (version > VERSION)
    throw new DezentError('NEWER_VERSION', `the stub has version ${version}, this dezent knows ${VERSION}`);
  if (bytes.length > STUB_MAX_BYTES) throw bad(`it has ${bytes.length} bytes, more than ${STUB_MAX_BYTES}`);
  return Buffer.from(bytes).toString('utf8').split('\n');
}

function fieldsOf(lines: string[]): Record<Key, string> {
  const fields = lines
    .slice(2, -1)
    .map((line) => [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1)] as const);
  if (fields.length !== KEYS.length || !fields.every(([key], index) => key === KEYS[index]))
    throw bad('its lines are not those of a stub');
  return Object.fromEntries(fields) as Record<Key, string>;
}

function parseRoot(text: string): Root {
  const match = /^(\S+) (\d{1,7}) (\d{1,7})$/.exec(text);
  if (match === null) throw bad('its root is not one');
  return { block: parseBlockId(match[1] as string), offset: Number(match[2]), length: Number(match[3]) };
}

function readFields(fields: Record<Key, string>): Stub {
  if (!/^[0-7]{1,4}$/.test(fields.mode) || !/^\d{1,16}$/.test(fields.size))
    throw bad('its mode or size is not a number');
  return {
    epoch: Buffer.from(fields.epoch, 'hex'),
    fileId: base32.decode(fields.file),
    groupId: fields.group,
    ownerId: fields.owner,
    mode: Number.parseInt(fields.mode, 8),
    mtimeUs: parseTime(fields.mtime),
    name: unescapeName(fields.name),
    root: parseRoot(fields.root),
    sizeBytes: Number(fields.size),
  };
}

function parseStub(bytes: Uint8Array): { stub: Stub; mac: string } {
  const fields = fieldsOf(linesOf(bytes));
  let stub: Stub;
  try {
    stub = readFields(fields);
  } catch (error) {
    throw bad('a line of it cannot be read', error);
  }
  if (stub.epoch.length !== EPOCH_ID_BYTES || stub.fileId.length !== FILE_ID_BYTES)
    throw bad('an id in it has a wrong length');
  if (!PLAIN_ID.test(stub.ownerId) || !PLAIN_ID.test(stub.groupId)) throw bad('its owner or group is not an id');
  return { stub, mac: fields.mac };
}

/**
 * Reads and checks a stub of this owner and group. Throws BAD_STUB (damaged, edited, not canonical), FOREIGN_STUB (another
 * owner's or group's) or NEWER_VERSION. Give at most STUB_MAX_BYTES + 1 bytes: a longer file is no stub.
 */
export function decodeStub(bytes: Uint8Array, keys: ContentKeys, own: { ownerId: string; groupId: string }): Stub {
  const { stub, mac } = parseStub(bytes);
  if (stub.ownerId !== own.ownerId)
    throw new DezentError('FOREIGN_STUB', `the stub belongs to owner ${stub.ownerId}, this device to ${own.ownerId}`);
  if (stub.groupId !== own.groupId)
    throw new DezentError('FOREIGN_STUB', `the stub belongs to group ${stub.groupId}, this device to ${own.groupId}`);
  const given = Buffer.from(mac, 'hex');
  const right = expectedMac(stub, keys);
  if (given.length !== right.length || !timingSafeEqual(given, right))
    throw bad('its mac does not match: it was altered');
  if (!Buffer.from(bytes).equals(encodeStub(stub, keys))) throw bad('it is not in the one canonical form');
  return stub;
}
