// A home: everything of one device that is not in FOLDER. identity.json is written last by `init`, so a home with one is complete.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { DezentError, systemCode } from '../../errors.ts';
import { writeDurably } from './durable-file.ts';

/** Who this device is; nothing in it is secret. */
export interface HomeIdentity {
  v: 1;
  groupId: string;
  /** Empty on a vault. */
  ownerId: string;
  deviceId: string;
  name: string;
  machine: string;
  /** Real path. */
  folder: string;
}

const text = v.string();
const schema: v.GenericSchema<unknown, HomeIdentity> = v.object({
  v: v.literal(1),
  groupId: text,
  ownerId: text,
  deviceId: text,
  name: text,
  machine: text,
  folder: text,
});

/** The places in a home (docs/formats.md). */
export const homePlaces = (home: string): { identity: string; state: string; store: string; datastore: string } => ({
  identity: join(home, 'identity.json'),
  state: join(home, 'state'),
  store: join(home, 'store'),
  datastore: join(home, 'datastore'),
});

export function hasIdentity(home: string): boolean {
  return existsSync(homePlaces(home).identity);
}

export async function writeIdentity(home: string, identity: HomeIdentity): Promise<void> {
  await writeDurably(homePlaces(home).identity, `${JSON.stringify(identity, undefined, 2)}\n`);
}

/** Throws NOT_FOUND where `init` has not been run, CONFIG when the file is damaged, NEWER_VERSION. */
export async function readIdentity(home: string): Promise<HomeIdentity> {
  const { identity } = homePlaces(home);
  let parsed: unknown;
  try {
    parsed = JSON.parse(await readFile(identity, 'utf8'));
  } catch (error) {
    if (systemCode(error) === 'ENOENT')
      throw new DezentError('NOT_FOUND', `there is no device in ${home}`, {
        hint: 'Make one first: dezent init FOLDER',
      });
    throw new DezentError('CONFIG', `${identity} cannot be read`, { cause: error });
  }
  const version = (parsed as { v?: unknown } | null)?.v;
  if (typeof version === 'number' && version > 1)
    throw new DezentError('NEWER_VERSION', `${identity} has version ${version}`);
  const checked = v.safeParse(schema, parsed);
  if (!checked.success) throw new DezentError('CONFIG', `${identity} is damaged: ${checked.issues[0].message}`);
  return checked.output;
}
