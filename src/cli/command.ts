// What all commands share: how one is declared (summary, example, options) and what its action is given.
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { CommandName } from '../node/control/control-api.ts';
import { openControlClient, type Answer, type ControlClient, type Request } from './control-client.ts';
import { chooseHome } from './home.ts';
import { openOutput, wantsColor, type Output, type OutputSettings } from './output.ts';
import { openProgressView } from './progress-line.ts';

export interface Cli extends Output {
  readonly home: string;
  readonly client: ControlClient;
  /** Calls the node and shows its progress meanwhile. */
  long<C extends LongCommand>(command: C, request: Request<C>): Promise<Answer<C>>;
}

type LongCommand = Extract<CommandName, 'add' | 'free' | 'open' | 'restore' | 'verify'>;

export interface Declaration {
  /** Name and arguments in commander's notation. */
  usage: string;
  summary: string;
  /** Command lines; the first is what most people need. */
  examples: readonly string[];
  alias?: string;
}

/** 128 + SIGINT, as shells count. */
const INTERRUPTED_EXIT = 130;

interface GlobalOptions {
  home?: string;
  json?: boolean;
  quiet?: boolean;
  progress?: boolean;
  color: boolean;
}

/** Adds a command with its help. */
export function declare(program: Command, { usage, summary, examples, alias }: Declaration): Command {
  const command = program
    .command(usage)
    .summary(summary)
    .description(`${summary[0]?.toUpperCase()}${summary.slice(1)}.`);
  if (alias !== undefined) command.alias(alias);
  const lines = examples.map((line) => `  $ ${line}`).join('\n');
  return command.addHelpText('after', `\nExample${examples.length === 1 ? '' : 's'}:\n${lines}`);
}

export function outputSettingsOf(command: Command): OutputSettings {
  const { json = false, quiet = false, color, progress = false } = command.optsWithGlobals<GlobalOptions>();
  return { json, quiet, progress, color: wantsColor(process.stderr, color) };
}

export function homeOf(command: Command): string {
  return chooseHome({ option: command.optsWithGlobals<GlobalOptions>().home, env: process.env });
}

/** What the action of a command works with. */
export function cliOf(command: Command): Cli {
  const output = openOutput(outputSettingsOf(command));
  const home = homeOf(command);
  const client = openControlClient(home);
  return {
    ...output,
    home,
    client,
    async long(name, request) {
      const view = openProgressView(output);
      const leave = (): void => {
        view.end();
        process.exit(INTERRUPTED_EXIT); // closing the connection tells the node to give the call up
      };
      process.once('SIGINT', leave);
      try {
        return await client.call(name, request, { onProgress: view.show });
      } finally {
        process.off('SIGINT', leave);
        view.end();
      }
    },
  };
}

/** Paths as typed, relative to the working directory, made absolute for the node. */
export function absolute(paths: readonly string[]): string[] {
  return paths.map((path) => resolve(path));
}

/** For options that repeat, one value each. */
export function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

export const PROGRESS_OPTION = [
  '--progress',
  'show progress also without a terminal; with --json, one event a line',
] as const;
