// The swaps of original and stub that the crash tests stop at each of their steps: what is there before, what is done, what must be had after it.
import assert from 'node:assert/strict';
import { link, open, readdir, readFile, unlink, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isDezentError } from '../../src/errors.ts';
import { syncDirectory } from '../../src/node/home/durable-file.ts';
import type { OffloadRecord } from '../../src/node/offload/journal.ts';
import { lstatIfPresent, modeOf, mtimeUsOf } from '../../src/node/files/identity.ts';
import { decodeStub, encodeStub } from '../../src/store/stub.ts';
import type { TestFiles, TestFilesOptions } from '../node/files/files-of.ts';
import { testBytes } from '../suites/content.ts';

/** More than is kept inline in a manifest: so the bytes come from blocks. */
const FILE_BYTES = 70_000;
export const PATH = 'letters/a.bin';
export const STUB: string = `${PATH}.f`;
const MTIME_S = 1_600_000_000.25;

export const FIRST: Buffer = testBytes(FILE_BYTES, 101);
export const SECOND: Buffer = testBytes(FILE_BYTES + 1, 102);

/** Contents that must be had after the flow, whatever happened, with the one that PATH or its stub stands for first. */
type Expected = readonly Buffer[];

export interface Flow {
  name: string;
  /** Makes what is there before; nothing fails yet. */
  before(files: TestFiles): Promise<unknown>;
  run(files: TestFiles): Promise<unknown>;
  expected: Expected;
  /** The stub of an earlier version may stand beside PATH. */
  earlier?: true;
  /** A name beside PATH may hold another content afterwards. */
  beside?: true;
}

async function addFirst(files: TestFiles): Promise<void> {
  await files.write(PATH, FIRST);
  await utimes(files.at(PATH), MTIME_S, MTIME_S);
  await take(files, FIRST);
}

/** Takes in what lies at PATH and gives it to the holders. */
async function take(files: TestFiles, bytes: Buffer): Promise<void> {
  const ingested = await files.parts.locks.run(PATH, () => files.parts.ingest.ingest(PATH));
  assert.equal(ingested?.item.entry.sizeBytes, bytes.length);
  if (ingested) await files.protect(ingested.item);
}

async function addAndOffload(files: TestFiles): Promise<void> {
  await addFirst(files);
  await files.offload(PATH);
}

/** A file beside the stub of its earlier version. */
async function addSecondBesideStub(files: TestFiles): Promise<void> {
  await addFirst(files);
  await files.offload(PATH, true);
  await files.write(PATH, SECOND);
  await take(files, SECOND);
}

export function quarantined(files: TestFiles): OffloadRecord {
  const record = [...files.parts.journal.offloads()][0];
  assert.ok(record);
  return record;
}

/** A program that had the file open all the time writes into it where it waits in quarantine. */
async function writeLate(files: TestFiles): Promise<void> {
  const { original } = await files.parts.quarantine.place(quarantined(files));
  await writeFile(original, SECOND);
}

/** Settings of a device that keeps everything itself, so that a second process finds it again. */
export const ALONE: TestFilesOptions = { holders: [], settings: { 'copies.min': 0, 'copies.target': 0 } };

export const FLOWS: readonly Flow[] = [
  { name: 'offload', before: addFirst, run: (files) => files.offload(PATH), expected: [FIRST] },
  { name: 'offload at once', before: addFirst, run: (files) => files.offload(PATH, true), expected: [FIRST] },
  {
    name: 'offload beside an earlier stub',
    before: addSecondBesideStub,
    run: (files) => files.offload(PATH),
    expected: [SECOND],
    earlier: true,
  },
  {
    name: 'offload at once beside an earlier stub',
    before: addSecondBesideStub,
    run: (files) => files.offload(PATH, true),
    expected: [SECOND],
    earlier: true,
  },
  {
    name: 'finish after grace',
    before: addAndOffload,
    run: (files) => files.parts.quarantine.finish(quarantined(files), false),
    expected: [FIRST],
  },
  { name: 'open while in quarantine', before: addAndOffload, run: (files) => files.open(STUB), expected: [FIRST] },
  {
    name: 'a late writer',
    async before(files) {
      await addAndOffload(files);
      await writeLate(files);
    },
    run: (files) => files.parts.quarantine.settle(quarantined(files)),
    expected: [SECOND],
    earlier: true,
  },
  {
    name: 'a late writer, and a new file has the name',
    async before(files) {
      await addAndOffload(files);
      await writeLate(files);
      await files.write(PATH, FIRST.subarray(1));
    },
    run: (files) => files.parts.quarantine.settle(quarantined(files)),
    expected: [FIRST.subarray(1), SECOND],
    beside: true,
  },
  {
    name: 'open',
    async before(files) {
      await addFirst(files);
      await files.offload(PATH, true);
    },
    run: (files) => files.open(STUB),
    expected: [FIRST],
  },
  {
    name: 'open where another file has the name',
    async before(files) {
      await addFirst(files);
      await files.offload(PATH, true);
      await files.write(PATH, SECOND);
    },
    run: (files) => files.open(STUB),
    expected: [SECOND, FIRST],
    beside: true,
  },
];

/** Every regular file in FOLDER with its bytes, also in quarantine. */
async function contentsOf(files: TestFiles): Promise<Map<string, Buffer>> {
  const contents = new Map<string, Buffer>();
  for (const name of await files.names()) contents.set(name, await readFile(files.at(name)));
  return contents;
}

