// Group commit: changes that wait while one commit runs share the next one, its fdatasync and its index batch. Nobody waits for a
// timer. Order: records to the pack → fdatasync → index batch, synced → acknowledged; records that other threads appended are there already.
import { statfs } from 'node:fs/promises';
import type { CallOptions } from './block-store.ts';
import { PACK_BYTES, PACK_HEADER_BYTES, RECORD_HEADER_BYTES, type PackId } from './pack-file.ts';
import type { LoadedPacks } from './pack-load.ts';
import { planOf, type Change, type Plan } from './pack-plan.ts';
import type { StorePaths } from './pack-rebuild.ts';
import type { PackSession } from './pack-session.ts';
import { continuePack, createPack, syncPack, type PackWriter } from './pack-writer.ts';
import { asDezentError, DezentError, isDezentError } from '../errors.ts';

/** At most so much in one commit: at 500 MB/s a commit, and with it the wait for the next one, stays near 30 ms. */
export const COMMIT_BYTES: number = 16 * 1024 * 1024;
/** Kept free for the index, without which nothing can be freed either; `level` writes files of up to 4 MiB … */
const INDEX_RESERVE_BYTES: number = 16 * 1024 * 1024;
/** … and, up to the size of a pack, for a compaction; on a small disk this share. */
const COMPACT_RESERVE_SHARE = 1 / 32;

export interface CommitSettings {
  /** A pack ends before it is larger than this. */
  packBytes?: number | undefined;
  /** A put that would leave less free on the disk is refused; deletions and compactions may use it. */
  reserveBytes?: number | undefined;
}

export interface Committer {
  /** Makes the changes durable, all or none; at most COMMIT_BYTES of them. Once a commit has begun, a signal no longer ends it. */
  submit(changes: readonly Change[], options?: CallOptions): Promise<void>;
  /** When all that was submitted is done. */
  idle(): Promise<void>;
}

interface Job {
  changes: readonly Change[];
  bytes: number;
  signal: AbortSignal | undefined;
  isRepeated: boolean;
  done: PromiseWithResolvers<void>;
}

/** The most that a change adds to a pack. */
export function changeBytes(change: Change): number {
  return 'bytes' in change ? 2 * RECORD_HEADER_BYTES + change.bytes.length : RECORD_HEADER_BYTES;
}

/** Bytes free for this process on the disk of a directory. */
export async function freeBytesOf(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir);
  return bavail * bsize;
}

export function openCommitter(needs: { paths: StorePaths; session: PackSession }, settings: CommitSettings): Committer {
  const { paths, session } = needs;
  const packBytes = settings.packBytes ?? PACK_BYTES;
  const waiting: Job[] = [];
  let running: Promise<void> | undefined;

  function submit(changes: readonly Change[], options: CallOptions = {}): Promise<void> {
    const bytes = changes.reduce((sum, change) => sum + changeBytes(change), 0);
    const job: Job = { changes, bytes, signal: options.signal, isRepeated: false, done: Promise.withResolvers() };
    waiting.push(job);
    running ??= run();
    return job.done.promise;
  }

  async function run(): Promise<void> {
    while (waiting.length > 0) {
      await session.inTurn(commitSome).catch((error: unknown) => {
        for (const { done } of waiting.splice(0)) done.reject(asDezentError(error));
      });
    }
    running = undefined;
  }

  async function commitSome(packs: LoadedPacks): Promise<void> {
    const wanted = { dir: paths.packs, bytes: waiting[0]?.bytes ?? 0, packBytes, lent: session.lent };
    const writer = await writerFor(packs, wanted);
    const { roomBytes } = await roomForPuts(paths.dir, settings.reserveBytes);
    const jobs = admitted(takeJobs(waiting, packBytes - writer.end), roomBytes, session.lent);
    const changes = jobs.flatMap((job) => job.changes);
    try {
      const plan = await planOf(packs, { pack: writer.pack, offset: writer.end }, changes);
      await Promise.all(plan.adopted.map((pack) => syncPack(paths.packs, pack)));
      await commit(session, packs, plan);
      for (const { done } of jobs) done.resolve();
    } catch (error) {
      if (isDezentError(error, 'BAD_INDEX')) session.spoil(packs, [], error);
      refuse(jobs, error);
    }
  }

  /** Tells the jobs; but where all has to be loaded again anyway, each is tried once more after that: an error of the index may be an old one. */
  function refuse(jobs: Job[], error: unknown): void {
    const again = session.isSpoilt() ? jobs.filter(({ isRepeated }) => !isRepeated) : [];
    for (const job of jobs) if (!again.includes(job)) job.done.reject(asDezentError(error));
    for (const job of again) job.isRepeated = true;
    waiting.unshift(...again);
  }

  return {
    submit,
    idle: async () => running,
  };
}

