// Which home a command means: --home, DEZENT_HOME, the installed service's home, else the user's data directory.
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { installedHome } from './service-places.ts';

export interface HomeSources {
  option: string | undefined;
  env: Readonly<Record<string, string | undefined>>;
}

/** The absolute path of the home that is meant. */
export function chooseHome({ option, env }: HomeSources): string {
  const named = option ?? nonEmpty(env['DEZENT_HOME']);
  return resolve(named ?? installedHome() ?? dataHome(env, homedir()));
}

/** XDG base directory specification: XDG_DATA_HOME where it is an absolute path, else ~/.local/share. */
export function dataHome(env: HomeSources['env'], userDir: string): string {
  if (process.platform === 'win32') return join(env['LOCALAPPDATA'] ?? join(userDir, 'AppData', 'Local'), 'dezent');
  const given = nonEmpty(env['XDG_DATA_HOME']);
  return join(given?.startsWith('/') === true ? given : join(userDir, '.local', 'share'), 'dezent');
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}
