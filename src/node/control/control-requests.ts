// Schemas of what may be asked over the control socket: strict (a misspelt field is an error), with caps, checked before the node sees it.
import { isAbsolute } from 'node:path';
import * as v from 'valibot';
import type { CommandName, NodeApi } from './control-api.ts';

/** PATH_MAX of Linux; longer ones cannot name a file. */
const MAX_PATH_BYTES = 4096;
/** A shell line holds about this many arguments (ARG_MAX 2 MiB of short names). */
const MAX_PATHS = 100_000;
const MAX_KEY_CHARS = 200;
/** A year: an invite or wait beyond that is a slip of the unit. */
const MAX_SPAN_MS = 366 * 86_400_000;
const MAX_INVITE_USES = 1000;

const path = v.pipe(
  v.string(),
  v.minLength(1),
  v.check((text) => Buffer.byteLength(text) <= MAX_PATH_BYTES, 'longer than a path can be'),
  v.check((text) => isAbsolute(text) && !text.includes('\0'), 'not an absolute path'),
);
const paths = v.pipe(v.array(path), v.maxLength(MAX_PATHS));
const somePaths = v.pipe(paths, v.minLength(1));
const spanMs = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(MAX_SPAN_MS));
const key = v.pipe(v.string(), v.minLength(1), v.maxLength(MAX_KEY_CHARS));
const nothing = v.strictObject({});
const onePath = v.strictObject({ path });

type Request<C extends CommandName> = Parameters<NodeApi[C]>[0];

export const REQUEST_SCHEMAS: { readonly [C in CommandName]: v.GenericSchema<unknown, Request<C>> } = {
  status: nothing,
  add: v.strictObject({ paths: somePaths, wait: v.boolean(), timeoutMs: v.exactOptional(spanMs) }),
  free: v.strictObject({ paths: somePaths }),
  open: onePath,
  restore: v.strictObject({
    paths,
    all: v.boolean(),
    to: v.exactOptional(path),
    at: v.exactOptional(v.pipe(v.string(), v.isoTimestamp())),
    version: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(1))),
  }),
  ls: v.strictObject({
    dir: v.exactOptional(path),
    find: v.exactOptional(v.pipe(v.string(), v.maxLength(MAX_PATH_BYTES))),
  }),
  whereis: onePath,
  why: onePath,
  peers: nothing,
  invite: v.strictObject({
    vault: v.boolean(),
    uses: v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(MAX_INVITE_USES)),
    ttlMs: spanMs,
  }),
  verify: v.strictObject({ path: v.exactOptional(path), remote: v.boolean() }),
  configGet: v.strictObject({ key: v.exactOptional(key) }),
  configSet: v.strictObject({ key, value: v.unknown() }),
};

export function isCommandName(text: string): text is CommandName {
  return Object.hasOwn(REQUEST_SCHEMAS, text);
}
