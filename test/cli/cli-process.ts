// Runs the real command line as a child process; for tests.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { NodeApi } from '../../src/node/control/control-api.ts';
import { openControlServer } from '../../src/node/control/control-server.ts';

export const MAIN: string = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface CliOptions {
  cwd?: string;
  env?: Record<string, string>;
}

export function spawnCli(line: readonly string[], { cwd, env = {} }: CliOptions = {}): ChildProcess {
  const { DEZENT_HOME: _home, ...rest } = process.env;
  return spawn(process.execPath, [MAIN, ...line], { cwd, env: { ...rest, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
}

export async function runCli(line: readonly string[], options: CliOptions = {}): Promise<Ended> {
  const child = spawnCli(line, options);
  if (child.stdout === null || child.stderr === null) throw new Error('no pipes');
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  return { code, stdout, stderr };
}

export function newDir(context: TestContext, name = 'cli'): string {
  const dir = mkdtempSync(join(tmpdir(), `dezent-${name}-`));
  context.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

/** A node made of the given methods, behind the real control server; the rest is never asked. */
export async function serveFake(
  context: TestContext,
  home: string,
  methods: Partial<NodeApi>,
  stop: () => void = () => undefined,
): Promise<void> {
  const api = new Proxy(methods, {
    get: (target, name: keyof NodeApi) => target[name] ?? (() => Promise.reject(new Error(`not asked: ${name}`))),
  }) as NodeApi;
  const server = await openControlServer({ api, stop, onFault: () => undefined }, { home });
  context.after(() => server[Symbol.asyncDispose]());
}
