// What a pipeline thread runs (see thread-pool.ts): the jobs of sealers and openers, and what it is given for them. Started by its URL;
// nothing imports it.
import { setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { DezentError } from '../errors.ts';
import { openExtents, type OpenInput } from './open-extents.ts';
import { nameSmallFiles, writeSmallFiles, type NameInput, type WriteSmallInput } from './open-small.ts';
import { openPackAppender } from './pack-appender.ts';
import type { PackLane } from './pack-lanes.ts';
import {
  sealAgain,
  sealFile,
  sealSolidPart,
  type SealSolidInput,
  WINDOW_BYTES,
  type ResealInput,
  type SealInput,
  type ThreadTools,
} from './seal-windows.ts';
import { contentKeysFrom, type ContentKeys, type PlainKeys } from './secrets.ts';
import { joinSharedSet, openSharedSet } from './shared-set.ts';
import type { SmallRequest } from './sealing.ts';
import { readSmallFiles } from './small-files.ts';
import { serveJobs } from './thread-jobs.ts';

let keys: ContentKeys | undefined;
let known = openSharedSet(1);
let memory: Buffer | undefined;
const appender = openPackAppender();

function tools(): ThreadTools {
  if (keys === undefined) throw new DezentError('INTERNAL', 'a thread was given no keys');
  return { keys, known, appender, window };
}

/** In use within one turn only, so one is enough. */
function window(): Buffer {
  memory ??= Buffer.allocUnsafeSlow(WINDOW_BYTES);
  return memory;
}

/** Keys come as plain bytes; the native hasher wants Buffers. */
function withBuffers<T>(value: T): T {
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.length) as T;
  if (value === null || typeof value !== 'object' || ArrayBuffer.isView(value)) return value;
  if (Array.isArray(value)) return value.map(withBuffers) as T;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, withBuffers(field)])) as T;
}

const { niceness } = workerData as { niceness: number };
// On Linux a priority is that of the thread; elsewhere it would be the whole program's.
if (niceness > 0 && process.platform === 'linux') setPriority(niceness);
if (parentPort === null) throw new DezentError('INTERNAL', 'pipeline-thread.ts is not a program');

serveJobs(
  parentPort,
  {
    seal: (input: SealInput, context) => sealFile(input, tools(), context),
    sealAgain: (input: ResealInput, context) => sealAgain(input, tools(), context),
    open: (input: OpenInput) => openExtents(input, tools()),
    writeSmall: (input: WriteSmallInput) => writeSmallFiles(input, tools()),
    nameSmall: (input: NameInput) => nameSmallFiles(input),
    sealSolid: (input: SealSolidInput, context) => sealSolidPart(input, tools(), context),
    readSmall: (requests: readonly SmallRequest[]) => readSmallFiles(requests, tools().keys, window()),
  },
  {
    keys: (given: PlainKeys) => {
      keys = contentKeysFrom(withBuffers(given));
    },
    known: (given: SharedArrayBuffer) => {
      known = joinSharedSet(given);
    },
    lane: (lane: PackLane) => appender.lend(lane),
  },
);
