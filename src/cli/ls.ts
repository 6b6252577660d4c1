// ls (list): the tree, stubs and files alike.
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { ListedFile } from '../node/control/control-api.ts';
import { cliOf, declare } from './command.ts';
import { countText, safeText, sizeText, tableText } from './text.ts';

export function defineLs(program: Command): void {
  declare(program, {
    usage: 'ls [dir]',
    alias: 'list',
    summary: 'list what is stored, stubs and files alike',
    examples: ['dezent ls', 'dezent ls photos --find beach'],
  })
    .option('--find <text>', 'only names with this text in them, in any case')
    .action(async (dir: string | undefined, { find }: { find?: string }, self: Command) => {
      const cli = cliOf(self);
      const request = { ...(dir === undefined ? {} : { dir: resolve(dir) }), ...(find === undefined ? {} : { find }) };
      const listed = await cli.client.call('ls', request);
      cli.answer(listed, () => listedText(listed));
    });
}

function listedText(listed: readonly ListedFile[]): string {
  if (listed.length === 0) return 'Nothing here.';
  const rows = listed.map(({ kind, state, copies, sizeBytes, modifiedAt, path }) => [
    kind === 'file' ? state : kind,
    kind === 'file' ? countText(copies, 'copy') : '',
    kind === 'file' ? sizeText(sizeBytes) : '',
    modifiedAt.slice(0, 16).replace('T', ' '),
    safeText(path),
  ]);
  return tableText(rows, [2]);
}
