// The control API behind the command line: HTTP on a Unix socket that only this user may open.
// `POST /v1/<command>` answers with JSON lines (AnswerLine), `GET /v1/events` with one event a line for as long as somebody reads.
import { chmod, mkdir, unlink } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { getRequestListener, type HttpBindings } from '@hono/node-server';
import { Hono, type Context } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import * as v from 'valibot';
import { DezentError, asDezentError, systemCode } from '../../errors.ts';
import { controlSocketPath, type AnswerLine, type CallContext, type CommandName, type NodeApi } from './control-api.ts';
import { REQUEST_SCHEMAS, isCommandName } from './control-requests.ts';
import { openLineStream, type LineStream } from './line-stream.ts';

/** 100,000 paths of 80 bytes. */
const MAX_REQUEST_BYTES = 8 * 1024 * 1024;
/** Each waits for one command; more at once is a runaway script. */
const MAX_CLIENTS = 256;

export interface ControlServer extends AsyncDisposable {
  readonly path: string;
}

export interface ControlNeeds {
  api: NodeApi;
  /** Called once, after `POST /v1/stop` was answered. Ends the process; the asking client sees it by its connection closing. */
  stop(): void;
  /** Told of failures that are faults (INTERNAL), not refusals. */
  onFault(error: DezentError, command: string): void;
}

type Env = { Bindings: HttpBindings };

/**
 * Listens at the control socket of the home. A socket that a dead node left is replaced; a live one throws ALREADY_RUNNING.
 * (Two starts at the same moment are told apart by the lock of the state database, which is taken before.)
 */
export async function openControlServer(needs: ControlNeeds, settings: { home: string }): Promise<ControlServer> {
  const path = controlSocketPath(settings.home);
  await refuseIfRunning(settings.home);
  await clearStale(path);
  const held = new Set<Socket>();
  const calls = new AbortController();
  const listener = getRequestListener(controlApp(needs, calls.signal, held).fetch, { overrideGlobalObjects: false });
  const server = createServer((request, response) => void listener(request, response));
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  server.maxConnections = MAX_CLIENTS;
  await listen(server, path);
  return {
    path,
    async [Symbol.asyncDispose]() {
      calls.abort();
      const closed = Promise.withResolvers<void>();
      server.close(() => closed.resolve());
      server.closeIdleConnections();
      for (const socket of sockets) if (!held.has(socket)) socket.destroySoon();
      if (held.size === 0) await closed.promise;
    },
  };
}

/** Throws ALREADY_RUNNING when a node answers at the control socket of this home. */
export async function refuseIfRunning(home: string): Promise<void> {
  const path = controlSocketPath(home);
  if (!(await isAnswering(path))) return;
  throw new DezentError('ALREADY_RUNNING', `a node is already running for ${home}`);
}

async function isAnswering(path: string): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const socket = connect(path);
  socket.once('connect', () => resolve(true));
  socket.once('error', (error) => {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ECONNREFUSED') resolve(false);
    else reject(new DezentError('IO', `cannot look at the control socket ${path}: ${error.message}`, { cause: error }));
  });
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}

async function clearStale(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  try {
    await unlink(path);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
  }
}

/** Node binds a path synchronously inside `listen`, so the umask makes the socket 0600 from its first moment. */
async function listen(server: Server, path: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  const before = process.umask(0o177);
  try {
    server.listen(path, resolve);
  } finally {
    process.umask(before);
  }
  await promise;
  server.off('error', reject);
  if (process.platform !== 'win32') await chmod(path, 0o600);
}

function controlApp(needs: ControlNeeds, closing: AbortSignal, held: Set<Socket>): Hono<Env> {
  const app = new Hono<Env>();
  app.use(bodyLimit({ maxSize: MAX_REQUEST_BYTES, onError: (c) => refuse(c, 'the request is too large') }));
  app.post('/v1/stop', (c) => {
    held.add(c.env.incoming.socket); // stays open until the process ends: that is how the client knows
    const lines = openLineStream(() => undefined);
    lines.push(resultLine({ ok: true, pid: process.pid }));
    setImmediate(needs.stop);
    return c.body(lines.stream);
  });
  app.post('/v1/:command', async (c) => {
    const command = c.req.param('command');
    if (!isCommandName(command)) return refuse(c, `no command is called ${JSON.stringify(command.slice(0, 80))}`);
    const parsed = v.safeParse(REQUEST_SCHEMAS[command], parseJson(await c.req.text()));
    if (!parsed.success) return refuse(c, `${command}: ${v.summarize(parsed.issues).slice(0, 500)}`);
    return answer(c, closing, (lines, signal) => runCommand({ needs, command, request: parsed.output }, lines, signal));
  });
  app.get('/v1/events', (c) =>
    answer(c, closing, async (lines, signal) => {
      for await (const event of needs.api.events(signal)) lines.push(event);
    }),
  );
  app.notFound((c) => refuse(c, 'no such request'));
  return app;
}

/** Streams what `work` writes; its signal fires when the reader has gone or the server closes. */
function answer(
  c: Context<Env>,
  closing: AbortSignal,
  work: (lines: LineStream, signal: AbortSignal) => Promise<void>,
): Response {
  const gone = new AbortController();
  const lines = openLineStream(() => gone.abort());
  const signal = AbortSignal.any([gone.signal, closing]);
  work(lines, signal)
    .catch((error: unknown) => lines.push(errorLine(asDezentError(error))))
    .finally(() => lines.end());
  return c.body(lines.stream, 200, { 'content-type': 'application/x-ndjson' });
}

interface Asked {
  needs: ControlNeeds;
  command: CommandName;
  request: unknown;
}

async function runCommand({ needs, command, request }: Asked, lines: LineStream, signal: AbortSignal): Promise<void> {
  const context: CallContext = {
    signal,
    progress: (progress) => lines.push({ event: 'progress', ...progress }, { latest: true }),
  };
  // The schema table pairs each command with its request type; TypeScript cannot follow the pairing through the variable.
  const method = needs.api[command] as (request: unknown, context: CallContext) => Promise<unknown>;
  try {
    lines.push(resultLine(await method(request, context)));
  } catch (error) {
    const known = asDezentError(error);
    if (known.code === 'INTERNAL') needs.onFault(known, command);
    lines.push(errorLine(known));
  }
}

function parseJson(text: string): unknown {
  if (text === '') return {};
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined; // the schema refuses it with the rest
    throw error;
  }
}

function resultLine(value: unknown): AnswerLine {
  return { event: 'result', value };
}

function errorLine({ code, message, hint }: DezentError): AnswerLine {
  return { event: 'error', error: { code, message, hint } };
}

function refuse(c: Context, message: string): Response {
  return c.body(`${JSON.stringify(errorLine(new DezentError('USAGE', message)))}\n`, 400);
}
