// restore: regenerate files or whole trees, in place or elsewhere, as they are or were.
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { DezentError } from '../errors.ts';
import type { RestoreRequest } from '../node/control/control-api.ts';
import { PROGRESS_OPTION, absolute, cliOf, declare } from './command.ts';
import { whole } from './numbers.ts';
import { countText, sizeText } from './text.ts';

interface RestoreOptions {
  all?: boolean;
  to?: string;
  at?: string;
  version?: number;
}

const VERSIONS = { name: '--version', least: 1, most: 1_000_000_000 };

export function defineRestore(program: Command): void {
  declare(program, {
    usage: 'restore [path...]',
    summary: 'bring files or folders back',
    examples: [
      'dezent restore photos/',
      'dezent restore --all --to /mnt/disk/everything',
      'dezent restore report.pdf --at 2026-01-31',
    ],
  })
    .option('--all', 'everything, also what is not a stub now')
    .option('--to <dir>', 'write below this directory, laid out as in the folder')
    .option('--at <time>', 'as it was at this time (ISO 8601)', parseTime)
    .option('--version <n>', 'this version (see `dezent versions`)', whole(VERSIONS))
    .option(...PROGRESS_OPTION)
    .action(async (paths: string[], options: RestoreOptions, self: Command) => {
      const cli = cliOf(self);
      const restored = await cli.long('restore', requestOf(paths, options));
      const bytes = restored.reduce((total, file) => total + file.sizeBytes, 0);
      cli.report(restored, () => `${countText(restored.length, 'file')} restored, ${sizeText(bytes)}.`);
    });
}

function requestOf(paths: string[], { all = false, to, at, version }: RestoreOptions): RestoreRequest {
  if (paths.length === 0 && !all) throw new DezentError('USAGE', 'restore needs a path, or --all');
  if (paths.length > 0 && all) throw new DezentError('USAGE', 'restore takes paths or --all, not both');
  return {
    paths: absolute(paths),
    all,
    ...(to === undefined ? {} : { to: resolve(to) }),
    ...(at === undefined ? {} : { at }),
    ...(version === undefined ? {} : { version }),
  };
}

function parseTime(text: string): string {
  const time = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(time)) {
    throw new DezentError('USAGE', `not a time: ${JSON.stringify(text)}`, {
      hint: 'Use a form like 2026-01-31 or 2026-01-31T18:00:00Z.',
    });
  }
  return new Date(time).toISOString();
}
