// Real nodes for tests: each a `./dezent run` in a process group of its own, with its own home, folder, port and machine identity on 127.0.0.1.
// Commands go through the command line; waiting asks the control socket, because starting a process for each look would be the main load.
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { openControlClient, type Answer, type Request } from '../../src/cli/control-client.ts';
import { isDezentError } from '../../src/errors.ts';
import type { CommandName, FileState, InitValue, ListedFile, StatusValue } from '../../src/node/control/control-api.ts';
import type { Settings } from '../../src/node/home/settings.ts';

export interface CliResult {
  /** null: ended by a signal. */
  code: number | null;
  stdout: string;
  stderr: string;
  /** What stdout says; undefined when it is empty. */
  json: unknown;
}

export interface RealNode extends InitValue {
  readonly name: string;
  readonly home: string;
  /** An absolute path in the folder. */
  path(...parts: string[]): string;
  /** `./dezent --home … --json LINE`, run in the folder. */
  cli(...line: string[]): Promise<CliResult>;
  /** The same where anything but exit 0 is a failure of the test; gives the value. */
  must<T>(...line: string[]): Promise<T>;
  /** Asks the control socket without a process; throws DezentError as the node gave it. */
  ask<C extends CommandName>(command: C, request: Request<C>): Promise<Answer<C>>;
  status(): Promise<StatusValue>;
  ls(): Promise<ListedFile[]>;
  /** Starts it and returns when it is ready. */
  run(): Promise<void>;
  /** `dezent stop`; the process has ended when this returns. */
  stop(): Promise<void>;
  /** SIGKILL to its whole process group; nothing of it runs any more when this returns. */
  kill(): Promise<void>;
  isRunning(): boolean;
  /** What the node has logged in its home. */
  log(): string;
}

export interface NodeOptions {
  settings?: Partial<Settings>;
  invite?: string;
  /** More for `init`, such as `--copies-min 0`. */
  init?: string[];
  /** Default: the node's name. Nodes with equal machines count as one. */
  machine?: string;
  /** Default true: it is running when it is given back. */
  run?: boolean;
}

export interface RealNodes {
  /** The directory of all of them, removed at the end. */
  readonly top: string;
  make(name: string, options?: NodeOptions): Promise<RealNode>;
  /** A first node and as many as are named besides, let in by it; all of them are connected with each other. */
  makeGroup(names: readonly string[], options?: NodeOptions): Promise<RealNode[]>;
}

const LAUNCHER: string = fileURLToPath(new URL('../../dezent', import.meta.url));
/** A node starts within 10 s; a machine that runs other tests takes longer. */
const READY_LIMIT_MS = 60_000;
const WAIT_LIMIT_MS = 60_000;
const POLL_MS = 50;
/** What is kept of stderr to show when something fails. */
const MAX_KEPT_CHARS = 8000;

/** Below the range that systems take outgoing ports from: the port of a stopped node is still free when it starts again. */
const FIRST_PORT = 10_000;
const LAST_PORT = 32_000;

/** Values that make a node act soon, for tests that are not about waiting. */
export const QUICK: Partial<Settings> = { 'watch.settleMs': 100, 'pipeline.workers': 1 };

/** Polls until the condition holds (or gives a value); fails naming what was waited for and the last error. */
export async function until<T>(
  what: string,
  condition: () => Promise<T | false | undefined> | T | false | undefined,
  limitMs: number = WAIT_LIMIT_MS,
): Promise<T> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const value = await condition();
    if (value !== false && value !== undefined) return value;
    if (performance.now() > deadline) assert.fail(`waited ${limitMs} ms in vain: ${what}`);
    await pause(POLL_MS);
  }
}

/** Each of these nodes has so many peers; by default all the others of them. */
export async function untilConnected(nodes: readonly RealNode[], peers: number = nodes.length - 1): Promise<void> {
  for (const node of nodes) {
    const isDone = async (): Promise<boolean> => (await node.status()).peers.connected >= peers;
    await until(`${node.name} to be connected with ${peers} peers`, isDone);
  }
}

/** Waits until each of these files (by path in the folder) has this state; fails with what `why` says of one that has not. */
export async function untilState(
  node: RealNode,
  paths: readonly string[],
  state: FileState,
  limitMs: number = WAIT_LIMIT_MS,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const states = new Map((await node.ls()).map((item) => [item.path, item.state]));
    const late = paths.filter((path) => states.get(path) !== state);
    const [first] = late;
    if (first === undefined) return;
    if (performance.now() > deadline) {
      const why = await node.cli('why', node.path(first));
      assert.fail(`${late.length} of ${paths.length} files are not ${state}; ${first}: ${why.stdout}`);
    }
    await pause(POLL_MS);
  }
}

/** Everything it starts ends with the test, passed or failed. */
export function openRealNodes(context: TestContext): RealNodes {
  const top = mkdtempSync(join(tmpdir(), 'dezent-real-'));
  const children = new Set<ChildProcess>();
  endWithProcess();
  context.after(async () => {
    const ends = [...children].map(hasEnded);
    children.forEach(killGroup);
    await Promise.all(ends);
    rmSync(top, { recursive: true, force: true, maxRetries: 5 });
  });

  const make = async (name: string, options: NodeOptions = {}): Promise<RealNode> => {
    const node = await initNode(join(top, name), name, options, children);
    if (options.run !== false) await node.run();
    return node;
  };

  return {
    top,
    make,
    async makeGroup(names, options = {}) {
      const [first = 'ada', ...others] = names;
      const founder = await make(first, options);
      const nodes = [founder];
      if (others.length > 0) {
        const { invite } = await founder.ask('invite', { vault: false, uses: others.length, ttlMs: 3_600_000 });
        for (const name of others) nodes.push(await make(name, { ...options, invite }));
      }
      await untilConnected(nodes);
      return nodes;
    },
  };
}

