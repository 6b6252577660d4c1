// The command line: parses, runs one command, turns whatever it throws into words and an exit code.
import { readFileSync } from 'node:fs';
import { CommanderError, type Command } from 'commander';
import { DezentError, asDezentError } from '../errors.ts';
import { endQuietlyOnClosedReader, printError, wantsColor, type OutputSettings } from './output.ts';

const VERSION_FLAGS = new Set(['--version', '-V']);

/** Runs the words of a command line (without program and script) and returns the exit code. */
export async function runLine(line: string[]): Promise<number> {
  endQuietlyOnClosedReader();
  if (VERSION_FLAGS.has(line[0] ?? '')) return printVersion();
  const { buildProgram } = await import('./program.ts');
  const program = buildProgram();
  try {
    if (operandsOf(line).length === 0 && !line.includes('--help') && !line.includes('-h')) throw noCommand(program);
    await program.parseAsync(line, { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0; // help was asked for and printed
    return printError(error instanceof CommanderError ? usageError(error) : asDezentError(error), settingsOf(line));
  }
}

function printVersion(): number {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  process.stdout.write(`${version}\n`);
  return 0;
}

/** What is not an option: a line without any asks for nothing. (`--home DIR` takes its value along.) */
function operandsOf(line: readonly string[]): string[] {
  return line.filter((word, index) => !word.startsWith('-') && line[index - 1] !== '--home');
}

function noCommand(program: Command): DezentError {
  const names = program.commands.map((command) => command.name()).join(', ');
  return new DezentError('USAGE', 'no command given', { hint: `One of: ${names}. See dezent --help.` });
}

/** "error: unknown option '--x'" → our words; the hint names the help of the command, or the suggestion that was found. */
function usageError(error: CommanderError): DezentError {
  const [message = '', suggestion] = error.message.replace(/^error: /, '').split('\n');
  return new DezentError(
    'USAGE',
    message,
    suggestion === undefined ? {} : { hint: suggestion.replace(/^\(|\)$/g, '') },
  );
}

/** The line may not have been parsed to its end, so its words are looked at. */
function settingsOf(line: readonly string[]): Pick<OutputSettings, 'json' | 'color'> {
  const options = line.slice(0, line.includes('--') ? line.indexOf('--') : line.length);
  return {
    json: options.includes('--json'),
    color: wantsColor(process.stderr, !options.includes('--no-color')),
  };
}
