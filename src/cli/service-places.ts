// Where service definitions lie on each system, for this user and for the machine, and which home the installed one names.
// DESTDIR, as in packaging, stands before the machine's and the user's directories; tests and package builds use it.
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { systemCode } from '../errors.ts';
import { LAUNCHD_LABEL, homeIn } from './service-files.ts';

export const UNIT_NAME = 'dezent.service';

export interface ServicePlace {
  kind: 'systemd' | 'launchd' | 'windows';
  scope: 'machine' | 'user';
  unit: string;
  path: string;
}

type Env = Readonly<Record<string, string | undefined>>;

/** The place for a service of the user or of the machine on this system. */
export function servicePlace(scope: 'machine' | 'user', env: Env = process.env): ServicePlace {
  const top = env['DESTDIR'] ?? '';
  const at = (...parts: string[]): string => (top === '' ? join(...parts) : join(top, ...parts));
  if (process.platform === 'win32') {
    return {
      kind: 'windows',
      scope,
      unit: 'dezent',
      path: at(env['LOCALAPPDATA'] ?? homedir(), 'dezent', 'dezent-task.xml'),
    };
  }
  if (process.platform === 'darwin') {
    const file = `${LAUNCHD_LABEL}.plist`;
    const path =
      scope === 'machine' ? at('/Library/LaunchDaemons', file) : at(homedir(), 'Library', 'LaunchAgents', file);
    return { kind: 'launchd', scope, unit: LAUNCHD_LABEL, path };
  }
  const config = env['XDG_CONFIG_HOME'] ?? join(homedir(), '.config');
  const path = scope === 'machine' ? at('/etc/systemd/system', UNIT_NAME) : at(config, 'systemd', 'user', UNIT_NAME);
  return { kind: 'systemd', scope, unit: UNIT_NAME, path };
}

/** The home of the service installed for this user, else for this machine; undefined when there is none. */
export function installedHome(env: Env = process.env): string | undefined {
  for (const scope of ['user', 'machine'] as const) {
    const text = readDefinition(servicePlace(scope, env).path);
    const home = text === undefined ? undefined : homeIn(text);
    if (home !== undefined) return home;
  }
  return undefined;
}

/** The text of an installed definition, or undefined where there is none. */
export function readDefinition(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}
