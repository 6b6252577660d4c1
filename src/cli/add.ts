// add (upload): store files now and wait until they have their copies.
import type { Command } from 'commander';
import type { AddedFile } from '../node/control/control-api.ts';
import { PROGRESS_OPTION, absolute, cliOf, declare } from './command.ts';
import { parseDuration } from './duration.ts';
import { countText, safeText, sizeText, tableText } from './text.ts';

interface AddOptions {
  wait: boolean;
  timeout?: number;
}

export function defineAdd(program: Command): void {
  declare(program, {
    usage: 'add <path...>',
    alias: 'upload',
    summary: 'store files or folders now and wait until enough peers keep them',
    examples: [
      'dezent add report.pdf photos/',
      'dezent add --no-wait big.iso',
      'dezent add --timeout 10m -- -odd-name.txt',
    ],
  })
    .option('--no-wait', 'return as soon as the work is queued')
    .option('--timeout <duration>', 'stop waiting after this time (exit code 4; the work goes on)', parseDuration)
    .option(...PROGRESS_OPTION)
    .action(async (paths: string[], { wait, timeout }: AddOptions, self: Command) => {
      const cli = cliOf(self);
      const request = { paths: absolute(paths), wait, ...(timeout === undefined ? {} : { timeoutMs: timeout }) };
      const added = await cli.long('add', request);
      cli.report(added, () => addedText(added));
    });
}

/** A line for each of a few files; more are summed up. */
const MAX_LISTED = 20;

function addedText(added: readonly AddedFile[]): string {
  const sum = (pick: (file: AddedFile) => number): number => added.reduce((total, file) => total + pick(file), 0);
  const fewest = added.reduce((least, { copies }) => Math.min(least, copies), Number.POSITIVE_INFINITY);
  const total = `${countText(added.length, 'file')}, ${sizeText(sum((file) => file.sizeBytes))} (${sizeText(sum((file) => file.newBytes))} new)`;
  if (added.length === 0) return 'Nothing to store.';
  const rows = added.map(({ path, sizeBytes, copies, state }) => [
    state,
    countText(copies, 'copy'),
    sizeText(sizeBytes),
    safeText(path),
  ]);
  const listed = added.length <= MAX_LISTED ? `${tableText(rows, [2])}\n` : '';
  return `${listed}${total}, at least ${countText(fewest, 'copy')} of each.`;
}
