// The settings of one home: HOME/config.json holds those that were set (`{"copies.min": 2}`), everything else has its default.
// Values are live: who needs one asks `get` each time or listens with `onChange`.
import { readFileSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { DezentError, systemCode } from '../../errors.ts';
import { writeDurably } from './durable-file.ts';
import { SETTINGS, isSettingKey, presetOf, type SettingKey, type Settings } from './settings.ts';

export interface Config {
  get<K extends SettingKey>(key: K): Settings[K];
  /** All settings in the order of the table; or one by its name as typed (CONFIG for an unknown one). */
  show(key?: string): unknown;
  /** Checks, stores durably and tells the listeners. Text is taken as typed on a command line ("true", "10", JSON). CONFIG names what is allowed. */
  set(key: string, value: unknown): Promise<{ key: SettingKey; value: unknown }>;
  onChange(listener: (key: SettingKey, value: unknown) => void): () => void;
}

/** A config file has some dozen lines; more is not ours. */
const MAX_CONFIG_BYTES = 1024 * 1024;

/** valibot takes a list for a record, so that is asked first. */
const SETTINGS_OBJECT = v.pipe(
  v.unknown(),
  v.check((value) => !Array.isArray(value)),
  v.record(v.string(), v.unknown()),
);

export function configPath(home: string): string {
  return join(home, 'config.json');
}

/** Reads and checks HOME/config.json (absent: all defaults). Throws CONFIG naming the file, the key and what is allowed. */
export function openConfig(home: string): Config {
  const { bsize, blocks } = statfsSync(home);
  const machine = { diskBytes: bsize * blocks };
  const listeners = new Set<(key: SettingKey, value: unknown) => void>();
  const chosen = readChosen(home);
  let writing: Promise<void> = Promise.resolve();

  const plain = <K extends SettingKey>(key: K): Settings[K] =>
    chosen.has(key) ? (chosen.get(key) as Settings[K]) : presetOf(key, machine);

  const get = <K extends SettingKey>(key: K): Settings[K] =>
    key === 'copies.target' ? (Math.max(plain('copies.target'), plain('copies.min')) as Settings[K]) : plain(key);

  const store = async (key: SettingKey, value: unknown): Promise<void> => {
    const next = new Map(chosen).set(key, value);
    if (key === 'copies.target') checkTarget(Number(value), plain('copies.min'));
    await writeDurably(configPath(home), `${JSON.stringify(Object.fromEntries(next), undefined, 2)}\n`);
    chosen.set(key, value);
    for (const listener of listeners) listener(key, value);
  };

  return {
    get,
    show: (key) =>
      key === undefined
        ? Object.fromEntries(Object.keys(SETTINGS).map((name) => [name, get(name as SettingKey)]))
        : get(checkKey(key)),
    async set(name, given) {
      const key = checkKey(name);
      const value = checkValue(key, given);
      const turn = writing.then(() => store(key, value));
      writing = turn.catch(() => undefined); // the caller gets the failure; the next change must not inherit it
      await turn;
      return { key, value };
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

function readChosen(home: string): Map<SettingKey, unknown> {
  const path = configPath(home);
  const text = readIfPresent(path);
  if (text === undefined) return new Map();
  const parsed = v.safeParse(SETTINGS_OBJECT, parseJson(path, text));
  if (!parsed.success) throw new DezentError('CONFIG', `${path} is not a JSON object of settings`);
  const entries = Object.entries(parsed.output);
  const chosen = new Map(
    entries.map(([name, value]) => [checkKey(name, path), checkValue(checkKey(name, path), value)]),
  );
  return chosen;
}

function readIfPresent(path: string): string | undefined {
  try {
    const bytes = readFileSync(path);
    if (bytes.length > MAX_CONFIG_BYTES)
      throw new DezentError('CONFIG', `${path} has ${bytes.length} bytes; settings need a few hundred`);
    return bytes.toString('utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function parseJson(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new DezentError('CONFIG', `${path} is not valid JSON: ${(error as Error).message}`, { cause: error });
  }
}

function checkKey(name: string, path?: string): SettingKey {
  if (isSettingKey(name)) return name;
  const where = path === undefined ? '' : ` in ${path}`;
  const near = Object.keys(SETTINGS).filter((key) => name !== '' && key.toLowerCase().includes(name.toLowerCase()));
  const hint = near.length > 0 ? `Did you mean ${near.join(', ')}?` : 'See `dezent config` for all of them.';
  throw new DezentError('CONFIG', `no setting is called ${JSON.stringify(name.slice(0, 80))}${where}`, { hint });
}

function checkValue(key: SettingKey, given: unknown): unknown {
  const { schema, allowed } = SETTINGS[key];
  for (const value of readings(given)) {
    const parsed = v.safeParse(schema, value);
    if (parsed.success) return parsed.output;
  }
  const shown = JSON.stringify(given)?.slice(0, 80) ?? 'nothing';
  throw new DezentError('CONFIG', `${key} cannot be ${shown}; allowed: ${allowed}`, { hint: `Set it to ${allowed}.` });
}

/** What the given value may mean: itself, or what its text says in JSON. */
function readings(given: unknown): unknown[] {
  if (typeof given !== 'string') return [given];
  try {
    return [given, JSON.parse(given)];
  } catch (error) {
    if (error instanceof SyntaxError) return [given];
    throw error;
  }
}

/** Repair to fewer copies than offloading asks for could never end. (Raising the minimum alone raises the target with it, see `get`.) */
function checkTarget(target: number, min: number): void {
  if (target >= min) return;
  throw new DezentError('CONFIG', `copies.target ${target} would be less than copies.min ${min}`, {
    hint: 'Lower copies.min first.',
  });
}
