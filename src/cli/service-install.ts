// Installing the node as a service: plan from the home, write the definition, tell the system. A second run changes nothing.
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DezentError, systemCode } from '../errors.ts';
import { openConfig } from '../node/home/config.ts';
import { accountOf } from './accounts.ts';
import { homeIn, launchdPlist, systemdUnit, windowsTask, type ServicePlan } from './service-files.ts';
import { readDefinition, servicePlace, type ServicePlace } from './service-places.ts';

export interface PlannedService extends ServicePlace {
  home: string;
  text: string;
}

export interface InstalledService {
  changed: boolean;
  started: boolean;
  /** What to do next; empty when nothing is. */
  hint: string;
}

/** What would be installed for this home. As root: for the machine, running as the owner of the folder. CONFIG when the home has no device. */
export function planService(home: string): PlannedService {
  const folder = folderOf(home);
  const isRoot = process.getuid?.() === 0;
  const place = servicePlace(isRoot ? 'machine' : 'user');
  const plan: ServicePlan = {
    folder,
    home,
    command: [process.execPath, entryFile()],
    port: openConfig(home).get('listen.port'),
    account: isRoot ? accountOf(statSync(folder).uid) : undefined,
  };
  const write = { systemd: systemdUnit, launchd: launchdPlist, windows: windowsTask }[place.kind];
  return { ...place, home, text: write(plan) };
}

/** Writes the definition and starts the service where the system can; throws ALREADY_RUNNING when the place is taken by another home's service. */
export function installService(planned: PlannedService): InstalledService {
  const present = readDefinition(planned.path);
  const presentHome = present === undefined ? undefined : homeIn(present);
  if (present !== undefined && presentHome !== planned.home) {
    throw new DezentError('ALREADY_RUNNING', `${planned.path} belongs to ${presentHome ?? 'something else'}`, {
      hint: 'Remove that service first: dezent service uninstall',
    });
  }
  const changed = present !== planned.text;
  if (changed) {
    mkdirSync(dirname(planned.path), { recursive: true });
    writeFileSync(planned.path, planned.text, { mode: 0o644 });
    chmodSync(planned.path, 0o644);
  }
  const started = startService(planned, changed);
  return { changed, started, hint: hintFor(planned, started) };
}

export function uninstallService(): { unit: string; path: string; removed: boolean } {
  const place = ownPlace();
  if (readDefinition(place.path) === undefined) {
    refuseForeign(place);
    return { unit: place.unit, path: place.path, removed: false };
  }
  if (isManaged(place)) {
    if (place.kind === 'systemd') systemctl(place, 'disable', '--now', place.unit);
    if (place.kind === 'launchd') execFileSync('launchctl', ['unload', '-w', place.path], { stdio: 'ignore' });
    if (place.kind === 'windows') execFileSync('schtasks', ['/delete', '/f', '/tn', place.unit], { stdio: 'ignore' });
  }
  unlinkSync(place.path);
  if (isManaged(place) && place.kind === 'systemd') systemctl(place, 'daemon-reload');
  return { unit: place.unit, path: place.path, removed: true };
}

export function serviceStatus(): {
  unit: string;
  path: string;
  installed: boolean;
  active: string;
  home: string | null;
} {
  const user = servicePlace('user');
  const place = readDefinition(user.path) === undefined ? servicePlace('machine') : user;
  const text = readDefinition(place.path);
  const { unit, path } = place;
  return {
    unit,
    path,
    installed: text !== undefined,
    active: activeState(place),
    home: text === undefined ? null : (homeIn(text) ?? null),
  };
}

/** The machine's service is not a user's to remove. */
function refuseForeign({ scope }: ServicePlace): void {
  const machine = servicePlace('machine').path;
  if (scope === 'machine' || readDefinition(machine) === undefined) return;
  throw new DezentError('NOT_ALLOWED', `${machine} belongs to the whole machine`, { hint: 'Run the same as root.' });
}

function ownPlace(): ServicePlace {
  return servicePlace(process.getuid?.() === 0 ? 'machine' : 'user');
}

/** The folder of the device in this home (NOT_FOUND when there is none); the rest of its identity file belongs to the node. */
export function folderOf(home: string): string {
  try {
    const { folder } = JSON.parse(readFileSync(join(home, 'identity.json'), 'utf8')) as { folder: string };
    return folder;
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
    throw new DezentError('NOT_FOUND', `there is no device in ${home}`, {
      hint: 'Make one first: dezent init FOLDER',
      cause: error,
    });
  }
}

/** This program's entry: the source in a checkout, the built file in the npm package. */
export function entryFile(): string {
  const source = fileURLToPath(new URL('main.ts', import.meta.url));
  return existsSync(source) ? source : fileURLToPath(new URL('main.js', import.meta.url));
}

/** What to type to run the node of this home; by the launcher in a checkout. */
export function runLine(home: string): string {
  const launcher = fileURLToPath(new URL('../../dezent', import.meta.url));
  return `${existsSync(launcher) ? shellWord(launcher) : 'dezent'} --home ${shellWord(home)} run`;
}

function shellWord(text: string): string {
  return /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Whether the service manager of this system runs and is ours to ask (not while packaging into DESTDIR). */
function isManaged({ kind, scope }: ServicePlace): boolean {
  if ((process.env['DESTDIR'] ?? '') !== '') return false;
  if (kind !== 'systemd') return true;
  return existsSync(scope === 'machine' ? '/run/systemd/system' : `/run/user/${process.getuid?.()}/systemd/private`);
}

function hintFor({ home, kind, scope }: PlannedService, started: boolean): string {
  if (!started) return `No service manager runs here; run the node yourself: ${runLine(home)}`;
  return kind === 'systemd' && scope === 'user'
    ? 'It stops when you log out, unless you say: sudo loginctl enable-linger "$USER"'
    : '';
}

function startService(place: PlannedService, changed: boolean): boolean {
  if (!isManaged(place)) return false;
  if (place.kind === 'systemd') {
    if (changed) systemctl(place, 'daemon-reload');
    systemctl(place, 'enable', '--now', place.unit);
    if (changed) systemctl(place, 'restart', place.unit);
  } else if (place.kind === 'launchd') {
    execFileSync('launchctl', ['load', '-w', place.path], { stdio: 'ignore' });
  } else if (changed) {
    execFileSync('schtasks', ['/create', '/f', '/tn', place.unit, '/xml', place.path], { stdio: 'ignore' });
    execFileSync('schtasks', ['/run', '/tn', place.unit], { stdio: 'ignore' });
  }
  return true;
}

function systemctl({ scope }: ServicePlace, ...words: string[]): void {
  try {
    execFileSync('systemctl', [...(scope === 'user' ? ['--user'] : []), ...words], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  } catch (error) {
    const words_ = (error as { stderr?: Buffer }).stderr?.toString().trim() ?? '';
    throw new DezentError('IO', `systemctl ${words.join(' ')} failed: ${words_}`, { cause: error });
  }
}

function activeState(place: ServicePlace): string {
  if (!isManaged(place) || place.kind !== 'systemd') return 'unknown';
  try {
    return execFileSync('systemctl', [...(place.scope === 'user' ? ['--user'] : []), 'is-active', place.unit], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
      .toString()
      .trim();
  } catch (error) {
    return (error as { stdout?: Buffer }).stdout?.toString().trim() ?? 'unknown'; // is-active exits 3 for "inactive"
  }
}
