// The demo: three real nodes on this machine keep, free and bring back sample files, told in plain words.
// Everything is done with ordinary commands in a temporary directory, and nothing is left behind, also after Ctrl-C or a failure.
import { rmSync } from 'node:fs';
import { mkdtemp, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { DezentError, isDezentError } from '../errors.ts';
import type {
  FreedFile,
  ListedFile,
  OpenedFile,
  Progress,
  StatusValue,
  WhyValue,
} from '../node/control/control-api.ts';
import { openDemoGround, type DemoGround, type DemoNode } from './demo-nodes.ts';
import { describe, differences, writeSample, type SampleFile } from './demo-sample.ts';
import { diskUsage } from './disk-usage.ts';
import type { Output } from './output.ts';
import { openProgressView, progressText } from './progress-line.ts';
import { countText, safeText, sizeText } from './text.ts';

export interface DemoValue {
  files: number;
  stubbed: number;
  freedBytes: number;
  restored: number;
  identical: boolean;
  stoppedHolder: string;
}

/** 210 MiB of files, as much again in the first node's store until it is freed, and a copy at each of two peers. */
const NEEDED_BYTES = 1200 * 2 ** 20;
/** Smaller files stay files (offload.stubMinBytes). */
const STUB_MIN_BYTES = 4096;
const POLL_MS = 250;
const CONNECT_LIMIT_MS = 60_000;
/** Offloading by itself begins after settleMs; the sample takes seconds, a slow disk some more. */
const STUB_LIMIT_MS = 120_000;
/** How often progress is printed where there is no terminal. */
const PLAIN_PROGRESS_MS = 3000;

/** Runs the demo and returns its counts; `identical` is false when any file came back different. Throws when a step fails. */
export async function runDemo(output: Output): Promise<DemoValue> {
  const interrupted = new AbortController();
  const top = await mkdtemp(join(await roomyDirectory(), 'dezent-demo-'));
  const ground = openDemoGround(top, interrupted.signal);
  const remove = (): void => rmSync(top, { recursive: true, force: true, maxRetries: 5 });
  const vanish = (): void => {
    ground.kill();
    remove();
  };
  const interrupt = (): void =>
    interrupted.abort(new DezentError('CANCELLED', 'the demo was interrupted; everything it made is removed'));
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, interrupt);
  process.on('exit', vanish);
  try {
    return await tellStory(output, ground, interrupted.signal);
  } catch (error) {
    throw interrupted.signal.aborted ? interrupted.signal.reason : error;
  } finally {
    await ground.end();
    remove();
    process.off('exit', vanish);
  }
}

async function tellStory(output: Output, ground: DemoGround, signal: AbortSignal): Promise<DemoValue> {
  const say = (text: string): void => {
    if (!output.settings.json) process.stdout.write(`${text}\n`);
  };
  say('Starting three nodes on this machine, each with its own home, folder and owner: ada, ben and cleo.');
  const [ada, ben] = await makeGroup(ground, signal);
  say('  They found each other: ben and cleo joined with an invite from ada.\n');

  const homeBefore = await diskUsage(ada.home);
  const sample = await writeSample(ada.folder, signal);
  const folderBefore = await diskUsage(ada.folder);
  say(
    `Ada puts ${countText(sample.length, 'file')} into her folder, ${sizeText(totalBytes(sample))}: text, images, a video of 200 MiB, odd names.`,
  );
  await protect(output, ada);
  say('  Every file is kept, encrypted, by ben and by cleo. Neither can read it.');
  await waitForStubs(output, ada, signal);
  say('  Stubs stand in for the files: small texts that say what they are and lead back.');

  (await ada.ask(['free', ada.folder])) as FreedFile[];
  const after = { folder: await diskUsage(ada.folder), home: (await diskUsage(ada.home)) - homeBefore };
  const freedBytes = folderBefore - after.folder - after.home;
  const stubs = (await listed(ada)).filter(({ kind, state }) => kind === 'file' && state === 'stubbed');
  say(
    `\nAda frees them. Her disk had ${sizeText(folderBefore)} of files; it now has ${sizeText(after.folder)} of stubs and small files`,
  );
  say(`and ${sizeText(after.home)} of records: ${sizeText(freedBytes)} given back.\n`);

  await ben.ask(['stop']);
  say('Ben switches his machine off. Ada opens every stub; the bytes must come from cleo.');
  const from = await openAll(ada, stubs);
  const changed = await changedFiles(ada, sample);
  say(`  ${countText(stubs.length, 'file')} opened, through ${countText(from.size, 'peer')}.`);
  const identical = changed.length === 0 && stubs.length > 0;
  say(
    identical
      ? '  Every hash, mode and time is what it was. Nothing was lost.\n'
      : `  DIFFERENT: ${changed.join(', ')}\n`,
  );
  say(closingWords());
  return {
    files: sample.length,
    stubbed: stubs.length,
    freedBytes,
    restored: stubs.length,
    identical,
    stoppedHolder: ben.deviceId,
  };
}

