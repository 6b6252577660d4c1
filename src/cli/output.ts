// What reaches stdout and stderr: one JSON value on one line with --json, plain text else; errors in both forms.
// A reader of stdout that went away ends the command quietly.
import { ERROR_CODES, isDezentError, type DezentError } from '../errors.ts';
import { systemCode } from '../errors.ts';
import { safeText } from './text.ts';

export interface OutputSettings {
  json: boolean;
  quiet: boolean;
  /** --progress: with --json, every line is an event and the answer is the last one. */
  progress: boolean;
  color: boolean;
}

export interface Output {
  readonly settings: OutputSettings;
  /** The answer of a command: the value with --json, else its text. */
  answer(value: unknown, text: () => string): void;
  /** The report of an action: like `answer`, but silent with --quiet. */
  report(value: unknown, text: () => string): void;
  /** One JSON event on a line of its own (only with --json). */
  event(event: unknown): void;
}

export function openOutput(settings: OutputSettings): Output {
  const print = (text: string): void => {
    if (text !== '') process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
  };
  const printValue = (value: unknown): void =>
    print(JSON.stringify(settings.progress ? { event: 'result', value } : value));
  return {
    settings,
    answer: (value, text) => (settings.json ? printValue(value) : print(text())),
    report(value, text) {
      if (settings.json) printValue(value);
      else if (!settings.quiet) print(text());
    },
    event(event) {
      if (settings.json) print(JSON.stringify(event));
    },
  };
}

/** Prints the error in the form asked for and returns the exit code. */
export function printError(error: DezentError, { json, color }: Pick<OutputSettings, 'json' | 'color'>): number {
  const { code, message, hint } = error;
  if (json) {
    process.stdout.write(`${JSON.stringify({ error: { code, message, hint } })}\n`);
  } else {
    const [red, plain] = color ? ['\u{1b}[31m', '\u{1b}[0m'] : ['', ''];
    process.stderr.write(`${red}dezent: ${safeText(message)}${plain}\n${hint === '' ? '' : `  ${safeText(hint)}\n`}`);
    if (isDezentError(error, 'INTERNAL') && error.stack !== undefined && process.env['DEZENT_DEBUG'] !== undefined) {
      process.stderr.write(`${error.stack}\n`);
    }
  }
  return ERROR_CODES[code].exit;
}

/** Colours: on a terminal that has them, unless --no-color or NO_COLOR says otherwise (no-color.org). */
export function wantsColor(stream: { isTTY?: boolean }, option: boolean): boolean {
  return option && stream.isTTY === true && (process.env['NO_COLOR'] ?? '') === '' && process.env['TERM'] !== 'dumb';
}

/** `head` and `less` close early: that is the end of the work, not a failure. Other errors of stdout are real. */
export function endQuietlyOnClosedReader(): void {
  process.stdout.on('error', (error) => {
    if (systemCode(error) === 'EPIPE') process.exit(process.exitCode ?? 0);
    throw error;
  });
  process.stderr.on('error', (error) => {
    if (systemCode(error) !== 'EPIPE') throw error;
  });
}
