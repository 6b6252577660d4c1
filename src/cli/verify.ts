// verify: hash local blocks again, or sample what holders keep.
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { VerifyValue } from '../node/control/control-api.ts';
import { PROGRESS_OPTION, cliOf, declare } from './command.ts';
import { countText } from './text.ts';

interface VerifyOptions {
  remote?: boolean;
}

export function defineVerify(program: Command): void {
  declare(program, {
    usage: 'verify [path]',
    summary: 'hash local blocks again, or ask holders for proof',
    examples: ['dezent verify', 'dezent verify --remote photos/'],
  })
    .option('--remote', 'prove the copies that others keep')
    .option(...PROGRESS_OPTION)
    .action(async (path: string | undefined, { remote = false }: VerifyOptions, self: Command) => {
      const cli = cliOf(self);
      const checked = await cli.long('verify', { remote, ...(path === undefined ? {} : { path: resolve(path) }) });
      cli.answer(checked, () => verifiedText(checked));
    });
}

function verifiedText({ checkedBlocks, badBlocks, repaired }: VerifyValue): string {
  const outcome = badBlocks === 0 ? 'all are good' : `${badBlocks} bad, ${repaired} repaired`;
  return `${countText(checkedBlocks, 'block')} checked: ${outcome}.`;
}
