// The command line as a whole: every command, the global options, and how wrong usage is told.
import { Command } from 'commander';
import { defineAdd } from './add.ts';
import { defineConfig } from './config.ts';
import { defineDemo } from './demo-command.ts';
import { defineFree } from './free.ts';
import { defineInit } from './init.ts';
import { defineLogs } from './logs.ts';
import { defineLs } from './ls.ts';
import { defineOpen } from './open.ts';
import { defineInvite, definePeers } from './peers.ts';
import { defineRestore } from './restore.ts';
import { defineRun } from './run.ts';
import { defineService } from './service.ts';
import { defineStatus } from './status.ts';
import { defineStop } from './stop.ts';
import { defineVerify } from './verify.ts';
import { defineWhereis, defineWhy } from './whereis.ts';

const COMMANDS = [
  defineDemo,
  defineInit,
  defineRun,
  defineStop,
  defineStatus,
  defineAdd,
  defineFree,
  defineOpen,
  defineRestore,
  defineLs,
  defineWhereis,
  defineWhy,
  definePeers,
  defineInvite,
  defineVerify,
  defineConfig,
  defineLogs,
  defineService,
];

const EXIT_CODES = `
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused because it would not be safe,
4 not found or not reachable now, 5 no node is running.

Examples:
  $ dezent demo                 see it work, on this machine alone
  $ dezent init ~/files         make this device
  $ dezent run                  run the node
  $ dezent add report.pdf       keep it at the peers
  $ dezent open report.pdf.f    bring it back`;

/** The parser; wrong usage throws a CommanderError and prints nothing itself. */
export function buildProgram(): Command {
  const program = new Command('dezent');
  program
    .description('A peer-to-peer storage node: peers keep your files, encrypted; a small stub gives each one back.')
    .option(
      '--home <dir>',
      "keys, store, config and control socket (or DEZENT_HOME; default: the installed service's, else the user's data directory)",
    )
    .option('--json', 'one JSON value on one line of stdout, and nothing else')
    .option('--quiet', 'say only what was asked for')
    .option('--no-color', 'no colours (or NO_COLOR)')
    .addHelpText('after', EXIT_CODES)
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    .configureOutput({ writeErr: () => undefined, outputError: () => undefined })
    .helpCommand(true)
    .showSuggestionAfterError(true);
  for (const define of COMMANDS) define(program);
  return program;
}
