// whereis: who holds a file. why: the state it is in, the reason, and what happens next.
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { WhereisValue, WhyValue } from '../node/control/control-api.ts';
import { cliOf, declare } from './command.ts';
import { agoText, countText, safeText, tableText } from './text.ts';

export function defineWhereis(program: Command): void {
  declare(program, {
    usage: 'whereis <path>',
    summary: 'who holds a file or folder',
    examples: ['dezent whereis report.pdf'],
  }).action(async (path: string, _options: object, self: Command) => {
    const cli = cliOf(self);
    const place = await cli.client.call('whereis', { path: resolve(path) });
    cli.answer(place, () => whereisText(place));
  });
}

export function defineWhy(program: Command): void {
  declare(program, {
    usage: 'why <path>',
    summary: 'the state of a file, the reason, and what happens next',
    examples: ['dezent why report.pdf'],
  }).action(async (path: string, _options: object, self: Command) => {
    const cli = cliOf(self);
    const why = await cli.client.call('why', { path: resolve(path) });
    cli.answer(why, () => whyText(why));
  });
}

function whereisText({ path, copies, holders, missing }: WhereisValue): string {
  const rows = holders.map(({ deviceId, name, provedAt }) => [
    `  ${safeText(name)}`,
    deviceId,
    `proved ${agoText(provedAt)}`,
  ]);
  const lacking = missing > 0 ? `, ${missing} missing` : '';
  return [
    `${safeText(path)}: ${countText(copies, 'copy')}${lacking}.`,
    ...(rows.length > 0 ? [tableText(rows)] : []),
  ].join('\n');
}

function whyText({ path, state, reason, nextAt }: WhyValue): string {
  const next = nextAt === null ? '' : `\nNext: ${new Date(nextAt).toLocaleString()}`;
  return `${safeText(path)} is ${state}: ${safeText(reason)}${next}`;
}
