// Which machine this is, for counting copies: a keyed hash of the system's machine id, so it is equal for nodes on one machine of one
// group, and tells neither the id itself nor, across groups, that the machine is the same.
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Blake3Hasher } from '@napi-rs/blake-hash';
import { base32 } from 'multiformats/bases/base32';
import { systemCode } from '../../errors.ts';
import { writeDurably } from './durable-file.ts';

/** 128 bits: 26 characters of base32. */
const MACHINE_BYTES = 16;
const FALLBACK_FILE = 'machine-id';
/** machine-id(5), and where D-Bus keeps it on systems without systemd. */
const LINUX_FILES = ['/etc/machine-id', '/var/lib/dbus/machine-id'];
const MAC_COMMAND = ['/usr/sbin/ioreg', '-rd1', '-c', 'IOPlatformExpertDevice'];
const WINDOWS_COMMAND = ['reg.exe', 'query', 'HKLM\\SOFTWARE\\Microsoft\\Cryptography', '/v', 'MachineGuid'];
const COMMAND_TIMEOUT_MS = 5000;
const run = promisify(execFile);

export interface MachineSource {
  groupId: Uint8Array;
  /** Holds a random id where the system has none. */
  home: string;
  /** `--machine`: hashed alike, so equal texts are one machine. */
  override?: string;
  /** Files to look at instead of the system's own; for tests. */
  files?: readonly string[];
}

/** 26 characters of base32, for owner records and the member list. */
export async function machineIdOf({ groupId, home, override, files }: MachineSource): Promise<string> {
  if (override !== undefined) return hashed(groupId, `given\0${override}`);
  const system = await (files === undefined ? systemId() : firstOf(files));
  return hashed(groupId, system === undefined ? `home\0${await homeId(home)}` : `system\0${system}`);
}

function hashed(groupId: Uint8Array, text: string): string {
  const hash = Blake3Hasher.newKeyed(Buffer.from(groupId)).update(`dezent/1/machine\0${text}`).digestBuffer();
  return base32.baseEncode(hash.subarray(0, MACHINE_BYTES));
}

async function systemId(): Promise<string | undefined> {
  if (process.platform === 'darwin') return matchOutput(MAC_COMMAND, /"IOPlatformUUID" = "([^"]+)"/u);
  if (process.platform === 'win32') return matchOutput(WINDOWS_COMMAND, /MachineGuid\s+REG_SZ\s+(\S+)/u);
  return firstOf(LINUX_FILES);
}

async function firstOf(files: readonly string[]): Promise<string | undefined> {
  for (const file of files) {
    const text = await readIfThere(file);
    // "uninitialized": an image before its first boot; every copy of it would have the same.
    if (text !== undefined && text !== '' && text !== 'uninitialized') return text;
  }
  return undefined;
}

async function matchOutput([program = '', ...words]: readonly string[], pattern: RegExp): Promise<string | undefined> {
  const { stdout } = await run(program, words, { timeout: COMMAND_TIMEOUT_MS, windowsHide: true });
  return pattern.exec(stdout)?.[1];
}

async function homeId(home: string): Promise<string> {
  const path = join(home, FALLBACK_FILE);
  const held = await readIfThere(path);
  if (held !== undefined && held !== '') return held;
  const made = randomBytes(MACHINE_BYTES).toString('hex');
  await writeDurably(path, `${made}\n`);
  return made;
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}
