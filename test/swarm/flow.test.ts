// The main flow, end to end: real files dropped into the folder of one of three nodes are protected and stubbed by themselves, nobody else
// can read them, and all come back as they were. DEZENT_LONG=1 (npm run test:long) does it with thousands of files.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  assertSameFiles,
  findTraces,
  snapshotOf,
  tracesOf,
  writeRealFiles,
  type Snapshot,
} from '../suites/real-files.ts';
import { openRealNodes, QUICK, until, type RealNode } from '../suites/real-nodes.ts';

const IS_LONG: boolean = process.env['DEZENT_LONG'] === '1';
const PACKAGED_FILES: number = IS_LONG ? 6000 : 320;
const LARGE_BYTES: number = 200 * 2 ** 20;
const LIMIT_MS: number = IS_LONG ? 900_000 : 120_000;
const SAMPLES_PER_FILE: number = IS_LONG ? 2 : 5;
const STUB_MIN_BYTES = 4096;

/** What stays a file: too small, two names, or a name that a stub's suffix would make too long. */
function givesWay(path: string, { kind, sizeBytes }: Snapshot): boolean {
  if (kind !== 'file' || sizeBytes < STUB_MIN_BYTES) return false;
  return (
    Buffer.byteLength(path.slice(path.lastIndexOf('/') + 1)) <= 253 &&
    !path.startsWith('run/one of') &&
    !path.startsWith('run/the other')
  );
}

function assertSameNames(actual: Iterable<string>, expected: Iterable<string>): void {
  const [is, was] = [new Set(actual), new Set(expected)];
  assert.deepEqual(
    { missing: was.difference(is), surplus: is.difference(was) },
    { missing: new Set(), surplus: new Set() },
  );
}

/** All is done when everything is protected and the rest stubbed; nothing else may be left. */
async function untilAllStubbed(node: RealNode, originals: ReadonlyMap<string, Snapshot>): Promise<void> {
  const stubs = [...originals].filter(([path, seen]) => givesWay(path, seen)).length;
  await until(
    `${stubs} files of ${node.name} to be stubs`,
    async () => {
      const { files } = await node.status();
      return files.stubbed === stubs && files.protected + files.stubbed === files.total;
    },
    LIMIT_MS,
  ).catch(async (error: unknown) => {
    const states = new Map((await node.ls()).map(({ path, state }) => [path, state]));
    const rest = [...originals].filter(
      ([path, seen]) => states.get(path) !== (givesWay(path, seen) ? 'stubbed' : 'protected'),
    );
    const [first] = rest;
    const why = first ? (await node.cli('why', node.path(first[0]))).stdout : '';
    throw new Error(`${rest.length} are not there yet: ${why} ${JSON.stringify((await node.status()).files)}`, {
      cause: error,
    });
  });
}

test('files are protected and stubbed by themselves, unreadable elsewhere, and come back as they were', async (t) => {
  const nodes = openRealNodes(t);
  const [ada, ...holders] = (await nodes.makeGroup(['ada', 'ben', 'cleo'], { settings: QUICK })) as [
    RealNode,
    RealNode,
    RealNode,
  ];
  const source = join(nodes.top, 'source');
  await writeRealFiles(source, PACKAGED_FILES, LARGE_BYTES);
  const laidOut = await snapshotOf(source);
  const traces = await tracesOf(source, SAMPLES_PER_FILE);
  assert.ok(laidOut.size >= PACKAGED_FILES);
  // The search can find what it looks for.
  assert.deepEqual(await findTraces(source, traces), new Set(traces.values()));
  for (const name of readdirSync(source)) renameSync(join(source, name), ada.path(name));

  await t.test('everything is protected, everything of 4096 bytes or more is a stub', async () => {
    await untilAllStubbed(ada, laidOut);
    const listed = new Map((await ada.ls()).map((item) => [item.path, item]));
    assertSameNames(listed.keys(), laidOut.keys());
    for (const [path, seen] of laidOut) {
      assert.equal(listed.get(path)?.state, givesWay(path, seen) ? 'stubbed' : 'protected', path);
      assert.equal(listed.get(path)?.copies, 2, path);
    }
    const expected = [...laidOut].map(([path, seen]) => (givesWay(path, seen) ? `${path}.f` : path));
    assertSameNames((await snapshotOf(ada.folder)).keys(), expected);
    assert.match(readFileSync(ada.path('solver.f.f'), 'utf8'), /^dezent-stub 1\n/);
    assert.match(readFileSync(ada.path('x.f'), 'utf8'), /PROGRAM HELLO/);
  });

  await t.test('what the holders have on their disks tells neither contents nor names', async () => {
    for (const holder of holders) assert.deepEqual(await findTraces(holder.home, traces), new Set());
  });

  await t.test('the space of freed files is given back', async () => {
    await ada.must('free', ada.folder);
    const { freedBytes, store } = await ada.status();
    const large = [...laidOut].reduce((sum, [path, seen]) => sum + (givesWay(path, seen) ? seen.sizeBytes : 0), 0);
    assert.equal(freedBytes, large);
    assert.ok(store.usedBytes < 2 ** 20 + 2048 * laidOut.size, `${store.usedBytes} bytes are left in the store`);
    assert.deepEqual(readdirSync(ada.path('.dezent', 'quarantine')), []);
  });

  await t.test('restore --all --to lays everything out elsewhere, identical', async () => {
    const to = join(nodes.top, 'elsewhere', 'tree');
    await ada.must('restore', '--all', '--to', to);
    assertSameFiles(await snapshotOf(to), laidOut);
    rmSync(to, { recursive: true });
  });

  await t.test('every stub opens in place, identical', async () => {
    await ada.must('restore', '--all');
    assertSameFiles(await snapshotOf(ada.folder), laidOut);
    const { files, warnings } = await ada.status();
    assert.equal(files.stubbed, 0);
    assert.deepEqual(warnings, []);
  });
});
