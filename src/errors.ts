// The one error class and the one table of codes: what each means, the exit code it gives the command line, what to do.
// docs/errors.md is made from this table (npm run docs:errors).

/** Exit codes of the command line (docs/cli.md): 1 failed, 2 wrong usage, 3 refused because unsafe, 4 absent or not reachable now, 5 no node. */
export const ERROR_CODES = {
  USAGE: { exit: 2, means: 'The command line or a request is not well formed.', todo: 'See --help of the command.' },
  CONFIG: {
    exit: 2,
    means: 'A setting or the config file is not valid.',
    todo: 'Mend the named setting; `dezent config` lists all of them.',
  },
  FOLDER: {
    exit: 2,
    means: 'The folder cannot be used.',
    todo: 'Name an existing, writable folder that neither holds nor lies in the home.',
  },
  OUTSIDE_FOLDER: {
    exit: 2,
    means: 'The path is outside the watched folder.',
    todo: 'Move or copy the file into the folder first.',
  },
  UNSAFE: {
    exit: 3,
    means: 'Refused: it could lose or expose data.',
    todo: 'The message names what is missing; `dezent why PATH` tells what happens next.',
  },
  NOT_ALLOWED: { exit: 3, means: 'This device has no right to do that.', todo: 'Ask one of the named devices.' },
  NOT_FOUND: {
    exit: 4,
    means: 'There is no such file, peer or entry.',
    todo: 'Check the name; `dezent ls` lists what is known.',
  },
  UNREACHABLE: {
    exit: 4,
    means: 'Nobody who has it can be reached now.',
    todo: 'Wait for one of the named devices, or start it, and try again.',
  },
  TIMEOUT: { exit: 4, means: 'It was not done in the given time; work goes on.', todo: 'Look at `dezent status`.' },
  INVITE: {
    exit: 4,
    means: 'The invite is unknown, used or has expired.',
    todo: 'Ask for a new one (`dezent invite`).',
  },
  NOT_RUNNING: { exit: 5, means: 'No node is running for this home.', todo: 'Start it: `dezent run`, or the service.' },
  ALREADY_RUNNING: {
    exit: 1,
    means: 'Another process uses this home.',
    todo: 'Stop it first (`dezent stop`), or use another --home.',
  },
  PORT_IN_USE: {
    exit: 1,
    means: 'The port is taken by another program.',
    todo: 'Choose another one: `dezent config set listen.port N`.',
  },
  KEYS: {
    exit: 1,
    means: 'A key file is missing, damaged or readable by others.',
    todo: 'Restore it, or set its mode to 0600 (directory 0700).',
  },
  BAD_PHRASE: { exit: 2, means: 'The recovery phrase is not valid.', todo: 'Type all 24 words as they were shown.' },
  BAD_BLOCK: {
    exit: 1,
    means: 'Bytes do not match the id or seal of a block.',
    todo: 'Nothing was used; another holder is tried. See `dezent status`.',
  },
  BAD_INDEX: {
    exit: 1,
    means: 'A table of a database on this machine is damaged.',
    todo: 'The index of blocks is rebuilt by itself; for HOME/state see docs/operating.md.',
  },
  BAD_MANIFEST: {
    exit: 1,
    means: 'A manifest or page cannot be decoded.',
    todo: 'Nothing was written; run `dezent verify`.',
  },
  BAD_STUB: {
    exit: 1,
    means: 'The stub is damaged or was edited.',
    todo: 'Run `dezent restore` on the path: the catalog has the intact one. The damaged stub is left to you.',
  },
  FOREIGN_STUB: {
    exit: 3,
    means: 'The stub belongs to another owner or group.',
    todo: 'Open it on a device of its owner.',
  },
  NEWER_VERSION: { exit: 1, means: 'Written by a newer version of dezent.', todo: 'Update dezent on this machine.' },
  BAD_RECORD: { exit: 1, means: 'A signed record is not valid.', todo: 'It was not taken over; nothing changed.' },
  BAD_FRAME: { exit: 1, means: 'A peer broke the protocol.', todo: 'The stream was closed; see the log for the peer.' },
  PEER_REFUSED: { exit: 3, means: 'A peer refused the request.', todo: 'The message gives its reason.' },
  DISK_FULL: {
    exit: 1,
    means: 'There is not enough free space.',
    todo: 'Free space on the named disk; work goes on by itself.',
  },
  BUSY: { exit: 1, means: 'Another program or task has the file open.', todo: 'It is tried again by itself.' },
  CHANGED: { exit: 1, means: 'The file changed while it was read.', todo: 'It is tried again by itself.' },
  NAME_TAKEN: {
    exit: 1,
    means: 'A different file has the name already.',
    todo: 'Move it away; nothing was overwritten.',
  },
  CANCELLED: { exit: 1, means: 'Cancelled.', todo: 'Start it again when you like; what was done is kept.' },
  IO: { exit: 1, means: 'The operating system reported an error.', todo: 'The message has its words.' },
  INTERNAL: { exit: 1, means: 'A fault in dezent.', todo: 'Please report it with the log.' },
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

/** Every error that dezent raises on purpose. `message` says what and which thing, `hint` what to do next. */
export class DezentError extends Error {
  readonly code: ErrorCode;
  readonly hint: string;

  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = 'DezentError';
    this.code = code;
    this.hint = options.hint ?? ERROR_CODES[code].todo;
  }
}

/** True for a DezentError, of the given code where one is named. */
export function isDezentError(error: unknown, code?: ErrorCode): error is DezentError {
  return error instanceof DezentError && (code === undefined || error.code === code);
}

/** The `code` of an operating system error ("ENOENT"), or undefined. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

const FULL_DISK_CODES = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);
/** `level` has the system's words, but not its code. */
const FULL_DISK_WORDS: RegExp = /no space left|quota exceeded/i;

/** Any thrown value as a DezentError: system errors become IO or DISK_FULL, aborts CANCELLED, all else INTERNAL; the cause is kept. */
export function asDezentError(error: unknown): DezentError {
  if (error instanceof DezentError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const code = systemCode(error);
  const isLevel = code?.startsWith('LEVEL_') === true;
  const isFull = isLevel ? FULL_DISK_WORDS.test(message) : FULL_DISK_CODES.has(code ?? '');
  if (isFull) return new DezentError('DISK_FULL', message, { cause: error });
  if (error instanceof Error && error.name === 'AbortError')
    return new DezentError('CANCELLED', message, { cause: error });
  if (isLevel || (error instanceof Error && 'syscall' in error))
    return new DezentError('IO', message, { cause: error });
  return new DezentError('INTERNAL', message, { cause: error });
}
