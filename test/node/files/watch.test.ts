import assert from 'node:assert/strict';
import { appendFile, mkdir, mkdtemp, realpath, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { openFolder } from '../../../src/node/files/folder.ts';
import { openIgnoreRules } from '../../../src/node/files/ignore-rules.ts';
import { openWatch, type Watch } from '../../../src/node/files/watch.ts';

const SETTLE_MS = 100;

interface World extends AsyncDisposable {
  at(path: string): string;
  watch: Watch;
  settled: string[];
  /** When each was, performance.now(). */
  settledAt: number[];
  errors: string[];
  quiet(): number;
  /** Resolves when this path has been given out so often in all. */
  seen(path: string, times?: number): Promise<void>;
}

async function newWorld(
  before?: (at: (path: string) => string) => Promise<unknown>,
  settleMs: number = SETTLE_MS,
): Promise<World> {
  const root = await realpath(await mkdtemp(join(tmpdir(), 'dezent-watch-')));
  const at = (path: string): string => join(root, path);
  await before?.(at);
  const folder = openFolder(root);
  const settled: string[] = [];
  const settledAt: number[] = [];
  const errors: string[] = [];
  const waiting = new Set<() => void>();
  let quiet = 0;
  const watch = openWatch({
    folder,
    rules: await openIgnoreRules(root),
    settings: { settleMs: () => settleMs, scanMs: () => 86_400_000 },
    async onSettled(path) {
      settled.push(path);
      settledAt.push(performance.now());
      for (const look of waiting) look();
      if (path === 'fails') throw new Error('it fails');
    },
    onQuiet: () => void (quiet += 1),
    onError: (error, path) => void errors.push(`${path}: ${String(error)}`),
  });
  return {
    at,
    watch,
    settled,
    settledAt,
    errors,
    quiet: () => quiet,
    seen: (path, times = 1) =>
      new Promise((resolve) => {
        const look = (): void => {
          if (settled.filter((one) => one === path).length < times) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
      }),
    async [Symbol.asyncDispose]() {
      await watch[Symbol.asyncDispose]();
      await rm(root, { recursive: true });
    },
  };
}

test('what was made while the node was down is found, folders first, and links are not followed', async () => {
  await using world = await newWorld(async (at) => {
    await mkdir(at('dir/deep'), { recursive: true });
    await writeFile(at('dir/deep/a'), 'a');
    await symlink('..', at('dir/loop'));
    await symlink('/etc', at('etc'));
    await writeFile(at('note~'), 'ignored');
  });
  await world.watch.ready;
  await Promise.all(['dir', 'dir/deep', 'dir/deep/a', 'dir/loop', 'etc'].map((path) => world.seen(path)));
  assert.ok(!world.settled.some((path) => path.startsWith('etc/') || path.startsWith('dir/loop/') || path === 'note~'));
  assert.deepEqual(world.errors, []);
});

test('a file is given out when it has been quiet, not while it is written', async () => {
  const settleMs = 400;
  await using world = await newWorld(undefined, settleMs);
  await world.watch.ready;
  const writtenAt: number[] = [];
  for (let writes = 0; writes < 20; writes += 1) {
    writtenAt.push(performance.now());
    await appendFile(world.at('a'), 'more');
    await pause(settleMs / 10);
  }
  await world.seen('a');
  const givenAt = world.settledAt[world.settled.indexOf('a')] ?? 0;
  const lastBefore = Math.max(...writtenAt.filter((at) => at < givenAt));
  assert.ok(givenAt - lastBefore > settleMs / 2, `given out ${givenAt - lastBefore} ms after it was written to`);
  await appendFile(world.at('a'), 'again');
  await world.seen('a', 2);
});

test('new, renamed and removed names are all given out, in folders that are new as well', async () => {
  await using world = await newWorld();
  await world.watch.ready;
  await mkdir(world.at('new/deeper'), { recursive: true });
  await writeFile(world.at('new/deeper/a'), 'a');
  await Promise.all([world.seen('new'), world.seen('new/deeper'), world.seen('new/deeper/a')]);
  await rename(world.at('new/deeper/a'), world.at('b'));
  await Promise.all([world.seen('new/deeper/a', 2), world.seen('b')]);
  await unlink(world.at('b'));
  await world.seen('b', 2);
  await rm(world.at('new'), { recursive: true });
  await Promise.all([world.seen('new', 2), world.seen('new/deeper', 2)]);
});

test('many at once all come, in any order', async () => {
  await using world = await newWorld();
  await world.watch.ready;
  const names = Array.from({ length: 500 }, (_, index) => `dir/${index}`);
  await mkdir(world.at('dir'));
  await Promise.all(names.map((name) => writeFile(world.at(name), name)));
  await Promise.all(names.map((name) => world.seen(name)));
  assert.deepEqual(world.errors, []);
});

test('.dezentignore holds from the moment it is changed, also for what is there already', async () => {
  await using world = await newWorld(async (at) => {
    await writeFile(at('.dezentignore'), '*.log\n');
    await writeFile(at('a.log'), 'a');
  });
  await world.watch.ready;
  assert.ok(!world.settled.includes('a.log'));
  await writeFile(world.at('.dezentignore'), '# nothing\n');
  await world.seen('a.log');
});

test('a failure is said and does not stop the watch; it says when nothing is waiting', async () => {
  await using world = await newWorld();
  await world.watch.ready;
  await writeFile(world.at('fails'), 'x');
  await world.seen('fails');
  await writeFile(world.at('next'), 'x');
  await world.seen('next');
  assert.deepEqual(world.errors, ['fails: Error: it fails']);
  const before = world.quiet();
  await new Promise<void>((resolve) => {
    const look = setInterval(() => {
      if (world.quiet() === before) return;
      clearInterval(look);
      resolve();
    }, 10);
  });
  assert.equal(world.watch.pending(), 0);
});

test('after it has ended nothing is given out', async () => {
  const world = await newWorld();
  await world.watch.ready;
  await world.watch[Symbol.asyncDispose]();
  world.watch.touch('a');
  assert.equal(world.watch.pending(), 0);
  await world[Symbol.asyncDispose]();
});
