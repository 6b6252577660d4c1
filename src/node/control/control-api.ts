// What the command line may ask of a running node and the exact answers, which are the `--json` values of docs/cli.md.
// Only types and the place of the socket: the command line imports this file, so it loads nothing but node:*.
import { createHash } from 'node:crypto';
import { openSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { tmpdir } from 'node:os';

/** `working` → `waiting` (fewer than min copies) → `protected` → `stubbed` → `restored`; `failed`: ask `why`. */
export type FileState = 'working' | 'waiting' | 'protected' | 'stubbed' | 'restored' | 'failed';

export type Direction = 'upload' | 'download';

/** How far long work has come. `phase` is one word ("store", "protect", "fetch", "check"). Sent at most a few times a second. */
export interface Progress {
  phase: string;
  path?: string;
  doneBytes: number;
  totalBytes: number;
  doneFiles?: number;
  totalFiles?: number;
  rateBytesPerS: number;
  leftMs?: number;
}

/** What happens in the node, for `run --json` and GET /v1/events. Paths are relative to FOLDER. */
export type NodeEvent =
  | { event: 'file'; path: string; state: FileState; reason?: string }
  | {
      event: 'transfer';
      id: string;
      path: string;
      direction: Direction;
      doneBytes: number;
      totalBytes: number;
      peer: string | null;
    }
  | { event: 'peer'; deviceId: string; name: string; connected: boolean }
  | { event: 'warning'; text: string };

/** What every command is given besides its request. `signal` fires when the asking client has gone. */
export interface CallContext {
  signal: AbortSignal;
  progress(progress: Progress): void;
}

// Requests. Paths in them are absolute; the node maps them into FOLDER (OUTSIDE_FOLDER) and knows stubs by either name.

/** `timeoutMs` absent: no limit. `wait` false: return once the content is queued. */
export interface AddRequest {
  paths: string[];
  wait: boolean;
  timeoutMs?: number;
}
export interface FreeRequest {
  paths: string[];
}
export interface OpenRequest {
  path: string;
}
/** Without `to`: in place. `all`: also what is not a stub now. `at`: ISO 8601. `version`: as `versions` numbers them. */
export interface RestoreRequest {
  paths: string[];
  all: boolean;
  to?: string;
  at?: string;
  version?: number;
}
/** `dir` absent: all of FOLDER. `find`: part of a name, any case. */
export interface LsRequest {
  dir?: string;
  find?: string;
}
export interface PathRequest {
  path: string;
}
export interface InviteRequest {
  vault: boolean;
  uses: number;
  ttlMs: number;
}
export interface VerifyRequest {
  path?: string;
  remote: boolean;
}
export interface ConfigGetRequest {
  key?: string;
}
export interface ConfigSetRequest {
  key: string;
  value: unknown;
}

// Answers.

export interface TransferValue {
  id: string;
  path: string;
  direction: Direction;
  doneBytes: number;
  totalBytes: number;
  rateBytesPerS: number;
  peer: string | null;
}

export interface StatusValue {
  deviceId: string;
  ownerId: string;
  groupId: string;
  folder: string;
  port: number;
  uptimeMs: number;
  peers: { connected: number; known: number };
  files: { total: number } & Record<FileState, number>;
  store: { usedBytes: number; quotaBytes: number };
  heldForOthersBytes: number;
  freedBytes: number;
  transfers: TransferValue[];
  warnings: string[];
}

/** `copies` counts as the glossary says; `newBytes` is what had to be stored for it. */
export interface AddedFile {
  path: string;
  fileId: string;
  root: string;
  sizeBytes: number;
  newBytes: number;
  copies: number;
  state: FileState;
}

export interface FreedFile {
  path: string;
  stub: string;
  freedBytes: number;
  copies: number;
}

/** `from`: the devices whose bytes were used; empty when all were here. */
export interface OpenedFile {
  path: string;
  sizeBytes: number;
  tookMs: number;
  from: string[];
}

export interface RestoredFile {
  path: string;
  sizeBytes: number;
  root: string;
}

/** `root` is null where there is no content of its own (folders, links). */
export interface ListedFile {
  path: string;
  fileId: string;
  kind: 'file' | 'folder' | 'link';
  sizeBytes: number;
  state: FileState;
  root: string | null;
  copies: number;
  modifiedAt: string;
}

/** For a folder: the fewest copies of anything in it, everybody who holds any of it, and how many copies are missing to the target in all. */
export interface WhereisValue {
  path: string;
  copies: number;
  holders: { deviceId: string; name: string; provedAt: string | null }[];
  missing: number;
}

export interface WhyValue {
  path: string;
  state: FileState;
  reason: string;
  nextAt: string | null;
}

/** `owner` is null for a vault. */
export interface PeerValue {
  deviceId: string;
  name: string;
  owner: string | null;
  machine: string;
  role: 'device' | 'vault';
  addrs: string[];
  connected: boolean;
  lastSeenAt: string | null;
}

export interface InviteValue {
  invite: string;
  uses: number;
  expiresAt: string;
}

export interface VerifyValue {
  checkedBlocks: number;
  badBlocks: number;
  repaired: number;
}

/**
 * A running node as the control server sees it. Every method may throw a DezentError, which reaches the command line as it is.
 * `stop` and the log are not here: `run` stops the node, and the log is a file.
 */
export interface NodeApi {
  status(request: Record<string, never>, context: CallContext): Promise<StatusValue>;
  add(request: AddRequest, context: CallContext): Promise<AddedFile[]>;
  free(request: FreeRequest, context: CallContext): Promise<FreedFile[]>;
  open(request: OpenRequest, context: CallContext): Promise<OpenedFile>;
  restore(request: RestoreRequest, context: CallContext): Promise<RestoredFile[]>;
  ls(request: LsRequest, context: CallContext): Promise<ListedFile[]>;
  whereis(request: PathRequest, context: CallContext): Promise<WhereisValue>;
  why(request: PathRequest, context: CallContext): Promise<WhyValue>;
  peers(request: Record<string, never>, context: CallContext): Promise<PeerValue[]>;
  invite(request: InviteRequest, context: CallContext): Promise<InviteValue>;
  verify(request: VerifyRequest, context: CallContext): Promise<VerifyValue>;
  /** The value of one setting, or `{key: value}` of all. */
  configGet(request: ConfigGetRequest, context: CallContext): Promise<unknown>;
  configSet(request: ConfigSetRequest, context: CallContext): Promise<{ key: string; value: unknown }>;
  /** Ends when the signal fires. A slow reader loses the oldest events; it never holds the node up. */
  events(signal: AbortSignal): AsyncIterable<NodeEvent>;
}

/** What `init` is given; paths are absolute. `phrase` with `invite` or `peers`: the next device of that owner. `machine`: instead of the system's identity. */
export interface InitOptions {
  home: string;
  folder: string;
  port: number;
  listen: string[];
  name?: string;
  machine?: string;
  invite?: string;
  phrase?: string;
  peers: string[];
  copiesMin: number;
  copiesTarget: number;
}

/** `phrase` only for a new owner, only here. */
export interface InitValue {
  deviceId: string;
  ownerId: string;
  groupId: string;
  folder: string;
  port: number;
  phrase?: string;
}

/** The name of a command in `POST /v1/<command>`. */
export type CommandName = Exclude<keyof NodeApi, 'events'>;

/** One line of an answer: any number of `progress`, then `result` or `error`. */
export type AnswerLine =
  | ({ event: 'progress' } & Progress)
  | { event: 'result'; value: unknown }
  | { event: 'error'; error: { code: string; message: string; hint: string } };

/** Socket addresses end at 108 bytes on Linux and 104 on macOS (sun_path, unix(7)); the rest is for a temporary name. */
const MAX_SOCKET_PATH_BYTES = 100;

const homeDescriptors = new Map<string, number>();

/**
 * Where the node of this home listens for commands: HOME/control.sock. A home with too long a path is reached through an open descriptor of it
 * on Linux (so the socket stays inside the home, whatever the environment), else through the temporary directory.
 * Throws ENOENT where the home is missing and had to be opened.
 */
export function controlSocketPath(home: string): string {
  const direct = join(resolve(home), 'control.sock');
  const hash = createHash('sha256').update(resolve(home)).digest('hex').slice(0, 24);
  if (process.platform === 'win32') return `\\\\.\\pipe\\dezent-${hash}`;
  if (Buffer.byteLength(direct) <= MAX_SOCKET_PATH_BYTES) return direct;
  if (process.platform !== 'linux') return join(tmpdir(), `dezent-${hash}`, 'control.sock');
  const descriptor = homeDescriptors.get(direct) ?? openSync(resolve(home), 'r');
  homeDescriptors.set(direct, descriptor);
  return `/proc/self/fd/${descriptor}/control.sock`;
}
