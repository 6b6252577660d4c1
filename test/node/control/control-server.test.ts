import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { request } from 'node:http';
import { spawn } from 'node:child_process';
import { test, type TestContext } from 'node:test';
import { openControlClient } from '../../../src/cli/control-client.ts';
import { DezentError } from '../../../src/errors.ts';
import { controlSocketPath, type NodeApi, type NodeEvent } from '../../../src/node/control/control-api.ts';
import { openControlServer, type ControlNeeds } from '../../../src/node/control/control-server.ts';

function newHome(context: TestContext, under = ''): string {
  const top = mkdtempSync(join(tmpdir(), 'dezent-control-'));
  context.after(() => rmSync(top, { recursive: true }));
  const home = join(top, under);
  mkdirSync(home, { recursive: true });
  return home;
}

function apiOf(methods: Partial<NodeApi>): NodeApi {
  return new Proxy(methods, {
    get: (target, name: keyof NodeApi) => target[name] ?? (() => Promise.reject(new Error(`not asked: ${name}`))),
  }) as NodeApi;
}

async function serve(
  context: TestContext,
  home: string,
  methods: Partial<NodeApi>,
  needs: Partial<ControlNeeds> = {},
): Promise<void> {
  const server = await openControlServer(
    { api: apiOf(methods), stop: () => assert.fail('not stopped'), onFault: () => assert.fail('no fault'), ...needs },
    { home },
  );
  context.after(() => server[Symbol.asyncDispose]());
}

test('a call brings the request, progress and the value across', async (t) => {
  const home = newHome(t);
  const asked: unknown[] = [];
  await serve(t, home, {
    async add(request, { progress }) {
      asked.push(request);
      progress({ phase: 'store', doneBytes: 1, totalBytes: 2, rateBytesPerS: 3 });
      await new Promise(setImmediate);
      return [];
    },
  });
  const seen: unknown[] = [];
  const value = await openControlClient(home).call(
    'add',
    { paths: ['/ö -x'], wait: true },
    { onProgress: (p) => seen.push(p) },
  );
  assert.deepEqual(value, []);
  assert.deepEqual(asked, [{ paths: ['/ö -x'], wait: true }]);
  assert.deepEqual(seen, [{ phase: 'store', doneBytes: 1, totalBytes: 2, rateBytesPerS: 3 }]);
});

test('a long answer arrives whole', async (t) => {
  const home = newHome(t);
  const addrs = Array.from({ length: 50_000 }, (_, index) => `/ip4/10.0.0.1/tcp/${index}/ä`);
  const peer = {
    deviceId: 'd',
    name: 'n',
    owner: null,
    machine: 'm',
    role: 'vault' as const,
    addrs,
    connected: true,
    lastSeenAt: null,
  };
  await serve(t, home, { peers: async () => [peer] });
  assert.deepEqual(await openControlClient(home).call('peers', {}), [peer]);
});

test('errors keep code, message and hint; faults are told', async (t) => {
  const home = newHome(t);
  const faults: string[] = [];
  await serve(
    t,
    home,
    {
      free: () => Promise.reject(new DezentError('UNSAFE', 'one copy is missing', { hint: 'start laptop' })),
      status: () => Promise.reject(new TypeError('oops')),
    },
    { onFault: (error, command) => faults.push(`${command}: ${error.message}`) },
  );
  const client = openControlClient(home);
  await assert.rejects(client.call('free', { paths: ['/x'] }), {
    code: 'UNSAFE',
    message: 'one copy is missing',
    hint: 'start laptop',
  });
  await assert.rejects(client.call('status', {}), { code: 'INTERNAL', message: 'oops' });
  assert.deepEqual(faults, ['status: oops']);
});

test('requests that are not as agreed are refused before the node sees them', async (t) => {
  const home = newHome(t);
  await serve(t, home, {});
  const client = openControlClient(home);
  const bad: [string, unknown][] = [
    ['free', { paths: [] }],
    ['free', { paths: ['relative'] }],
    ['free', { paths: ['/a\0b'] }],
    ['free', { paths: [`/${'x'.repeat(4096)}`] }],
    ['free', { paths: ['/x'], force: true }],
    ['invite', { vault: false, uses: 0, ttlMs: 1 }],
    ['restore', { paths: [], all: true, at: 'yesterday' }],
    ['__proto__', {}],
    ['nonsense', {}],
    ['free', { paths: Array.from({ length: 3000 }, () => `/${'x'.repeat(4000)}`) }],
  ];
  for (const [command, body] of bad)
    await assert.rejects(client.call(command as 'free', body as never), { code: 'USAGE' });
});

test('the socket is for this user alone, replaced when stale, respected when live', async (t) => {
  const home = newHome(t);
  const child = spawn(process.execPath, [
    '-e',
    `require('net').createServer().listen(${JSON.stringify(join(home, 'control.sock'))}, () => process.kill(process.pid, 'SIGKILL'))`,
  ]);
  await once(child, 'exit');
  assert.ok(statSync(join(home, 'control.sock')).isSocket());
  await assert.rejects(openControlClient(home).call('status', {}), { code: 'NOT_RUNNING' });
  await serve(t, home, {});
  assert.equal(statSync(join(home, 'control.sock')).mode & 0o777, 0o600);
  await assert.rejects(
    openControlServer({ api: apiOf({}), stop: () => undefined, onFault: () => undefined }, { home }),
    { code: 'ALREADY_RUNNING' },
  );
});

