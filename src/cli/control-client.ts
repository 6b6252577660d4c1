// The command line's end of the control socket: one HTTP request a command, answered by JSON lines.
// Loads nothing but node:* so that a command starts fast.
import { readFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { DezentError, ERROR_CODES, systemCode, type ErrorCode } from '../errors.ts';
import {
  controlSocketPath,
  type AnswerLine,
  type CommandName,
  type NodeApi,
  type NodeEvent,
  type Progress,
} from '../node/control/control-api.ts';

export type Request<C extends CommandName> = Parameters<NodeApi[C]>[0];
export type Answer<C extends CommandName> = NodeApi[C] extends (...given: never[]) => Promise<infer A> ? A : never;

export interface CallOptions {
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}

export interface ControlClient {
  /** Throws what the node threw, or NOT_RUNNING where there is none. Aborting tells the node to give up the call. */
  call<C extends CommandName>(command: C, request: Request<C>, options?: CallOptions): Promise<Answer<C>>;
  events(signal?: AbortSignal): AsyncIterable<NodeEvent>;
  /** Asks the node to stop and returns when its process has ended. */
  stop(): Promise<void>;
}

const ENDED_POLL_MS = 5;
/** From the closing of its connections to the end of a process there are only microseconds; a stopped (SIGSTOP) one would take for ever. */
const ENDED_LIMIT_MS = 10_000;

export function openControlClient(home: string): ControlClient {
  return {
    async call<C extends CommandName>(
      command: C,
      request: Request<C>,
      { signal, onProgress }: CallOptions = {},
    ): Promise<Answer<C>> {
      const response = await post(home, `/v1/${command}`, { body: JSON.stringify(request), signal });
      for await (const line of linesOf(home, response)) {
        const answer = line as AnswerLine;
        if (answer.event === 'result') return answer.value as Answer<C>;
        if (answer.event === 'error') throw errorOf(answer.error);
        if (onProgress !== undefined) onProgress(withoutEvent(answer));
      }
      throw nodeEnded(home);
    },
    async *events(signal) {
      const response = await post(home, '/v1/events', { method: 'GET', signal });
      for await (const line of linesOf(home, response)) yield line as NodeEvent;
    },
    async stop() {
      const response = await post(home, '/v1/stop', { body: '{}' });
      let pid: number | undefined;
      try {
        for await (const line of linesOf(home, response)) pid = (line as { value: { pid: number } }).value.pid;
      } catch (error) {
        if (pid === undefined) throw error; // else: the connection broke because the process ended
      }
      if (pid !== undefined) await ended(pid);
    },
  };
}

interface Posted {
  method?: 'GET' | 'POST';
  body?: string;
  signal?: AbortSignal | undefined;
}

async function post(home: string, path: string, { method = 'POST', body, signal }: Posted): Promise<IncomingMessage> {
  const socketPath = socketPathOf(home);
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const headers = { host: 'localhost', ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }) };
  const options = { socketPath, path, method, headers, agent: false, ...(signal === undefined ? {} : { signal }) };
  const request = httpRequest(options, resolve);
  request.on('error', (error) => reject(connectError(home, error)));
  request.end(body);
  return promise;
}

function socketPathOf(home: string): string {
  try {
    return controlSocketPath(home);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') throw notRunning(home, error);
    throw error;
  }
}

async function* linesOf(home: string, response: IncomingMessage): AsyncIterable<unknown> {
  let pieces: string[] = [];
  response.setEncoding('utf8');
  try {
    for await (const chunk of response as AsyncIterable<string>) {
      const parts = chunk.split('\n');
      for (const part of parts.slice(0, -1)) {
        yield JSON.parse([...pieces, part].join(''));
        pieces = [];
      }
      pieces.push(parts.at(-1) ?? '');
    }
  } catch (error) {
    if (systemCode(error) === 'ECONNRESET') throw nodeEnded(home, error);
    throw error;
  }
}

function withoutEvent({ event: _event, ...progress }: { event: 'progress' } & Progress): Progress {
  return progress;
}

/** A code that this version does not know (from a newer node) becomes INTERNAL, its words stay. */
function errorOf({ code, message, hint }: { code: string; message: string; hint: string }): DezentError {
  return new DezentError(Object.hasOwn(ERROR_CODES, code) ? (code as ErrorCode) : 'INTERNAL', message, { hint });
}

function connectError(home: string, error: Error): Error {
  const code = systemCode(error) ?? '';
  if (['ENOENT', 'ECONNREFUSED', 'ENOTDIR'].includes(code)) return notRunning(home, error);
  if (code === 'ECONNRESET') return nodeEnded(home, error);
  if (code !== 'EACCES') return error;
  const hint = 'Run the command as the user who owns the folder.';
  return new DezentError('NOT_ALLOWED', `the node of ${home} belongs to another user`, { hint, cause: error });
}

function notRunning(home: string, cause: unknown): DezentError {
  return new DezentError('NOT_RUNNING', `no node is running for ${home}`, { cause });
}

function nodeEnded(home: string, cause?: unknown): DezentError {
  return new DezentError('NOT_RUNNING', `the node of ${home} ended before it answered`, { cause });
}

/** Its connections closed, so the process is at its end; waits for the rest. */
async function ended(pid: number): Promise<void> {
  const deadline = performance.now() + ENDED_LIMIT_MS;
  while (isAlive(pid)) {
    if (performance.now() > deadline)
      throw new DezentError('TIMEOUT', `the node (process ${pid}) has closed but does not end`);
    await pause(ENDED_POLL_MS);
  }
}

/** A process that ended but was not waited for by its parent (a zombie) counts as ended. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    if (process.platform !== 'linux') return true;
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return !'ZX'.includes(stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3));
  } catch (error) {
    if (systemCode(error) === 'ESRCH' || systemCode(error) === 'ENOENT') return false;
    throw error;
  }
}
