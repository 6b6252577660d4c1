// stop: ends the node and returns when its process has ended.
import type { Command } from 'commander';
import { cliOf, declare } from './command.ts';

export function defineStop(program: Command): void {
  declare(program, {
    usage: 'stop',
    summary: 'stop the node; returns when it has ended',
    examples: ['dezent stop'],
  }).action(async (_options: object, self: Command) => {
    const cli = cliOf(self);
    await cli.client.stop();
    cli.report({ ok: true }, () => 'The node has stopped.');
  });
}
