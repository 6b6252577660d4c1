// Offload, finish, bring back and restore, stopped at every one of their steps: as if the process had been killed there, and as if the disk
// had failed there once. Then the node's own recovery runs, and nothing may be lost, half-written or left over.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { isDezentError } from '../../src/errors.ts';
import { openTestFiles, type TestFiles, type TestFilesOptions } from '../node/files/files-of.ts';
import { testBytes } from '../suites/content.ts';
import { openFailPoints, StoppedHere, type FailPoints, type Mode } from '../suites/fail-points.ts';
import {
  ALONE,
  checkRecovered,
  checkStopped,
  finishAll,
  FLOWS,
  freeUnproved,
  restoreCarelessly,
  restoreUnsynced,
  swapCarelessly,
  type Flow,
} from './swap-flows.ts';

/** In memory: nothing here depends on the disk, and fsync is most of the time. */
const TMP: { tmp?: string } = existsSync('/dev/shm') ? { tmp: '/dev/shm' } : {};

const IS_LONG: boolean = process.env['DEZENT_LONG'] === '1';
/** One process each, about half a second. */
const KILLS: number = IS_LONG ? 200 : 6;
const CHILD: string = fileURLToPath(new URL('swap-kill-child.ts', import.meta.url));

interface World extends AsyncDisposable {
  files: TestFiles;
  points: FailPoints;
}

async function newWorld(options: TestFilesOptions = {}): Promise<World> {
  const late: { points?: FailPoints } = {};
  const files = await openTestFiles({ ...options, ...TMP, onStateWrite: () => late.points?.step('state') });
  const points = openFailPoints(files.root);
  late.points = points;
  return {
    files,
    points,
    async [Symbol.asyncDispose]() {
      points[Symbol.dispose]();
      await files[Symbol.asyncDispose]();
    },
  };
}

/** How many steps the flow has. */
async function stepsOf(flow: Flow, options: TestFilesOptions = {}): Promise<number> {
  await using world = await newWorld(options);
  await flow.before(world.files);
  world.points.arm();
  await flow.run(world.files);
  world.points.disarm();
  return world.points.steps.length;
}

/** True when the flow was stopped by the fail-point (and not through without noticing). */
async function isStopped(flow: Flow, { files }: World): Promise<boolean> {
  try {
    await flow.run(files);
    return false;
  } catch (error) {
    if (!isStop(error)) throw error;
    return true;
  }
}

function isStop(error: unknown): boolean {
  return error instanceof StoppedHere || (error instanceof Error && isStop(error.cause));
}

interface Stop {
  k: number;
  mode: Mode | 'cut';
  /** What happens after recovery: the stub is opened at once, or the node finishes what waits first. */
  after: 'open' | 'finish';
}

async function stopAt(flow: Flow, { k, mode, after }: Stop): Promise<void> {
  await using world = await newWorld();
  const { files, points } = world;
  await flow.before(files);
  points.arm(k, mode === 'cut' ? 'dead' : mode);
  const stopped = await isStopped(flow, world);
  points.disarm();
  if (mode === 'cut') await points.cutPower();
  const where = points.steps[k - 1];
  try {
    if (mode === 'dead') assert.ok(stopped, 'the step did not stop it');
    await checkStopped(files, flow);
    await files.restart();
    if (after === 'finish' || flow.beside) await finishAll(files);
    await checkRecovered(files, flow);
  } catch (error) {
    throw new Error(`${flow.name}, ${mode} at step ${k} (${where}), then ${after}`, { cause: error });
  }
}

async function stopEverywhere(flow: Flow, mode: Stop['mode'], after: Stop['after']): Promise<void> {
  const steps = await stepsOf(flow);
  assert.ok(steps > 2, `${flow.name} has only ${steps} steps`);
  // The power may fail right after the last step too: is everything durable by then?
  const last = mode === 'cut' ? steps + 1 : steps;
  for (let k = 1; k <= last; k += 1) await stopAt(flow, { k, mode, after });
}

for (const flow of FLOWS) {
  if (IS_LONG) test(`${flow.name}: killed at every step, then opened`, () => stopEverywhere(flow, 'dead', 'open'));
  test(`${flow.name}: killed at every step, then finished`, () => stopEverywhere(flow, 'dead', 'finish'));
  test(`${flow.name}: a power cut at every step, then opened`, () => stopEverywhere(flow, 'cut', 'open'));
  test(`${flow.name}: a disk error at every step, then opened`, () => stopEverywhere(flow, 'fails', 'open'));
}

