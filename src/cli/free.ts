// free: put the stub in a file's place now and give its disk space back.
import type { Command } from 'commander';
import { PROGRESS_OPTION, absolute, cliOf, declare } from './command.ts';
import { countText, sizeText } from './text.ts';

export function defineFree(program: Command): void {
  declare(program, {
    usage: 'free <path...>',
    summary: 'give the disk space of files back now; refused (exit code 3) while that is not safe',
    examples: ['dezent free video.mp4', 'dezent free .'],
  })
    .option(...PROGRESS_OPTION)
    .action(async (paths: string[], _options: object, self: Command) => {
      const cli = cliOf(self);
      const freed = await cli.long('free', { paths: absolute(paths) });
      const bytes = freed.reduce((total, file) => total + file.freedBytes, 0);
      cli.report(freed, () => `${countText(freed.length, 'file')} freed, ${sizeText(bytes)} given back.`);
    });
}