async function makeGroup(ground: DemoGround, signal: AbortSignal): Promise<[DemoNode, DemoNode, DemoNode]> {
  const ada = await ground.makeNode('ada');
  const { invite } = (await ada.ask(['invite', '--uses', '2'])) as { invite: string };
  const ben = await ground.makeNode('ben', invite);
  const cleo = await ground.makeNode('cleo', invite);
  const isJoined = async (): Promise<boolean> => ((await ada.ask(['status'])) as StatusValue).peers.connected >= 2;
  await until(isJoined, { limitMs: CONNECT_LIMIT_MS, what: 'ben and cleo to connect', signal });
  return [ada, ben, cleo];
}

async function protect(output: Output, node: DemoNode): Promise<void> {
  const view = progressView(output);
  try {
    await node.ask(['add', node.folder], view.show);
  } finally {
    view.end();
  }
}

/** The terminal's line, or a plain line now and then where there is none. */
function progressView(output: Output): { show(progress: Progress): void; end(): void } {
  if (process.stderr.isTTY || output.settings.json) return openProgressView(output);
  let shownAt = 0;
  return {
    show(progress) {
      if (performance.now() - shownAt < PLAIN_PROGRESS_MS) return;
      shownAt = performance.now();
      process.stdout.write(`  ${progressText(progress)}\n`);
    },
    end: () => undefined,
  };
}

async function waitForStubs(output: Output, node: DemoNode, signal: AbortSignal): Promise<void> {
  const view = openProgressView(output);
  const areStubbed = async (): Promise<boolean> => {
    const large = (await listed(node)).filter(({ kind, sizeBytes }) => kind === 'file' && sizeBytes >= STUB_MIN_BYTES);
    const done = large.filter(({ state }) => state === 'stubbed');
    view.show({
      phase: 'stub',
      doneBytes: totalBytes(done),
      totalBytes: totalBytes(large),
      doneFiles: done.length,
      totalFiles: large.length,
      rateBytesPerS: 0,
    });
    return large.length > 0 && done.length === large.length;
  };
  try {
    await until(areStubbed, { limitMs: STUB_LIMIT_MS, what: 'the files to become stubs', signal });
  } catch (error) {
    throw isDezentError(error, 'TIMEOUT') ? await explained(error, node) : error;
  } finally {
    view.end();
  }
}

/** What the node itself says about the first file that is late. */
async function explained(error: DezentError, node: DemoNode): Promise<DezentError> {
  const late = (await listed(node)).find(
    ({ kind, sizeBytes, state }) => kind === 'file' && sizeBytes >= STUB_MIN_BYTES && state !== 'stubbed',
  );
  if (late === undefined) return error;
  const why = (await node.ask(['why', join(node.folder, late.path)])) as WhyValue;
  return new DezentError('TIMEOUT', `${error.message}; ${why.path} is ${why.state}: ${why.reason}`);
}

async function listed(node: DemoNode): Promise<ListedFile[]> {
  return (await node.ask(['ls'])) as ListedFile[];
}

/** Opens every stub and returns the devices that gave bytes. */
async function openAll(node: DemoNode, stubs: readonly ListedFile[]): Promise<Set<string>> {
  const from = new Set<string>();
  for (const { path } of stubs) {
    const opened = (await node.ask(['open', join(node.folder, path)])) as OpenedFile;
    for (const deviceId of opened.from) from.add(deviceId);
  }
  return from;
}

async function changedFiles(node: DemoNode, sample: readonly SampleFile[]): Promise<string[]> {
  const changed: string[] = [];
  for (const before of sample) {
    const parts = differences(before, await describe(node.folder, before.path));
    if (parts.length > 0) changed.push(`${safeText(before.path)} (${parts.join(', ')})`);
  }
  return changed;
}

function totalBytes(files: readonly { sizeBytes: number }[]): number {
  return files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

interface Wait {
  limitMs: number;
  what: string;
  signal: AbortSignal;
}

async function until(isDone: () => Promise<boolean>, { limitMs, what, signal }: Wait): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await isDone())) {
    if (performance.now() > deadline) throw new DezentError('TIMEOUT', `waited ${limitMs / 1000} s for ${what}`);
    await pause(POLL_MS, undefined, { signal });
  }
}

/** The temporary directory may be a small memory disk: then the working directory is used. */
async function roomyDirectory(): Promise<string> {
  for (const directory of [tmpdir(), process.cwd()]) {
    const { bavail, bsize } = await statfs(directory);
    if (bavail * bsize >= NEEDED_BYTES) return directory;
  }
  throw new DezentError(
    'DISK_FULL',
    `the demo needs ${sizeText(NEEDED_BYTES)} of free disk for a while, in ${tmpdir()} or here`,
  );
}

function closingWords(): string {
  return `What to try next, on your own machines:
  ./setup                                 set this machine up, as a service
  ./dezent invite                         a code that lets another machine in
  ./dezent add FILE    ./dezent free FILE    ./dezent open FILE.f
The demo's nodes are stopped and its files removed.`;
}
