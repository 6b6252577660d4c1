// The node's log: JSON lines to HOME/log/dezent.log and to stderr (readable text where stderr is a terminal), without secrets (redact.ts).
// Records of transfers carry `direction` ("upload" | "download"), `path`, `peer` and `bytes`, which is what `dezent logs` filters by.
import { pino } from 'pino';
import prettyModule from 'pino-pretty';
import { openLogFile } from './log-file.ts';
import { redact, redactText } from './redact.ts';

export type LogFields = Record<string, unknown>;

/** Fields first, then one plain sentence. Errors go in as `{ error }`. */
export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

export interface OpenLog extends Log {
  /** Waits until the file has everything; for the moments before the process ends. */
  flush(): void;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

export interface LogSettings {
  level: LogLevel;
  /** Where the readable or JSON copy goes; process.stderr in `run`. */
  stderr: LogReader;
}

/** What of a writable stream is used here. */
export interface LogReader {
  readonly isTTY?: boolean;
  readonly writableLength: number;
  write(text: string): boolean;
}

/** A reader of stderr that does not read loses lines; the file has them. */
const MAX_WAITING_BYTES = 1024 * 1024;

/** A log that forgets everything, for tests and tools. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };

export function openLog(home: string, { level, stderr }: LogSettings): OpenLog {
  const toReader = readerOf(stderr);
  const file = openLogFile(home, (error) =>
    toReader(`${JSON.stringify({ level: 'error', msg: `the log cannot be written: ${error.message}` })}\n`),
  );
  const both = {
    write(line: string) {
      file.write(line);
      toReader(line);
    },
  };
  const logger = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }), log: redact },
    },
    both,
  );
  const at =
    (name: LogLevel) =>
    (fields: LogFields, message: string): void =>
      logger[name](fields, redactText(message));
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error'), flush: () => file.flush() };
}

function readerOf(stderr: LogReader): (line: string) => void {
  const readable = prettyModule.prettyFactory({
    colorize: process.env['NO_COLOR'] === undefined,
    translateTime: 'SYS:HH:MM:ss',
    singleLine: true,
    errorLikeObjectKeys: ['error'],
  });
  const render = stderr.isTTY === true ? readable : (line: string): string => line;
  return (line) => {
    if (stderr.writableLength <= MAX_WAITING_BYTES) stderr.write(render(line));
  };
}
