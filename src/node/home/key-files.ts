// This device's two private keys, as files: HOME/keys/device.key (ed25519 seed, 32 bytes) and box.key (X25519 private key, 32 bytes).
// Directory 0700, files 0600, of this user alone; anything wider is refused at start, because what others could read is no longer secret.
import { randomBytes, type KeyObject } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { lstat, mkdir, open, rename, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { DezentError, systemCode } from '../../errors.ts';
import { boxKeyFromSeed, type BoxKey } from '../../protocol/sealed-box.ts';
import { privateKeyOf, signingKeyFromSeed, type SigningKey } from '../../protocol/signature.ts';
import { syncDirectory } from './durable-file.ts';

const KEY_BYTES = 32;
const DIRECTORY = 'keys';
const DEVICE_FILE = 'device.key';
const BOX_FILE = 'box.key';
const DIRECTORY_MODE = 0o700;
const FILE_MODE = 0o600;
/** Any right of group or others. */
const WIDER = 0o077;

/** The device's signing key. `seed` is not enumerable, so it stays out of JSON and logs; it is for libp2p's own private key. */
export interface DeviceKey extends SigningKey {
  readonly seed: Uint8Array;
}

export interface DeviceKeys {
  device: DeviceKey;
  box: BoxKey;
}

/**
 * Makes both keys, durably: all or none. Throws KEYS when there are keys already. The directory is filled under another name
 * and renamed, so a crash leaves no half of it.
 */
export async function createKeys(home: string): Promise<DeviceKeys> {
  const directory = join(home, DIRECTORY);
  const beside = `${directory}.${randomBytes(6).toString('hex')}.tmp`;
  await mkdir(beside, { mode: DIRECTORY_MODE });
  try {
    for (const name of [DEVICE_FILE, BOX_FILE]) await writeKey(join(beside, name), randomBytes(KEY_BYTES));
    await syncDirectory(beside);
    await renameToNew(beside, directory);
  } catch (error) {
    await rm(beside, { recursive: true, force: true });
    throw error;
  }
  await syncDirectory(home);
  return openKeys(home);
}

async function writeKey(path: string, key: Uint8Array): Promise<void> {
  const file = await open(path, 'wx', FILE_MODE);
  try {
    await file.writeFile(key);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function renameToNew(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    const code = systemCode(error);
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST' && code !== 'EPERM') throw error;
    throw new DezentError('KEYS', `${to} holds keys already`, {
      hint: 'Use another --home for another device.',
      cause: error,
    });
  }
}

/** The keys of this home. Throws KEYS when a file or the directory is missing, a link, another user's, wider than 0600 (0700), or of a wrong size. */
export async function openKeys(home: string): Promise<DeviceKeys> {
  const directory = join(home, DIRECTORY);
  const stats = await orKeys(lstat(directory), directory);
  if (!stats.isDirectory()) throw new DezentError('KEYS', `${directory} is not a directory`);
  checkAccess(directory, stats);
  const seed = await readKey(join(directory, DEVICE_FILE));
  const box = boxKeyFromSeed(await readKey(join(directory, BOX_FILE)));
  return { device: deviceKeyOf(seed), box };
}

/** The seed lives in the system's key object only and is read from there when asked for. */
function deviceKeyOf(seed: Uint8Array): DeviceKey {
  const key = privateKeyOf(seed);
  const device = { ...signingKeyFromSeed(seed) };
  return Object.defineProperty(device, 'seed', { enumerable: false, get: () => seedOf(key) }) as DeviceKey;
}

function seedOf(key: KeyObject): Uint8Array {
  return new Uint8Array(key.export({ format: 'der', type: 'pkcs8' }).subarray(-KEY_BYTES));
}

async function readKey(path: string): Promise<Uint8Array> {
  // O_NOFOLLOW: a link would lead to a file whose rights were never looked at.
  const file = await orKeys(open(path, constants.O_RDONLY | constants.O_NOFOLLOW), path);
  try {
    const stats = await file.stat();
    if (!stats.isFile() || stats.size !== KEY_BYTES)
      throw new DezentError('KEYS', `${path} is not a key of ${KEY_BYTES} bytes`);
    checkAccess(path, stats);
    return await readWhole(file, path);
  } finally {
    await file.close();
  }
}

async function readWhole(file: FileHandle, path: string): Promise<Uint8Array> {
  const { buffer, bytesRead } = await file.read(new Uint8Array(KEY_BYTES), 0, KEY_BYTES, 0);
  if (bytesRead !== KEY_BYTES) throw new DezentError('KEYS', `${path} is cut short`);
  return buffer;
}

/** Windows has no modes; there the profile directory's rights protect the home. */
function checkAccess(path: string, stats: Stats): void {
  if (process.getuid === undefined) return;
  if (stats.uid !== process.getuid())
    throw new DezentError('KEYS', `${path} belongs to another user`, { hint: 'Run dezent as its owner.' });
  if ((stats.mode & WIDER) !== 0)
    throw new DezentError('KEYS', `${path} can be read by others (mode ${(stats.mode & 0o777).toString(8)})`);
}

const NOT_A_KEY_FILE = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'EACCES', 'EISDIR']);

async function orKeys<T>(attempt: Promise<T>, path: string): Promise<T> {
  try {
    return await attempt;
  } catch (error) {
    const code = systemCode(error);
    if (code === undefined || !NOT_A_KEY_FILE.has(code)) throw error;
    const what =
      code === 'ENOENT' ? 'is missing' : code === 'ELOOP' ? 'is a symbolic link' : `cannot be opened (${code})`;
    throw new DezentError('KEYS', `${path} ${what}`, { cause: error });
  }
}
