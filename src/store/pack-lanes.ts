// Packs lent to other threads: a thread appends to a lane without asking anybody, this one then adopts what was appended: syncs the
// pack, writes the index, and only then is it kept. A pack that is lent is left alone by the committer and the compactor.
import { join } from 'node:path';
import type { BlockId } from './block.ts';
import type { CallOptions } from './block-store.ts';
import { submitAll } from './pack-batches.ts';
import { roomForPuts, type CommitSettings, type Committer } from './pack-commit.ts';
import { PACK_BYTES, packName, type PackId, type Place } from './pack-file.ts';
import type { LoadedPacks } from './pack-load.ts';
import { newPackState, type StorePaths } from './pack-rebuild.ts';
import type { PackSession } from './pack-session.ts';
import { continuePack, createPack } from './pack-writer.ts';

/** A pack with less room than this is not lent: few blocks would fit. */
const LEAST_ROOM_SHARE = 1 / 8;

/** Plain data, for the thread that appends. */
export interface PackLane {
  pack: PackId;
  /** Of this loan: what was appended under an earlier one is not adopted any more. */
  loan: number;
  path: string;
  /** Where the next record goes. */
  end: number;
  /** The pack is full here; an empty one takes anything. */
  packBytes: number;
  /** So much of the disk is not to be used. */
  reserveBytes: number;
}

/** A record that a thread has written whole. */
export interface LaneRecord extends Place {
  loan: number;
  id: BlockId;
  length: number;
  owner: Uint8Array;
}

export interface PackLanes {
  /** A pack that nobody else appends to until it is given back. Throws DISK_FULL, IO. */
  take(): Promise<PackLane>;
  /**
   * Makes the records durable and known; a block that is kept already stays where it is. Records of one pack come in order. Throws IO
   * when their pack was given back: they may have been cut off.
   */
  adopt(records: readonly LaneRecord[], options?: CallOptions): Promise<void>;
  /** Nobody appends to it any more; what was appended and not adopted is cut off before the pack is used again. */
  giveBack(pack: PackId): Promise<void>;
  /** The listener gives back what is not in use right now, so that it can be compacted. Returns the way to stop. */
  onRecall(listener: () => Promise<void>): () => void;
  /** Resolves when every borrower has done so. */
  recall(): Promise<void>;
}

export interface LaneNeeds {
  paths: StorePaths;
  session: PackSession;
  committer: Committer;
}

export function openPackLanes({ paths, session, committer }: LaneNeeds, settings: CommitSettings): PackLanes {
  const packBytes = settings.packBytes ?? PACK_BYTES;
  const borrowers = new Set<() => Promise<void>>();
  let loan = 0;

  async function take(packs: LoadedPacks): Promise<PackLane> {
    const open = [...packs.states.values()].find(
      ({ pack, end, sealed, doubtful }) =>
        !sealed &&
        !doubtful &&
        !session.lent.has(pack) &&
        !packs.missing.has(pack) &&
        pack !== packs.writer?.pack &&
        end <= packBytes * (1 - LEAST_ROOM_SHARE),
    );
    const { reserveBytes } = await roomForPuts(paths.dir, settings.reserveBytes);
    const writer = await (open === undefined
      ? createPack(paths.packs)
      : continuePack(paths.packs, open.pack, open.end));
    const { pack, end } = writer;
    loan += 1;
    session.lent.set(pack, loan);
    if (open === undefined) packs.states.set(pack, newPackState(pack, end));
    await writer.close();
    return { pack, loan, path: join(paths.packs, packName(pack)), end, packBytes, reserveBytes };
  }

  return {
    take: () => session.inTurn(take),
    adopt: (records, options = {}) =>
      submitAll(
        committer,
        records.map((record) => ({ kind: 'adopt', ...record })),
        options,
      ),
    giveBack: (pack) =>
      session.inTurn(async () => {
        session.lent.delete(pack);
      }),
    onRecall(listener) {
      borrowers.add(listener);
      return () => void borrowers.delete(listener);
    },
    async recall() {
      await Promise.all([...borrowers].map((giveBack) => giveBack()));
    },
  };
}
