// demo: the whole product on this machine in a minute (demo.ts).
import type { Command } from 'commander';
import { cliOf, declare } from './command.ts';

export function defineDemo(program: Command): void {
  declare(program, {
    usage: 'demo',
    summary: 'see it work: three nodes on this machine keep, free and bring back sample files',
    examples: ['dezent demo', 'dezent demo --json'],
  }).action(async (_options: object, self: Command) => {
    const cli = cliOf(self);
    const { runDemo } = await import('./demo.ts');
    const value = await runDemo(cli);
    cli.answer(value, () => '');
    if (!value.identical) process.exitCode = 1;
  });
}
