// Every setting: its type, default, what is allowed and what it means. docs/cli.md shows the same table.
// Defaults that depend on the machine are functions of the home's disk.
import { availableParallelism } from 'node:os';
import * as v from 'valibot';

export interface Settings {
  'copies.min': number;
  'copies.target': number;
  'offload.auto': boolean;
  'offload.afterMs': number;
  'offload.idleMs': number;
  'offload.graceMs': number;
  'offload.stubMinBytes': number;
  'watch.settleMs': number;
  'watch.scanMs': number;
  'store.quotaBytes': number;
  'store.reserveBytes': number;
  'cache.maxBytes': number;
  'transfer.upBytesPerS': number;
  'transfer.downBytesPerS': number;
  'transfer.hours': string;
  'transfer.lanExempt': boolean;
  'open.trigger': 'auto' | 'held' | 'read' | 'off';
  'open.timeoutMs': number;
  'open.onMissing': 'stub' | 'error';
  'repair.graceMs': number;
  'scrub.periodMs': number;
  'trash.keepDays': number;
  'versions.keepDays': number;
  'pipeline.workers': number;
  'listen.port': number;
  'listen.addresses': string[];
  'bootstrap.file': string;
}

export type SettingKey = keyof Settings;

/** What a default may depend on. */
export interface Machine {
  diskBytes: number;
}

export interface Setting<T> {
  schema: v.GenericSchema<unknown, T>;
  allowed: string;
  preset: T | ((machine: Machine) => T);
  means: string;
}

const GIB_BYTES = 2 ** 30;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** The longest time setting, ten years: more is a slip of the unit. */
const MAX_TIME_MS = 3650 * DAY_MS;
/** More copies than any group here has members is a slip. */
const MAX_COPIES = 50;
/** fs.watch events of one save are spread over tens of milliseconds; less would read half-written files. */
const MIN_SETTLE_MS = 50;
const MAX_WORKERS = 256;

function whole(least: number, most: number): v.GenericSchema<unknown, number> {
  return v.pipe(v.number(), v.safeInteger(), v.minValue(least), v.maxValue(most));
}

function number(least: number, most: number, preset: Setting<number>['preset'], means: string): Setting<number> {
  const top = most === Number.MAX_SAFE_INTEGER ? 'or more' : `to ${most}`;
  return { schema: whole(least, most), allowed: `a whole number, ${least} ${top}`, preset, means };
}

const timeMs = (preset: number, means: string, least = 0): Setting<number> => number(least, MAX_TIME_MS, preset, means);
const amount = (preset: Setting<number>['preset'], means: string): Setting<number> =>
  number(0, Number.MAX_SAFE_INTEGER, preset, means);
const flag = (preset: boolean, means: string): Setting<boolean> => ({
  schema: v.boolean(),
  allowed: 'true or false',
  preset,
  means,
});

function choice<const T extends string>(options: readonly [T, ...T[]], means: string): Setting<T> {
  return { schema: v.picklist(options), allowed: options.join(', '), preset: options[0], means };
}

const HOURS: RegExp = /^(?:always|never|(?:[01]\d|2[0-3]):[0-5]\d-(?:[01]\d|2[0-3]):[0-5]\d)$/;

export const SETTINGS: { readonly [K in SettingKey]: Setting<Settings[K]> } = {
  'copies.min': number(
    0,
    MAX_COPIES,
    2,
    'copies on other machines before a file gives its space back; 0: single machine, blocks stay here',
  ),
  'copies.target': number(0, MAX_COPIES, 3, 'copies that repair restores, or all other machines, if fewer'),
  'offload.auto': flag(true, 'offload by itself'),
  'offload.afterMs': timeMs(0, 'how long after it was protected a file is offloaded'),
  'offload.idleMs': timeMs(DAY_MS, 'how long a restored file stays after its last use'),
  'offload.graceMs': timeMs(HOUR_MS, 'how long an original waits in quarantine before its space is given back'),
  'offload.stubMinBytes': amount(4096, 'smaller files are protected and stay files'),
  'watch.settleMs': timeMs(2000, 'quiet time before a file is touched', MIN_SETTLE_MS),
  'watch.scanMs': timeMs(DAY_MS, 'time between full scans, also for network shares without events', 1000),
  'store.quotaBytes': amount(({ diskBytes }) => Math.floor(diskBytes / 2), 'kept for others, at most'),
  'store.reserveBytes': amount(
    ({ diskBytes }) => Math.max(GIB_BYTES, Math.floor(diskBytes / 20)),
    'disk space never used',
  ),
  'cache.maxBytes': amount(GIB_BYTES, 'own blocks kept here after offloading'),
  'transfer.upBytesPerS': amount(0, 'upload limit; 0: none'),
  'transfer.downBytesPerS': amount(0, 'download limit; 0: none'),
  'transfer.hours': {
    schema: v.pipe(v.string(), v.regex(HOURS)),
    allowed: 'always, never, or local hours such as 22:00-06:00',
    preset: 'always',
    means: 'when transfers run by themselves',
  },
  'transfer.lanExempt': flag(true, 'peers in the local network are not limited'),
  'open.trigger': choice(
    ['auto', 'held', 'read', 'off'],
    'how an open of a stub is noticed; auto: held if permitted, else read',
  ),
  'open.timeoutMs': timeMs(30_000, 'how long a program that opens a stub is held'),
  'open.onMissing': choice(['stub', 'error'], 'what a program gets when nobody has the file'),
  'repair.graceMs': timeMs(DAY_MS, 'when an absent holder stops counting'),
  'scrub.periodMs': timeMs(30 * DAY_MS, 'time in which all blocks are hashed again', HOUR_MS),
  'trash.keepDays': number(0, 36_500, 365, 'how long deleted files can come back'),
  'versions.keepDays': number(0, 36_500, 30, 'how long old versions stay'),
  'pipeline.workers': number(
    0,
    MAX_WORKERS,
    () => Math.min(availableParallelism(), MAX_WORKERS),
    'threads that split, compress and seal; 0: none, all on the main thread',
  ),
  'listen.port': number(0, 65_535, 8080, 'TCP port for peers; 0: any free one'),
  'listen.addresses': {
    schema: v.pipe(v.array(v.union([v.pipe(v.string(), v.ipv4()), v.pipe(v.string(), v.ipv6())])), v.maxLength(64)),
    allowed: 'a JSON list of IP addresses of this machine',
    preset: [],
    means: 'addresses to listen on; empty: all of this machine',
  },
  'bootstrap.file': {
    schema: v.pipe(v.string(), v.minLength(1), v.maxLength(4096)),
    allowed: 'the path of a JSON file (docs/cli.md)',
    preset: 'bootstrap-peers.json',
    means: 'first peers to ask; relative to the program',
  },
};

export function isSettingKey(text: string): text is SettingKey {
  return Object.hasOwn(SETTINGS, text);
}

/** The value this machine has where nobody set one. */
export function presetOf<K extends SettingKey>(key: K, machine: Machine): Settings[K] {
  const preset: Settings[K] | ((machine: Machine) => Settings[K]) = SETTINGS[key].preset;
  return typeof preset === 'function' ? preset(machine) : preset;
}