const isStub = (files: TestFiles, bytes: Buffer): boolean => {
  try {
    decodeStub(bytes, files.parts.keys(), files.parts.own);
    return true;
  } catch {
    return false;
  }
};

/**
 * Right after the stop, nothing mended: each name of the user's is whole (a content that was there, or an intact stub), and everything that
 * must not be lost is in FOLDER or at a stub whose blocks are held.
 */
export async function checkStopped(files: TestFiles, { expected }: Flow): Promise<void> {
  const contents = await contentsOf(files);
  for (const [name, bytes] of contents) {
    if (name.startsWith('.dezent/') || name.includes('/.dezent-new-')) continue;
    const whole = [FIRST, SECOND, ...expected].some((content) => content.equals(bytes)) || isStub(files, bytes);
    assert.ok(whole, `${name} holds something half-written`);
  }
  const isHeld = [...contents.values()].some((bytes) => isStub(files, bytes));
  for (const content of expected) {
    const isHere = [...contents.values()].some((bytes) => content.equals(bytes));
    assert.ok(isHere || isHeld, 'a content is neither here nor at a stub');
  }
}

/** What a node does in time with what waits in quarantine: its space is given back, or, when it was written to, it comes back. */
export async function finishAll(files: TestFiles): Promise<void> {
  for (const record of Array.from(files.parts.journal.offloads())) {
    try {
      await files.parts.quarantine.finish(record, true);
    } catch (error) {
      if (!isDezentError(error, 'CHANGED')) throw error;
      await files.parts.quarantine.settle(record);
    }
  }
  assert.deepEqual([...files.parts.journal.offloads()], []);
}

/** What the node keeps in FOLDER for good. */
const LASTING: ReadonlySet<string> = new Set(['.dezent', join('.dezent', 'quarantine'), join('.dezent', 'folder')]);

/** After recovery: everything opens with its bytes, mode and mtime, and nothing is left over. */
export async function checkRecovered(files: TestFiles, { expected, beside, earlier }: Flow): Promise<void> {
  const [main] = expected;
  const stub = await lstatIfPresent(files.at(STUB));
  if ((await lstatIfPresent(files.at(PATH))) === undefined) {
    assert.ok(stub, 'neither the original nor its stub is there');
    await files.open(STUB);
  }
  assert.ok(main?.equals(await files.read(PATH)), 'the original is not what it was');
  if (main === FIRST) {
    const stats = await lstatIfPresent(files.at(PATH));
    assert.equal(stats && mtimeUsOf(stats), MTIME_S * 1e6);
    assert.equal(stats && modeOf(stats), 0o644);
  }
  if (beside && (await lstatIfPresent(files.at(STUB))) !== undefined) await files.open(STUB);
  const left = (await lstatIfPresent(files.at(STUB))) !== undefined;
  assert.ok(earlier || beside || !left, 'the stub is left over beside its original');
  const contents = await contentsOf(files);
  for (const content of expected) {
    assert.ok(
      [...contents.values()].some((bytes) => content.equals(bytes)),
      `a content is lost; there is ${[...contents.keys()].join(', ')}`,
    );
  }
  const own = (await readdir(files.root, { recursive: true })).filter((name) => name.includes('.dezent'));
  assert.deepEqual(
    own.filter((name) => !LASTING.has(name)),
    [],
    'left over',
  );
  assert.deepEqual(await Array.fromAsync(files.parts.journal.all()), [], 'the journal is not empty');
  assert.deepEqual(files.parts.warnings.list(), []);
}

/** A careless way to make a stub, which the checks have to find out. */
export async function swapCarelessly(files: TestFiles): Promise<void> {
  const item = files.parts.tree.get(PATH);
  assert.ok(item?.entry.root);
  const { fileId, mode, mtimeUs, root, sizeBytes } = item.entry;
  const { keys, own } = files.parts;
  const epoch = keys().current.id;
  await unlink(files.at(PATH));
  const stub = { ...own, epoch, fileId, mode: mode & 0o777, mtimeUs, name: 'a.bin', root, sizeBytes };
  await using file = await open(files.at(STUB), 'wx');
  await file.writeFile(encodeStub(stub, keys()));
}

/** A careless way back: the original is written under its own name. */
export async function restoreCarelessly(files: TestFiles): Promise<void> {
  await using file = await open(files.at(PATH), 'wx');
  for (let at = 0; at < FIRST.length; at += 10_000) await file.write(FIRST.subarray(at, at + 10_000), 0, undefined, at);
  await unlink(files.at(STUB));
}

/** A careless way back: names are made durable, the bytes are not. */
export async function restoreUnsynced(files: TestFiles): Promise<void> {
  const tmp = files.at(`${PATH}.tmp`);
  await using file = await open(tmp, 'wx');
  await file.writeFile(FIRST);
  await link(tmp, files.at(PATH));
  await unlink(tmp);
  await unlink(files.at(STUB));
  await syncDirectory(dirname(tmp));
}

/** Careless about receipts: nobody has been asked whether he keeps the blocks, and nobody does. */
export async function freeUnproved(files: TestFiles): Promise<void> {
  for (const { blocks } of files.holders.values()) blocks.clear();
  files.settings['copies.min'] = 0;
  await files.offload(PATH, true);
  await files.store.deleteMany(await Array.fromAsync(files.store.ids()));
}
