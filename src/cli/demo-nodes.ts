// The demo's nodes: each a real `dezent run` in a process of its own, driven through the command line as a user would.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DezentError, ERROR_CODES, type ErrorCode } from '../errors.ts';
import type { Progress } from '../node/control/control-api.ts';
import { entryFile } from './service-install.ts';

export interface DemoNode {
  readonly name: string;
  readonly home: string;
  readonly folder: string;
  readonly deviceId: string;
  readonly pid: number;
  /** Runs one command against this node and returns its `--json` value; throws what it failed with. */
  ask(line: readonly string[], onProgress?: (progress: Progress) => void): Promise<unknown>;
}

export interface DemoGround {
  makeNode(name: string, invite?: string): Promise<DemoNode>;
  /** Ends every process that is left; for the end, good or bad. */
  end(): Promise<void>;
  /** The same without waiting, for a process that is about to exit. */
  kill(): void;
}

/** Start of a node takes a second; a machine under load some more. */
const READY_LIMIT_MS = 60_000;
const STOP_LIMIT_MS = 10_000;
/** What is kept of a node's log, to show when it fails. */
const MAX_KEPT_CHARS = 4000;

interface RunningChild {
  child: ChildProcess;
  tail(): string;
}

export function openDemoGround(top: string, signal: AbortSignal): DemoGround {
  const children = new Set<ChildProcess>();

  const start = (line: readonly string[]): RunningChild => {
    signal.throwIfAborted();
    const { DEZENT_HOME: _home, ...env } = process.env;
    const child = spawn(process.execPath, [entryFile(), ...line], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    children.add(child);
    child.once('close', () => children.delete(child));
    let kept = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      kept = (kept + text).slice(-MAX_KEPT_CHARS);
    });
    return { child, tail: () => kept };
  };

  const ask = async (line: readonly string[], onProgress?: (progress: Progress) => void): Promise<unknown> => {
    const { child, tail } = start([
      ...line.slice(0, 1),
      '--json',
      ...(onProgress === undefined ? [] : ['--progress']),
      ...line.slice(1),
    ]);
    const closed = once(child, 'close') as Promise<[number | null]>;
    let last: unknown;
    for await (const text of linesOf(child)) {
      last = JSON.parse(text);
      if (onProgress !== undefined && isEvent(last, 'progress')) onProgress(last as unknown as Progress);
    }
    const [code] = await closed;
    signal.throwIfAborted();
    if (code === 0) return onProgress !== undefined && isEvent(last, 'result') ? last.value : last;
    throw failureOf(line, last, tail());
  };

  const run = async (name: string, home: string): Promise<number> => {
    const { child, tail } = start(['run', '--json', '--home', home]);
    const limit = AbortSignal.any([signal, AbortSignal.timeout(READY_LIMIT_MS)]);
    const ready = Promise.withResolvers<void>();
    limit.addEventListener(
      'abort',
      () => ready.reject(new DezentError('TIMEOUT', `node ${name} does not come up:\n${tail()}`)),
      { once: true },
    );
    child.once('close', (code: number | null) =>
      ready.reject(new DezentError('INTERNAL', `node ${name} ended with code ${code}:\n${tail()}`)),
    );
    void forEachLine(child, (text) => {
      if (isEvent(JSON.parse(text), 'ready')) ready.resolve();
    });
    await ready.promise;
    return child.pid ?? 0;
  };

  return {
    async makeNode(name, invite) {
      const [home, folder] = [join(top, name, 'home'), join(top, name, 'files')];
      await mkdir(folder, { recursive: true });
      const place = [
        '--home',
        home,
        '--port',
        String(await freePort()),
        '--listen',
        '127.0.0.1',
        '--machine',
        `demo-${name}`,
        '--name',
        name,
      ];
      const made = (await ask(['init', folder, ...place, ...(invite === undefined ? [] : ['--invite', invite])])) as {
        deviceId: string;
      };
      const pid = await run(name, home);
      return {
        name,
        home,
        folder,
        deviceId: made.deviceId,
        pid,
        ask: (line, onProgress) => ask([...line.slice(0, 1), '--home', home, ...line.slice(1)], onProgress),
      };
    },
    async end() {
      const ends = [...children].map((child) => once(child, 'close'));
      for (const child of children) child.kill('SIGTERM');
      const late = setTimeout(() => children.forEach((child) => child.kill('SIGKILL')), STOP_LIMIT_MS);
      await Promise.all(ends);
      clearTimeout(late);
    },
    kill() {
      for (const child of children) child.kill('SIGKILL');
    },
  };
}

function linesOf(child: ChildProcess): AsyncIterable<string> {
  if (child.stdout === null) throw new TypeError('the child has no pipe');
  return createInterface({ input: child.stdout, crlfDelay: Infinity });
}

async function forEachLine(child: ChildProcess, take: (line: string) => void): Promise<void> {
  for await (const line of linesOf(child)) take(line);
}

function isEvent(value: unknown, event: string): value is { event: string; value?: unknown } {
  return typeof value === 'object' && value !== null && 'event' in value && value.event === event;
}

function failureOf(line: readonly string[], last: unknown, tail: string): DezentError {
  const error = (last as { error?: { code: string; message: string; hint: string } } | undefined)?.error;
  const command = `dezent ${line[0]}`;
  if (error === undefined) return new DezentError('INTERNAL', `${command} failed: ${tail}`);
  const code = Object.hasOwn(ERROR_CODES, error.code) ? (error.code as ErrorCode) : 'INTERNAL';
  return new DezentError(code, `${command}: ${error.message}`, { hint: error.hint });
}

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
