// run: the node in the foreground. Nothing that happens to stdout or stderr may hold it up or end it.
import type { Command } from 'commander';
import { DezentError, asDezentError, systemCode } from '../errors.ts';
import type { OpenLog } from '../node/home/log.ts';
import { cliOf, declare, type Cli } from './command.ts';
import { isInitialised } from './init.ts';
import { safeText } from './text.ts';

/** A reader of our events that does not read loses events beyond this. */
const MAX_WAITING_BYTES = 1024 * 1024;
/** Every state on disk survives a kill, so a stop that hangs may be ended. */
const STOP_LIMIT_MS = 30_000;

export function defineRun(program: Command): void {
  declare(program, {
    usage: 'run',
    summary: 'run the node in the foreground until it is stopped',
    examples: ['dezent run', 'dezent run --json'],
  }).action(async (_options: object, self: Command) => {
    const cli = cliOf(self);
    if (!isInitialised(cli.home)) {
      throw new DezentError('NOT_FOUND', `there is no device in ${cli.home}`, {
        hint: 'Make one first: dezent init FOLDER',
      });
    }
    surviveClosedReaders();
    await runNode(cli);
  });
}

async function runNode(cli: Cli): Promise<void> {
  const [{ openLog }, { openControlServer, refuseIfRunning }] = await Promise.all([
    import('../node/home/log.ts'),
    import('../node/control/control-server.ts'),
  ]);
  await refuseIfRunning(cli.home);
  const log = openLog(cli.home, { level: levelOf(cli), stderr: process.stderr });
  const stop = Promise.withResolvers<string>();
  logFaults(log);
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => stop.resolve(name));

  await using parts = new AsyncDisposableStack();
  const { startNode } = await import('../node/start-node.ts');
  const node = await startNode(cli.home, { log }).catch((error: unknown) => {
    log.error({ error }, 'the node cannot start');
    log.flush();
    throw error;
  });
  parts.defer(() => node.stop());
  const onFault = (error: DezentError, command: string): void =>
    log.error({ error, command }, 'a command failed by a fault');
  parts.use(await openControlServer({ api: node.api, stop: () => stop.resolve('stop'), onFault }, { home: cli.home }));
  sendEvent(cli, { event: 'ready', port: node.port, deviceId: node.deviceId });
  if (!cli.settings.json && !cli.settings.quiet) process.stdout.write(readyText(cli.home, node));
  const closing = new AbortController();
  parts.defer(() => closing.abort());
  if (cli.settings.json) void forwardEvents(cli, node.api.events(closing.signal), log);

  const reason = await stop.promise;
  log.info({ reason }, 'stopping');
  endAfter(STOP_LIMIT_MS, log);
  await parts.disposeAsync();
  log.info({}, 'stopped');
  log.flush();
  process.exit(0);
}

function levelOf({ settings }: Cli): 'debug' | 'info' | 'warn' {
  if ((process.env['DEZENT_DEBUG'] ?? '') !== '') return 'debug';
  return settings.quiet ? 'warn' : 'info';
}

function readyText(home: string, { port, deviceId }: { port: number; deviceId: string }): string {
  return `The node is running: device ${deviceId}, port ${port}, home ${safeText(home)}. Ctrl-C stops it.\n`;
}

async function forwardEvents(cli: Cli, events: AsyncIterable<unknown>, log: OpenLog): Promise<void> {
  try {
    for await (const event of events) sendEvent(cli, event);
  } catch (error) {
    if (error instanceof Error && error.name === 'AbortError') return;
    log.error({ error }, 'events ended early');
  }
}

function sendEvent(cli: Cli, event: unknown): void {
  if (process.stdout.writableLength <= MAX_WAITING_BYTES) cli.event(event);
}

function surviveClosedReaders(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.removeAllListeners('error');
    stream.on('error', (error) => {
      if (systemCode(error) !== 'EPIPE') throw error;
    });
  }
}

/** An error that nobody caught leaves the node in an unknown state: it is logged and the process ends; a restart recovers. */
function logFaults(log: OpenLog): void {
  const end = (error: unknown): void => {
    log.error({ error: asDezentError(error) }, 'the node ends by a fault');
    log.flush();
    process.exit(1);
  };
  process.on('uncaughtException', end);
  process.on('unhandledRejection', end);
}

function endAfter(limitMs: number, log: OpenLog): void {
  const end = (why: string): void => {
    log.warn({}, `ended at once: ${why}`);
    log.flush();
    process.exit(1);
  };
  setTimeout(() => end('stopping took too long'), limitMs).unref();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => end('asked twice'));
}