async function initNode(
  top: string,
  name: string,
  { settings = {}, invite, init = [], machine = name }: NodeOptions,
  children: Set<ChildProcess>,
): Promise<RealNode> {
  const home = join(top, 'home');
  const folder = join(top, 'files');
  await mkdir(folder, { recursive: true });
  const place = ['--port', String(await freePort()), '--listen', '127.0.0.1', '--machine', machine, '--name', name];
  const line = ['init', folder, ...place, ...(invite === undefined ? [] : ['--invite', invite]), ...init];
  const made = valueOf(line, await runCommand(home, folder, line)) as InitValue;
  const configFile = join(home, 'config.json');
  const config = JSON.parse(await readFile(configFile, 'utf8')) as object;
  await writeFile(configFile, JSON.stringify({ ...config, ...settings }));
  return nodeOf({ ...made, name, home }, children);
}

function nodeOf(made: InitValue & { name: string; home: string }, children: Set<ChildProcess>): RealNode {
  const { home, folder, name } = made;
  const client = openControlClient(home);
  let child: ChildProcess | undefined;
  const cli = (...line: string[]): Promise<CliResult> => runCommand(home, folder, line);

  const node: RealNode = {
    ...made,
    path: (...parts) => join(folder, ...parts),
    cli,
    must: async <T>(...line: string[]) => valueOf(line, await cli(...line)) as T,
    ask: (command, request) => client.call(command, request),
    status: () => client.call('status', {}),
    ls: () => client.call('ls', {}),
    async run() {
      const started = spawnLauncher(home, folder, ['run'], true);
      child = started;
      children.add(started);
      running.add(started);
      started.once('close', () => {
        children.delete(started);
        running.delete(started);
        if (child === started) child = undefined;
      });
      await isReady(name, started);
    },
    async stop() {
      const ended = child && hasEnded(child);
      const { code, stdout } = await cli('stop');
      assert.equal(code, 0, `stop of ${name}: ${stdout}`);
      await ended;
    },
    async kill() {
      if (child === undefined) return;
      const ended = hasEnded(child);
      killGroup(child);
      await ended;
    },
    isRunning: () => child !== undefined,
    log: () => readFileSync(join(home, 'log', 'dezent.log'), 'utf8'),
  };
  return node;
}

/** `detached`: leads a process group of its own. */
function spawnLauncher(home: string, cwd: string, line: readonly string[], detached: boolean): ChildProcess {
  const { DEZENT_HOME: _home, ...env } = process.env;
  const [command = '', ...rest] = line;
  return spawn(LAUNCHER, [command, '--home', home, '--json', ...rest], {
    cwd,
    env,
    detached,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

async function runCommand(home: string, cwd: string, line: readonly string[]): Promise<CliResult> {
  const child = spawnLauncher(home, cwd, line, false);
  if (child.stdout === null || child.stderr === null) throw new Error('no pipes');
  const ended = once(child, 'close') as Promise<[number | null]>;
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  return { code, stdout, stderr, json: stdout.trim() === '' ? undefined : JSON.parse(stdout) };
}

function valueOf(line: readonly string[], { code, stdout, stderr, json }: CliResult): unknown {
  assert.equal(code, 0, `dezent ${line.join(' ')} ended with ${code}: ${stdout}${stderr}`);
  return json;
}

async function isReady(name: string, child: ChildProcess): Promise<void> {
  if (child.stdout === null || child.stderr === null) throw new Error('no pipes');
  let kept = '';
  const keep = (chunk: string): void => void (kept = (kept + chunk).slice(-MAX_KEPT_CHARS));
  child.stderr.setEncoding('utf8').on('data', keep);
  const ready = Promise.withResolvers<void>();
  const fail = (what: string) => (): void => ready.reject(new Error(`${name} ${what}:\n${kept}`));
  const timer = setTimeout(fail(`is not ready after ${READY_LIMIT_MS} ms`), READY_LIMIT_MS);
  child.once('close', fail('ended before it was ready'));
  createInterface({ input: child.stdout }).on('line', (line) => {
    keep(`${line}\n`);
    if ((JSON.parse(line) as { event?: string }).event === 'ready') ready.resolve();
  });
  try {
    await ready.promise;
  } finally {
    clearTimeout(timer);
  }
}

const running = new Set<ChildProcess>();

/** Process groups of their own outlive this process unless they are ended, also when the runner ends it early. */
function endWithProcess(): void {
  if (process.listeners('exit').includes(killRunning)) return;
  process.on('exit', killRunning);
  for (const [name, number] of [
    ['SIGINT', 2],
    ['SIGTERM', 15],
  ] as const)
    process.once(name, () => process.exit(128 + number));
}

const killRunning = (): void => running.forEach(killGroup);

function hasEnded(child: ChildProcess): Promise<unknown> {
  return child.exitCode !== null || child.signalCode !== null ? Promise.resolve() : once(child, 'close');
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

export async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT));
    const server = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!isFree) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}

/** True while the node of this home answers. */
export async function answers(node: RealNode): Promise<boolean> {
  try {
    await node.status();
    return true;
  } catch (error) {
    if (isDezentError(error, 'NOT_RUNNING')) return false;
    throw error;
  }
}
