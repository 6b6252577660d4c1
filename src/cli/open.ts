// open: regenerate the original of a stub in place, and on request open it in its application.
import { spawn } from 'node:child_process';
import { basename, dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { DezentError } from '../errors.ts';
import type { OpenedFile } from '../node/control/control-api.ts';
import { PROGRESS_OPTION, cliOf, declare } from './command.ts';
import { countText, safeText, sizeText, spanText } from './text.ts';

interface OpenOptions {
  launch?: boolean;
}

export function defineOpen(program: Command): void {
  declare(program, {
    usage: 'open <stub>',
    summary: 'bring the original of a stub back, in place',
    examples: ['dezent open report.pdf.f', 'dezent open --launch report.pdf.f'],
  })
    .option('--launch', 'then open it in its application')
    .option(...PROGRESS_OPTION)
    .action(async (stub: string, { launch = false }: OpenOptions, self: Command) => {
      const cli = cliOf(self);
      const opened = await cli.long('open', { path: resolve(stub) });
      if (launch) await launchFile(join(dirname(resolve(stub)), basename(opened.path)));
      cli.report(opened, () => openedText(opened));
    });
}

function openedText({ path, sizeBytes, tookMs, from }: OpenedFile): string {
  const source = from.length === 0 ? 'from this device' : `from ${countText(from.length, 'device')}`;
  return `${safeText(path)}: ${sizeText(sizeBytes)} ${source} in ${spanText(tookMs)}.`;
}

/** The system's opener, given the path as one argument and never through a shell. */
async function launchFile(path: string): Promise<void> {
  const openers: Partial<Record<NodeJS.Platform, string>> = { darwin: 'open', win32: 'explorer.exe' };
  const opener = openers[process.platform] ?? 'xdg-open';
  const { promise, resolve: started, reject } = Promise.withResolvers<void>();
  const child = spawn(opener, [path], { stdio: 'ignore', detached: true });
  child.once('spawn', started);
  child.once('error', (error) =>
    reject(
      new DezentError('IO', `the file is there, but ${opener} cannot be started: ${error.message}`, {
        hint: `Open it yourself: ${path}`,
        cause: error,
      }),
    ),
  );
  await promise;
  child.unref();
}
