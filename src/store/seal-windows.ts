// The thread's work on a file to seal: takes the baton, reads a window, cuts it, passes the baton on, then hashes, compresses, seals and
// appends chunk after chunk. It asks nobody: a chunk whose hash is in the shared set is left to the main thread, who knows or has it sealed.
import { DezentError, asDezentError } from '../errors.ts';
import { openBaton, endBaton, passBaton, takeBaton } from './baton.ts';
import { framePartsNow } from './compress.ts';
import { freeMemory } from './free-memory.ts';
import { INLINE_MAX_BYTES } from './manifest.ts';
import type { PackAppender } from './pack-appender.ts';
import type { PackId } from './pack-file.ts';
import type { LaneRecord } from './pack-lanes.ts';
import { KIND_MANIFEST, sealDataParts, sealNamedParts, type SealedParts } from './seal.ts';
import type { FileStats } from './sealing.ts';
import { keyedHash, type ContentKeys } from './secrets.ts';
import type { SharedSet } from './shared-set.ts';
import { inlineContentOf, type ReadContent } from './small-files.ts';
import { openCutter, splitSizesFor, type SplitSizes } from './split.ts';
import type { Given, JobContext } from './thread-jobs.ts';
import { isSameState, openUnchanging, type UnchangingFile } from './unchanging-file.ts';

/** Read and cut with the baton in hand: the last, unfinished chunk of each window is read again, 0.5 MiB on average. */
export const WINDOW_BYTES: number = 16 * 1024 * 1024;

/** What a thread has for its jobs. */
export interface ThreadTools {
  keys: ContentKeys;
  known: SharedSet;
  appender: PackAppender;
  /** WINDOW_BYTES of memory; whoever uses it does so within one turn. */
  window(): Buffer;
}

export interface SealInput {
  path: string;
  owner: Uint8Array;
  earlierAverage: number | undefined;
  /** The file as the first one saw it and the baton, when several threads share it. */
  shared: { stats: FileStats; baton: SharedArrayBuffer } | undefined;
}

/** Of a chunk that was sealed here. */
export type SealedRecord = AppendedRecord & { key: Uint8Array };

export type AppendedRecord = Omit<LaneRecord, 'owner'>;

export interface WindowChunk {
  plainHash: Uint8Array;
  length: number;
  /** Absent: somebody knows, or is just sealing, a chunk with this hash. */
  record: SealedRecord | undefined;
}

export interface SealedWindow {
  /** Of the file when this thread opened it. */
  stats: FileStats;
  /** Where in the file its first chunk lies; the chunks follow each other. */
  position: number;
  chunks: WindowChunk[];
  /** Packs that are done with. */
  full: PackId[];
}

/** `content` is there when the file is so small that its manifest holds it. */
export interface SealOutput {
  stats: FileStats;
  content: ReadContent | undefined;
}

export interface ResealInput {
  path: string;
  owner: Uint8Array;
  stats: FileStats;
  position: number;
  length: number;
  plainHash: Uint8Array;
}

function sealRecord(plain: Uint8Array, owner: Uint8Array, tools: ThreadTools): SealedRecord {
  const frame = framePartsNow(plain);
  const { key, ...sealed } = sealDataParts(frame, tools.keys.current);
  try {
    return { ...appendSealed(sealed, owner, tools), key };
  } finally {
    const [, payload] = frame;
    if (payload !== undefined && payload !== plain) freeMemory(payload);
  }
}

/** Appends the block and gives its memory back. */
function appendSealed({ id, parts }: SealedParts, owner: Uint8Array, { appender }: ThreadTools): AppendedRecord {
  try {
    const { owner: _, ...record } = appender.append(id, owner, parts);
    return record;
  } catch (error) {
    throw asDezentError(error);
  } finally {
    for (const part of parts) freeMemory(part);
  }
}

/** A share in sealing a file: as many windows as this thread gets. Tells each of them. */
export async function sealFile(input: SealInput, tools: ThreadTools, context: JobContext): Promise<Given> {
  const file = openUnchanging(input.path);
  const baton = input.shared?.baton ?? openBaton();
  try {
    if (input.shared !== undefined && !isSameState(input.shared.stats, file.stats))
      throw new DezentError('CHANGED', `${input.path} changed while it was read`);
    const sizeBytes = Number(file.stats.size);
    const sizes = splitSizesFor(sizeBytes, input.earlierAverage);
    if (sizeBytes <= INLINE_MAX_BYTES) return given({ stats: file.stats, content: inlineContent(file, sizes, tools) });
    for (let more = true; more; await context.turn()) {
      const window = nextWindow(file, { baton, sizes }, tools);
      more = window !== undefined;
      if (window !== undefined) sealWindow({ ...window, stats: file.stats }, input.owner, { tools, context });
    }
    file.check();
    return given({ stats: file.stats, content: undefined });
  } catch (error) {
    endBaton(baton);
    throw error;
  } finally {
    file.close();
  }
}