test('a home with a path too long for a socket works too, from both sides', async (t) => {
  const home = newHome(t, join('x'.repeat(120), 'ä'.repeat(60)));
  await assert.rejects(openControlClient(home).call('status', {}), { code: 'NOT_RUNNING' });
  await serve(t, home, { peers: async () => [] });
  assert.notEqual(controlSocketPath(home), join(home, 'control.sock'));
  const script = `import('${new URL('../../../src/cli/control-client.ts', import.meta.url).href}').then(async (m) => console.log(JSON.stringify(await m.openControlClient(process.argv[1]).call('peers', {}))))`;
  const child = spawn(process.execPath, ['-e', script, home], { stdio: ['ignore', 'pipe', 'inherit'] });
  child.stdout.setEncoding('utf8');
  const [output] = (await once(child.stdout, 'data')) as [string];
  assert.equal(output, '[]\n');
});

test('without a home or node: NOT_RUNNING', async (t) => {
  const home = newHome(t);
  await assert.rejects(openControlClient(home).call('status', {}), { code: 'NOT_RUNNING' });
  await assert.rejects(openControlClient(join(home, 'none')).call('status', {}), { code: 'NOT_RUNNING' });
  await assert.rejects(openControlClient(join(home, 'z'.repeat(150))).call('status', {}), { code: 'NOT_RUNNING' });
});

test('a client that goes away aborts its call, one that aborts too', async (t) => {
  const home = newHome(t);
  const aborted: PromiseWithResolvers<void>[] = [Promise.withResolvers(), Promise.withResolvers()];
  const started: PromiseWithResolvers<void>[] = [Promise.withResolvers(), Promise.withResolvers()];
  let calls = 0;
  await serve(t, home, {
    add: (_, { signal }) => {
      const index = calls++;
      started[index]?.resolve();
      return new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          aborted[index]?.resolve();
          reject(signal.reason as Error);
        });
      });
    },
  });
  const body = JSON.stringify({ paths: ['/x'], wait: true });
  const raw = request({ socketPath: controlSocketPath(home), path: '/v1/add', method: 'POST' });
  raw.on('error', () => undefined);
  raw.end(body);
  await started[0]?.promise;
  raw.destroy();
  await aborted[0]?.promise;

  const leave = new AbortController();
  const call = openControlClient(home).call('add', { paths: ['/x'], wait: true }, { signal: leave.signal });
  await started[1]?.promise;
  leave.abort();
  await assert.rejects(call, { name: 'AbortError' });
  await aborted[1]?.promise;
});

test('a reader that does not read holds nobody up and costs bounded memory', async (t) => {
  const home = newHome(t);
  const produced = Promise.withResolvers<void>();
  await serve(t, home, {
    async *events(signal): AsyncGenerator<NodeEvent> {
      for (let index = 0; index < 20_000 && !signal.aborted; index += 1)
        yield { event: 'warning', text: `${index} ${'x'.repeat(1000)}` };
      produced.resolve();
    },
    peers: async () => [],
  });
  const socket = connect(controlSocketPath(home));
  socket.pause();
  socket.write('GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n');
  await produced.promise;
  assert.deepEqual(await openControlClient(home).call('peers', {}), []);
  socket.destroy();
});

test('events come one by one until the node closes', async (t) => {
  const home = newHome(t);
  await serve(t, home, {
    async *events(): AsyncGenerator<NodeEvent> {
      yield { event: 'file', path: 'a', state: 'protected' };
      yield { event: 'peer', deviceId: 'd', name: 'n', connected: true };
    },
  });
  const seen: string[] = [];
  for await (const event of openControlClient(home).events()) seen.push(event.event);
  assert.deepEqual(seen, ['file', 'peer']);
});

test('closing aborts the calls in flight and refuses new ones', async (t) => {
  const home = newHome(t);
  const started = Promise.withResolvers<void>();
  const server = await openControlServer(
    {
      api: apiOf({
        status: (_, { signal }) => {
          started.resolve();
          return new Promise((_resolve, reject) =>
            signal.addEventListener('abort', () => reject(new DezentError('CANCELLED', 'the node stops'))),
          );
        },
      }),
      stop: () => undefined,
      onFault: () => undefined,
    },
    { home },
  );
  const call = openControlClient(home).call('status', {});
  await started.promise;
  const outcome = assert.rejects(
    call,
    (error: unknown) => error instanceof DezentError && ['CANCELLED', 'NOT_RUNNING'].includes(error.code),
  );
  await server[Symbol.asyncDispose]();
  await outcome;
  await assert.rejects(openControlClient(home).call('status', {}), { code: 'NOT_RUNNING' });
});

test('something else on the other end is an error, not a missing node', async (t) => {
  const home = newHome(t);
  const other = createServer((socket) => socket.end('220 smtp\r\n')).listen(join(home, 'control.sock'));
  await once(other, 'listening');
  t.after(() => other.close());
  await assert.rejects(openControlClient(home).call('status', {}), (error: unknown) => error instanceof Error);
});
