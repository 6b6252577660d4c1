// Keeps secrets out of the log, whoever logs and whatever the field is called around them:
// by the name of the field, by the shape of the text, and no raw bytes at all (keys are bytes).

/** Fields whose value is a secret or leads to one. */
const SECRET_NAME: RegExp =
  /phrase|seed|secret|password|mnemonic|entropy|invite|privatekey|token|^keys?$|boxkey|guestkey/i;
/** An invite in running text (protocol/invite.ts). */
const INVITE_TEXT: RegExp = /dezent-invite-[0-9]+-[a-z0-9]+/gi;
/** Twelve or more short lower-case words in a row are a recovery phrase, not a message. */
const PHRASE_TEXT: RegExp = /\b(?:[a-z]{3,8} ){11,}[a-z]{3,8}\b/g;
const CENSORED = '[secret]';
/** Deeper values are not worth a line of a log. */
const MAX_DEPTH = 6;
/** A list of a whole folder would fill the log. */
const MAX_LISTED = 100;

/** A copy of the fields of one record that holds no secret, no bytes and no cycles; errors become {name, code, message, stack, cause}. */
export function redact(fields: Record<string, unknown>): Record<string, unknown> {
  return redactObject(fields, 0);
}

export function redactText(text: string): string {
  return text.replace(INVITE_TEXT, CENSORED).replace(PHRASE_TEXT, CENSORED);
}

function redactValue(value: unknown, depth: number): unknown {
  if (typeof value === 'string') return redactText(value);
  if (typeof value === 'bigint') return String(value);
  if (typeof value !== 'object' || value === null) return value;
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (value instanceof Date) return value.toISOString();
  if (depth >= MAX_DEPTH) return '[…]';
  if (value instanceof Error) return redactError(value, depth);
  if (Array.isArray(value)) return value.slice(0, MAX_LISTED).map((item) => redactValue(item, depth + 1));
  if (value instanceof Map || value instanceof Set) return `[${value.size} entries]`;
  return redactObject(value as Record<string, unknown>, depth + 1);
}

function redactObject(fields: Record<string, unknown>, depth: number): Record<string, unknown> {
  const safe = ([name, value]: [string, unknown]): [string, unknown] => [
    name,
    SECRET_NAME.test(name) && typeof value !== 'number' && typeof value !== 'boolean'
      ? CENSORED
      : redactValue(value, depth),
  ];
  return Object.fromEntries(Object.entries(fields).map(safe));
}

function redactError(error: Error, depth: number): Record<string, unknown> {
  return {
    name: error.name,
    ...('code' in error ? { code: error.code } : {}),
    message: redactText(error.message),
    ...(error.stack === undefined ? {} : { stack: redactText(error.stack) }),
    ...(error.cause === undefined ? {} : { cause: redactValue(error.cause, depth + 1) }),
  };
}
