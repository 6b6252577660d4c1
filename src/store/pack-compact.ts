// Gives space back: the live records of a pack with much dead in it are appended anew, then the old pack is unlinked. Readers go on
// meanwhile: the index changes before the old pack goes, and whoever still has the old place asks the index again.
import { open, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { blockIdOf } from './block.ts';
import type { CallOptions } from './block-store.ts';
import { changeBytes, COMMIT_BYTES, type Committer } from './pack-commit.ts';
import {
  PACK_BYTES,
  PACK_HEADER_BYTES,
  packName,
  RECORD_HEADER_BYTES,
  type PackId,
  type RecordHead,
} from './pack-file.ts';
import type { PackState } from './pack-index.ts';
import type { LoadedPacks, Notify } from './pack-load.ts';
import type { Change } from './pack-plan.ts';
import type { PackReader } from './pack-reader.ts';
import type { StorePaths } from './pack-rebuild.ts';
import { readBytes, scanPack } from './pack-scan.ts';
import type { PackSession } from './pack-session.ts';
import { syncDirectory } from './pack-writer.ts';

/** In the background a pack is rewritten once half of it is dead: each byte is then moved about once more in its life. */
const DEAD_SHARE = 1 / 2;
/** Asked for at once, a pack is rewritten for this much, or for this share of a small one. */
const NOW_DEAD_BYTES: number = 1024 * 1024;
const NOW_DEAD_SHARE = 1 / 8;
/** Half a commit, so that others get their turn. */
const MOVE_BYTES: number = COMMIT_BYTES / 2;

export interface Compactor {
  /** Something died: begins in the background where it pays. */
  nudge(): void;
  /** Compacts where it pays, `now` already for little, and returns when it is done; the bytes given back. */
  compact(options: CallOptions & { now?: boolean }): Promise<{ freedBytes: number }>;
  close(): Promise<void>;
}

export interface CompactNeeds {
  paths: StorePaths;
  session: PackSession;
  committer: Committer;
  reader: PackReader;
  notify: Notify;
}

export function openCompactor(needs: CompactNeeds): Compactor {
  const { session, notify } = needs;
  const closing = new AbortController();
  /** Packs that could not be emptied, until the next start: a live record in them cannot be read. */
  const stuck = new Set<PackId>();
  /** How many packs had gone when a pack of tombstones only was last looked at: new ones may have made its tombstones needless. */
  const lookedAt = new Map<PackId, number>();
  let gone = 0;
  let last: Promise<unknown> = Promise.resolve();
  let background: Promise<void> | undefined;

  function isVictim(state: PackState, now: boolean): boolean {
    if (state.doubtful || stuck.has(state.pack) || session.lent.has(state.pack)) return false;
    const dead = deadBytes(state);
    if (state.liveBlocks === 0) return dead > 0 || (state.tombstoneBytes > 0 && lookedAt.get(state.pack) !== gone);
    return dead >= state.end * DEAD_SHARE || (now && (dead >= NOW_DEAD_BYTES || dead >= state.end * NOW_DEAD_SHARE));
  }

  /** The packs to rewrite, the deadest first. They are sealed, so that nothing is appended to them any more. */
  async function pick(packs: LoadedPacks, now: boolean): Promise<PackId[]> {
    const active = packs.writer?.pack;
    const rolls = (state: PackState): boolean =>
      now ? isVictim(state, now) : deadBytes(state) >= PACK_BYTES * DEAD_SHARE;
    const victims = [...packs.states.values()].filter(
      (state) => !packs.missing.has(state.pack) && (state.pack === active ? rolls(state) : isVictim(state, now)),
    );
    for (const state of victims) state.sealed = true;
    if (victims.some(({ pack }) => pack === active)) {
      await packs.writer?.close();
      packs.writer = undefined;
    }
    return victims.sort((one, other) => one.liveBytes - other.liveBytes).map(({ pack }) => pack);
  }

  async function run(now: boolean, signal: AbortSignal): Promise<{ freedBytes: number }> {
    const before = await totalBytes(session);
    for (const pack of await session.inTurn((packs) => pick(packs, now))) {
      signal.throwIfAborted();
      lookedAt.set(pack, gone);
      await empty(needs, pack, signal);
      if (await session.inTurn((packs) => unlinkEmpty(packs, needs, pack))) gone++;
      else {
        stuck.add(pack);
        notify({ what: 'pack-damaged', message: `pack ${pack} is kept: some of its blocks cannot be read` });
      }
    }
    return { freedBytes: Math.max(0, before - (await totalBytes(session))) };
  }

  /** One run after the other. */
  function compact(options: CallOptions & { now?: boolean }): Promise<{ freedBytes: number }> {
    const signal = AbortSignal.any([closing.signal, ...(options.signal ? [options.signal] : [])]);
    const result = last.then(() => run(options.now ?? false, signal));
    last = result.catch(() => undefined); // the caller has it
    return result;
  }

  async function inBackground(): Promise<void> {
    try {
      await compact({});
    } catch (error) {
      if (!closing.signal.aborted)
        notify({ what: 'compaction-failed', message: 'disk space could not be given back', error });
    }
    background = undefined;
  }

  return {
    compact,
    nudge: () => {
      if (!closing.signal.aborted) background ??= inBackground();
    },
    close: async () => {
      closing.abort();
      await last;
    },
  };
}

function deadBytes({ end, liveBytes, tombstoneBytes }: PackState): number {
  return Math.max(0, end - PACK_HEADER_BYTES - liveBytes - tombstoneBytes);
}

async function totalBytes(session: PackSession): Promise<number> {
  const { states } = await session.loaded();
  return [...states.values()].reduce((sum, { end }) => sum + end, 0);
}

/** Appends anew what is still needed of a pack. */
async function empty({ paths, session, committer }: CompactNeeds, pack: PackId, signal: AbortSignal): Promise<void> {
  const { states } = await session.loaded();
  const state = states.get(pack);
  if (state === undefined || (state.liveBlocks === 0 && state.tombstoneBytes === 0)) return;
  const file = await open(join(paths.packs, packName(pack)), 'r');
  let moves: Change[] = [];
  let bytes = 0;
  try {
    for await (const found of scanPack({ pack, file, from: 0, size: state.end })) {
      signal.throwIfAborted();
      const change = found.kind === 'record' ? await changeFor(session, file, { pack, ...found }) : undefined;
      if (change === undefined) continue;
      moves.push(change);
      bytes += changeBytes(change);
      if (bytes < MOVE_BYTES) continue;
      await committer.submit(moves);
      moves = [];
      bytes = 0;
    }
    await committer.submit(moves);
  } finally {
    await file.close();
  }
}

/** How a record of a pack that will go is kept, or undefined when it need not or cannot be. */
async function changeFor(
  session: PackSession,
  file: FileHandle,
  { pack, offset, head }: { pack: PackId; offset: number; head: RecordHead },
): Promise<Change | undefined> {
  const { index, states } = await session.loaded();
  if (head.kind === 'tombstone') {
    const needed = head.target.pack !== pack && states.has(head.target.pack);
    return needed ? { kind: 'keep', id: head.id, target: head.target } : undefined;
  }
  const from = index.get(head.id);
  if (from?.pack !== pack || from.offset !== offset) return undefined;
  const bytes = await readBytes(file, offset + RECORD_HEADER_BYTES, head.length);
  return bytes.length === head.length && blockIdOf(bytes) === head.id
    ? { kind: 'move', id: head.id, bytes, from }
    : undefined;
}

/** Unlinks a pack that has nothing live, in turn; false when it has. First the file goes for good, then the knowledge of it. */
async function unlinkEmpty(
  packs: LoadedPacks,
  { paths, reader, session }: CompactNeeds,
  pack: PackId,
): Promise<boolean> {
  const state = packs.states.get(pack);
  if (state === undefined) return true;
  if (state.liveBlocks > 0 || packs.writer?.pack === pack) return false;
  await rm(join(paths.packs, packName(pack)), { force: true });
  await reader.forget(pack);
  await syncDirectory(paths.packs);
  packs.states.delete(pack);
  try {
    await packs.index.write([], [], { drop: pack });
  } catch (error) {
    session.spoil(packs, [], error);
    throw error;
  }
  return true;
}
