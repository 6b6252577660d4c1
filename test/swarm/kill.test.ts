// A node is killed again and again (SIGKILL to its process group) while it adds, offloads, gives space back, opens and starts, at moments
// that follow from a seed. After each kill the disk is looked at, and at the end everything must be there as its owner last wrote it.
// DEZENT_LONG=1 (npm run test:long) kills 200 times.
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { lstatIfPresent } from '../../src/node/files/identity.ts';
import { testBytes } from '../suites/content.ts';
import { openRealNodes, QUICK, until, type RealNode } from '../suites/real-nodes.ts';

const KILLS: number = process.env['DEZENT_LONG'] === '1' ? 200 : 20;
const SEED: number = Number(process.env['DEZENT_TEST_SEED'] ?? randomInt(2 ** 31));
/** A round of work takes about this long, so kills fall into all of it. */
const WORK_MS = 900;
/** A start takes about this long. */
const START_MS = 700;
/** One below stubMinBytes, one inline, one of a block, one of several. */
const SIZES_BYTES = [3000, 20_000, 200_000, 2_500_000];
const MAX_FILES = 60;
const STUB_MIN_BYTES = 4096;

/** Numbers that follow from the seed. */
function randomFrom(seed: number): (below: number) => number {
  const numbers = testBytes(4 * 4096, seed);
  let at = 0;
  return (below) => {
    at = (at + 4) % numbers.length;
    return numbers.readUInt32BE(at) % below;
  };
}

interface Written {
  bytes: Buffer;
  /** What was there before: a stub or an original in quarantine may still hold it for a moment. */
  before: Buffer[];
}

type Files = Map<string, Written>;

let contents = 0;
const newContent = (size: number): Buffer => testBytes(size, (contents += 1));

/** A user's program writes the file, in place where it exists. */
async function write(node: RealNode, files: Files, path: string, size: number): Promise<void> {
  const earlier = files.get(path);
  const bytes = newContent(size);
  files.set(path, { bytes, before: earlier === undefined ? [] : [...earlier.before, earlier.bytes] });
  await writeFile(node.path(path), bytes);
}

const isStub = (bytes: Buffer): boolean =>
  bytes.length < 1024 && bytes.toString('latin1').startsWith('dezent-stub 1\n');

/** With the node dead: every name of the user's is whole, and each file is there, as itself, in quarantine or as a stub. */
async function checkDisk(node: RealNode, files: Files): Promise<{ stubs: number; quarantined: number }> {
  const quarantine = readdirSync(node.path('.dezent'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(join(entry.parentPath, entry.name)));
  let stubs = 0;
  for (const name of readdirSync(node.folder)) {
    if (name.startsWith('.dezent')) continue;
    const bytes = await readFile(node.path(name));
    if (isStub(bytes)) stubs += 1;
    const written = files.get(name) ?? [...files].find(([path]) => name.startsWith(basename(path, '.bin')))?.[1];
    const isWhole = isStub(bytes) || [written?.bytes, ...(written?.before ?? [])].some((one) => one?.equals(bytes));
    assert.ok(isWhole, `${name} is half-written: ${bytes.length} bytes`);
  }
  for (const [path, { bytes }] of files) {
    const isHere =
      (await lstatIfPresent(node.path(path))) !== undefined ||
      (await lstatIfPresent(node.path(`${path}.f`))) !== undefined ||
      quarantine.some((one) => one.equals(bytes));
    assert.ok(isHere, `${path} is neither a file nor a stub, and not in quarantine`);
  }
  return { stubs, quarantined: quarantine.length };
}

/** Adds, edits, opens, frees and lets the node offload by itself; nobody waits for it to end. */
function work(node: RealNode, files: Files, random: (below: number) => number): Promise<unknown> {
  const known = [...files.keys()];
  const some = (): string => known[random(known.length)] ?? 'none';
  const done: Promise<unknown>[] = [];
  for (let count = known.length < MAX_FILES ? 3 : 0; count > 0; count -= 1) {
    const path = `${files.size}.bin`;
    done.push(write(node, files, path, SIZES_BYTES[random(SIZES_BYTES.length)] ?? 0));
  }
  if (known.length > 0) done.push(write(node, files, some(), SIZES_BYTES[random(SIZES_BYTES.length)] ?? 0));
  done.push(node.ask('add', { paths: [node.folder], wait: random(2) === 0 }));
  for (let count = 4; count > 0 && known.length > 0; count -= 1)
    done.push(node.ask('open', { path: node.path(some()) }));
  if (random(3) === 0) done.push(node.ask('free', { paths: [node.path(some())] }));
  return Promise.allSettled(done);
}

test(`${KILLS} kills at random moments lose nothing`, async (t) => {
  t.diagnostic(`DEZENT_TEST_SEED=${SEED}`);
  const random = randomFrom(SEED);
  const nodes = openRealNodes(t);
  const settings = { ...QUICK, 'offload.graceMs': 300, 'offload.idleMs': 0 };
  const [node = assert.fail()] = await nodes.makeGroup(['ada', 'ben', 'cleo'], { settings });
  const files: Files = new Map();
  const seen = { stubs: 0, quarantined: 0 };
  const look = async (): Promise<void> => {
    const { stubs, quarantined } = await checkDisk(node, files);
    seen.stubs += stubs;
    seen.quarantined += quarantined;
  };
  for (let kills = 0; kills < KILLS; kills += 1) {
    const working = work(node, files, random);
    await pause(random(WORK_MS));
    await node.kill();
    await working;
    await look();
    if (random(4) === 0 && kills + 1 < KILLS) {
      const starting = node.run().catch((error: unknown) => error);
      await pause(random(START_MS));
      await node.kill();
      await starting;
      await look();
      kills += 1;
    }
    await node.run();
  }
  t.diagnostic(`${files.size} files; stubs and quarantined originals seen after kills: ${JSON.stringify(seen)}`);
  assert.ok(seen.stubs > KILLS && seen.quarantined > 0, 'the kills did not fall into offloading');
  await checkEnd(node, files);
});

async function checkEnd(node: RealNode, files: Files): Promise<void> {
  const stubs = [...files.values()].filter(({ bytes }) => bytes.length >= STUB_MIN_BYTES).length;
  await until(`${stubs} files to be stubs again`, async () => {
    const { files: counts } = await node.status();
    return counts.stubbed === stubs && counts.protected === files.size - stubs && counts.total === files.size;
  });
  await until('quarantine to be empty', () => readdirSync(node.path('.dezent', 'quarantine')).length === 0);
  await node.ask('configSet', { key: 'offload.auto', value: false });
  await node.must('restore', '--all');
  const names = new Set(readdirSync(node.folder));
  for (const [path, { bytes }] of files) {
    assert.ok(bytes.equals(await readFile(node.path(path))), `${path} is not what its owner wrote last`);
    // Beside a file that is too small to give way, the stub of its earlier version may stand.
    assert.ok(bytes.length < STUB_MIN_BYTES || !names.has(`${path}.f`), `${path}.f is left over`);
  }
  assert.deepEqual(
    [...names].filter((name) => name.startsWith('.dezent-')),
    [],
  );
  const { badBlocks } = await node.must<{ badBlocks: number }>('verify');
  assert.equal(badBlocks, 0);
  assert.deepEqual((await node.status()).warnings, []);
}