const given = (value: SealOutput): Given => ({ value, transfer: [] });

function inlineContent(file: UnchangingFile, { averageBytes }: SplitSizes, { keys, window }: ThreadTools): ReadContent {
  const inline = window().subarray(0, Number(file.stats.size));
  file.read(inline, 0);
  file.check();
  return inlineContentOf(inline, averageBytes, keys);
}

interface CutWindow {
  position: number;
  bytes: Buffer;
  /** Where each chunk ends. */
  ends: number[];
}

/** With the baton: reads and cuts as much as fits; undefined when the file has ended. */
function nextWindow(
  file: UnchangingFile,
  { baton, sizes }: { baton: SharedArrayBuffer; sizes: SplitSizes },
  { keys, appender, window }: ThreadTools,
): CutWindow | undefined {
  const position = takeBaton(baton);
  if (position === undefined) return undefined;
  const sizeBytes = Number(file.stats.size);
  const bytes = window().subarray(0, Math.min(WINDOW_BYTES, sizeBytes - position));
  appender.checkRoom(bytes.length);
  file.read(bytes, position);
  const ends = endsIn(bytes, openCutter(keys.gear, sizes), position + bytes.length === sizeBytes);
  const next = position + (ends.at(-1) ?? 0);
  passBaton(baton, position, next === sizeBytes ? undefined : next);
  return { position, bytes, ends };
}

function endsIn(bytes: Buffer, cutter: ReturnType<typeof openCutter>, isLast: boolean): number[] {
  const ends: number[] = [];
  for (let at = 0; at < bytes.length;) {
    const taken = cutter.cut(bytes, at);
    if (taken === undefined) {
      if (isLast) ends.push(bytes.length);
      return ends;
    }
    at += taken;
    ends.push(at);
  }
  return ends;
}

/** What was sealed before an error is told too: it lies in the pack. */
function sealWindow(
  { position, bytes, ends, stats }: CutWindow & { stats: FileStats },
  owner: Uint8Array,
  { tools, context }: { tools: ThreadTools; context: JobContext },
): void {
  const chunks: WindowChunk[] = [];
  let start = 0;
  try {
    for (const end of ends) {
      const plain = bytes.subarray(start, end);
      const plainHash = keyedHash(tools.keys.plainHash, plain);
      const record = tools.known.add(plainHash) ? sealRecord(plain, owner, tools) : undefined;
      chunks.push({ plainHash, length: plain.length, record });
      start = end;
    }
  } finally {
    const window: SealedWindow = { stats, position, chunks, full: tools.appender.takeFull() };
    context.event(window);
  }
}

/** Seals one chunk that turned out not to be known. Throws CHANGED when it is not what it was. */
export function sealAgain(input: ResealInput, tools: ThreadTools, context: JobContext): Given {
  const { path, owner, stats, position, length, plainHash } = input;
  const file = openUnchanging(path);
  const changed = (): DezentError => new DezentError('CHANGED', `${path} changed while it was read`);
  try {
    if (!isSameState(stats, file.stats)) throw changed();
    const plain = tools.window().subarray(0, length);
    tools.appender.checkRoom(length);
    file.read(plain, position);
    if (!keyedHash(tools.keys.plainHash, plain).equals(plainHash)) throw changed();
    const record = sealRecord(plain, owner, tools);
    const window: SealedWindow = {
      stats,
      position,
      chunks: [{ plainHash, length, record }],
      full: tools.appender.takeFull(),
    };
    context.event(window);
    return { value: undefined, transfer: [] };
  } finally {
    file.close();
  }
}

export interface SealSolidInput {
  /** The parts, one after the other. */
  plain: Uint8Array;
  owner: Uint8Array;
}

export interface SealedSolid {
  record: AppendedRecord;
  full: PackId[];
}

/** Seals manifests as one solid block. */
export function sealSolidPart({ plain, owner }: SealSolidInput, tools: ThreadTools, context: JobContext): Given {
  tools.appender.checkRoom(plain.length);
  const sealed = sealNamedParts(KIND_MANIFEST, framePartsNow(plain), tools.keys.current);
  const record = appendSealed(sealed, owner, tools);
  const solid: SealedSolid = { record, full: tools.appender.takeFull() };
  context.event(solid);
  return { value: undefined, transfer: [] };
}