interface Wanted {
  dir: string;
  /** Of the first job. */
  bytes: number;
  packBytes: number;
  lent: ReadonlyMap<PackId, number>;
}

/** The pack that is appended to; another one when this one has no room. An empty pack takes anything. */
async function writerFor(packs: LoadedPacks, { dir, bytes, packBytes, lent }: Wanted): Promise<PackWriter> {
  const { writer } = packs;
  if (writer?.intact && (writer.end === PACK_HEADER_BYTES || writer.end + bytes <= packBytes)) return writer;
  const open = [...packs.states.values()].find(
    ({ pack, end, sealed, doubtful }) =>
      !sealed &&
      !doubtful &&
      !lent.has(pack) &&
      !packs.missing.has(pack) &&
      end >= PACK_HEADER_BYTES &&
      end + bytes <= packBytes,
  );
  const resumed = writer === undefined && open !== undefined;
  packs.writer = await (resumed ? continuePack(dir, open.pack, open.end) : createPack(dir));
  await writer?.close();
  return packs.writer;
}

/** What puts may take of the disk of this directory, and what is to stay free there. */
export async function roomForPuts(
  dir: string,
  setReserveBytes: number | undefined,
): Promise<{ roomBytes: number; reserveBytes: number }> {
  const { bavail, blocks, bsize } = await statfs(dir);
  const least = INDEX_RESERVE_BYTES + Math.min(PACK_BYTES, blocks * bsize * COMPACT_RESERVE_SHARE);
  const reserveBytes = setReserveBytes ?? least;
  return { roomBytes: bavail * bsize - reserveBytes, reserveBytes };
}

/** As many as fit into one commit and into the pack; at least one. */
function takeJobs(waiting: Job[], room: number): Job[] {
  const most = Math.min(COMMIT_BYTES, room);
  let bytes = 0;
  const count = waiting.findIndex((job, index) => (bytes += job.bytes) > most && index > 0);
  return waiting.splice(0, count < 0 ? waiting.length : count);
}

/** The jobs without those that were ended meanwhile, for which there is no room, or whose pack is not theirs any more; these are told. */
function admitted(jobs: Job[], room: number, lent: ReadonlyMap<PackId, number>): Job[] {
  let left = room;
  return jobs.filter(({ changes, bytes, signal, done }) => {
    if (signal?.aborted) {
      done.reject(signal.reason as Error);
      return false;
    }
    if (changes.some((change) => change.kind === 'adopt' && lent.get(change.pack) !== change.loan)) {
      done.reject(new DezentError('IO', 'the pack of these blocks was given back before they were kept'));
      return false;
    }
    if (!changes.some(({ kind }) => kind === 'put')) return true;
    if (bytes <= left) {
      left -= bytes;
      return true;
    }
    done.reject(new DezentError('DISK_FULL', `the disk of the block store has no room for ${bytes} bytes more`));
    return false;
  });
}

/** Carries a plan out; after an error either nothing has happened or the session is spoilt. */
async function commit(session: PackSession, packs: LoadedPacks, plan: Plan): Promise<void> {
  const { writer } = packs;
  if (plan.states.length === 0 || writer === undefined) return;
  const ids = plan.changes.map(({ id }) => id);
  try {
    if (plan.records.length > 0) await writer.append(plan.records);
  } catch (error) {
    if (!writer.intact) session.spoil(packs, ids, error);
    throw error;
  }
  try {
    await packs.index.write(plan.changes, plan.states);
  } catch (error) {
    session.spoil(packs, ids, error);
    throw error;
  }
  for (const state of plan.states) packs.states.set(state.pack, state);
  for (const id of ids) packs.damaged.delete(id);
}
