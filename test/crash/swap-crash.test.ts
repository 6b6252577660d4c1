// Offload, finish, bring back and restore, stopped at every one of their steps: as if the process had been killed there, and as if the disk
// had failed there once. Then the node's own recovery runs, and nothing may be lost, half-written or left over.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { openTestFiles, type TestFiles } from '../node/files-of.ts';
import { openFailPoints, StoppedHere, type FailPoints, type Mode } from '../suites/fail-points.ts';
import {
  checkRecovered,
  checkStopped,
  finishAll,
  FLOWS,
  restoreCarelessly,
  swapCarelessly,
  type Flow,
} from './swap-flows.ts';

/** In memory: nothing here depends on the disk, and fsync is most of the time. */
const TMP: { tmp?: string } = existsSync('/dev/shm') ? { tmp: '/dev/shm' } : {};

interface World extends AsyncDisposable {
  files: TestFiles;
  points: FailPoints;
}

async function newWorld(): Promise<World> {
  const late: { points?: FailPoints } = {};
  const files = await openTestFiles({ ...TMP, onStateWrite: () => late.points?.step('state') });
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
async function stepsOf(flow: Flow): Promise<number> {
  await using world = await newWorld();
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
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause)
      if (cause instanceof StoppedHere) return true;
    throw error;
  }
}

interface Stop {
  k: number;
  mode: Mode;
  /** What happens after recovery: the stub is opened at once, or the node finishes what waits first. */
  then: 'open' | 'finish';
}

async function stopAt(flow: Flow, { k, mode, then }: Stop): Promise<void> {
  await using world = await newWorld();
  const { files, points } = world;
  await flow.before(files);
  points.arm(k, mode);
  const stopped = await isStopped(flow, world);
  points.disarm();
  const where = points.steps[k - 1];
  try {
    if (mode === 'dead') assert.ok(stopped, 'the step did not stop it');
    await checkStopped(files, flow);
    await files.restart();
    if (then === 'finish') await finishAll(files);
    await checkRecovered(files, flow);
  } catch (error) {
    throw new Error(`${flow.name}, ${mode} at step ${k} (${where}), then ${then}`, { cause: error });
  }
}

async function stopEverywhere(flow: Flow, mode: Mode, then: Stop['then']): Promise<void> {
  const steps = await stepsOf(flow);
  assert.ok(steps > 3, `${flow.name} has only ${steps} steps`);
  for (let k = 1; k <= steps; k += 1) await stopAt(flow, { k, mode, then });
}

for (const flow of FLOWS) {
  test(`${flow.name}: killed at every step, then opened`, () => stopEverywhere(flow, 'dead', 'open'));
  test(`${flow.name}: killed at every step, then finished`, () => stopEverywhere(flow, 'dead', 'finish'));
  test(`${flow.name}: a disk error at every step`, () => stopEverywhere(flow, 'fails', 'open'));
}

test('controls: these checks find out careless swaps', async () => {
  const [offload, open] = ['offload', 'open'].map((name) => FLOWS.find((flow) => flow.name === name));
  assert.ok(offload && open);
  for (const careless of [
    { ...offload, name: 'unlinked before the stub stands', run: swapCarelessly },
    { ...open, name: 'written under its own name', run: restoreCarelessly },
  ]) {
    await assert.rejects(
      stopEverywhere(careless, 'dead', 'open'),
      (error: Error) => error.cause instanceof assert.AssertionError,
    );
  }
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
