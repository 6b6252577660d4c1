// config: show or change settings, live. Without a running node the config file of an existing home is used, so that
// a setting which keeps the node from starting (a taken port) can be changed.
import type { Command } from 'commander';
import { isDezentError } from '../errors.ts';
import { cliOf, declare, type Cli } from './command.ts';
import { isInitialised } from './init.ts';
import { safeText, tableText } from './text.ts';

export function defineConfig(program: Command): void {
  const config = declare(program, {
    usage: 'config',
    summary: 'show or change settings',
    examples: ['dezent config', 'dezent config get copies.min', 'dezent config set transfer.upBytesPerS 1000000'],
  }).action(async (_options: object, self: Command) => {
    const cli = cliOf(self);
    const all = await get(cli);
    cli.answer(all, () => tableText(Object.entries(all as object).map(([key, value]) => [key, valueText(value)])));
  });
  declare(config, {
    usage: 'get <key>',
    summary: 'show one setting',
    examples: ['dezent config get copies.min'],
  }).action(async (key: string, _options: object, self: Command) => {
    const cli = cliOf(self);
    const value = await get(cli, key);
    cli.answer(value, () => valueText(value));
  });
  declare(config, {
    usage: 'set <key> <value>',
    summary: 'change one setting, at once',
    examples: ['dezent config set copies.min 3'],
  }).action(async (key: string, value: string, _options: object, self: Command) => {
    const cli = cliOf(self);
    const changed = await set(cli, key, value);
    cli.report(changed, () => `${changed.key} is now ${valueText(changed.value)}.`);
  });
}

function valueText(value: unknown): string {
  return safeText(typeof value === 'string' ? value : JSON.stringify(value));
}

async function get(cli: Cli, key?: string): Promise<unknown> {
  const request = key === undefined ? {} : { key };
  return orFromFile(
    cli,
    () => cli.client.call('configGet', request),
    async (file) => file.show(key),
  );
}

async function set(cli: Cli, key: string, value: string): Promise<{ key: string; value: unknown }> {
  return orFromFile(
    cli,
    () => cli.client.call('configSet', { key, value }),
    (file) => file.set(key, value),
  );
}

type ConfigFile = import('../node/home/config.ts').Config;

async function orFromFile<T>(cli: Cli, ask: () => Promise<T>, read: (file: ConfigFile) => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (!isDezentError(error, 'NOT_RUNNING') || !isInitialised(cli.home)) throw error;
    const { openConfig } = await import('../node/home/config.ts');
    return await read(openConfig(cli.home));
  }
}