/** Stopped at the k-th step, and then again and again while it recovers, each time a step later. */
async function stopInRecovery(flow: Flow, k: number): Promise<void> {
  await using world = await newWorld();
  const { files, points } = world;
  await flow.before(files);
  points.arm(k);
  await isStopped(flow, world);
  for (let j = 1; points.steps.length >= j; j += 1) {
    points.arm(j);
    // Recovery says what it could not settle and goes on; anything else that it meets is thrown.
    await files.restart().catch((error: unknown) => {
      if (!isStop(error)) throw error;
    });
  }
  points.disarm();
  await files.restart();
  await checkRecovered(files, flow);
}

for (const name of ['offload beside an earlier stub', 'offload at once', 'open']) {
  test(`${name}: killed at every step, and again in every step of recovery`, async () => {
    const flow = FLOWS.find((one) => one.name === name);
    assert.ok(flow);
    const steps = await stepsOf(flow);
    for (let k = 1; k <= steps; k += 1) await stopInRecovery(flow, k);
  });
}

test(`killed for real at ${KILLS} steps`, async (t) => {
  const seed = Number(process.env['DEZENT_TEST_SEED'] ?? randomInt(2 ** 31));
  t.diagnostic(`DEZENT_TEST_SEED=${seed}`);
  const random = testBytes(8 * KILLS, seed);
  for (let kill = 0; kill < KILLS; kill += 1) {
    const index = random.readUInt32BE(8 * kill) % FLOWS.length;
    const flow = FLOWS[index];
    assert.ok(flow);
    const k = 1 + (random.readUInt32BE(8 * kill + 4) % (await stepsOf(flow, ALONE)));
    await killAt(flow, index, k);
  }
});

/** A process of its own does the flow and is killed at the k-th step. Blocks stay on this machine (`copies.min` 0). */
async function killAt(flow: Flow, index: number, k: number): Promise<void> {
  const top = await realpath(await mkdtemp(join(TMP.tmp ?? tmpdir(), 'dezent-kill-')));
  try {
    {
      await using files = await openTestFiles({ ...ALONE, top });
      await flow.before(files);
    }
    const child = spawn(process.execPath, [CHILD, top, String(index), String(k)], { stdio: 'inherit' });
    const [, signal] = (await once(child, 'exit')) as [number | null, string | null];
    assert.equal(signal, 'SIGKILL');
    await using files = await openTestFiles({ ...ALONE, top });
    await finishAll(files);
    await checkRecovered(files, flow);
  } catch (error) {
    throw new Error(`${flow.name}, killed at step ${k}`, { cause: error });
  } finally {
    await rm(top, { recursive: true });
  }
}

test('controls: these checks find out careless swaps', async () => {
  const [offload, open] = ['offload', 'open'].map((name) => FLOWS.find((flow) => flow.name === name));
  assert.ok(offload && open);
  const isFound = (error: Error): boolean => error.cause instanceof assert.AssertionError;
  const early = { ...offload, name: 'unlinked before the stub stands', run: swapCarelessly };
  await assert.rejects(stopEverywhere(early, 'dead', 'open'), isFound);
  const direct = { ...open, name: 'written under its own name', run: restoreCarelessly };
  await assert.rejects(stopEverywhere(direct, 'dead', 'open'), isFound);
  const unsynced = { ...open, name: 'linked before its bytes are durable', run: restoreUnsynced };
  await assert.rejects(stopEverywhere(unsynced, 'cut', 'open'), isFound);
});

test('controls: a file whose blocks nobody keeps is found to be lost', async () => {
  const [offload] = FLOWS;
  assert.ok(offload);
  const unproved = { ...offload, name: 'given up before anybody has it', run: freeUnproved };
  await assert.rejects(stopEverywhere(unproved, 'cut', 'open'), (error: Error) =>
    isDezentError(error.cause, 'UNREACHABLE'),
  );
});

test('controls: without its journal an offload leaves things over', async () => {
  const [offload] = FLOWS;
  assert.ok(offload);
  const forgetful: Flow = {
    ...offload,
    async run(files) {
      files.parts.journal.write = async () => undefined;
      return offload.run(files);
    },
  };
  await assert.rejects(
    stopEverywhere(forgetful, 'dead', 'open'),
    (error: Error) => error.cause instanceof assert.AssertionError,
  );
});
