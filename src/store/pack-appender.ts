// The thread's side of pack lanes: appends records to the packs it was lent, synchronously and without syncing; whoever lent them adopts
// what was appended. After a failed write the pack ends where it ended before.
import { closeSync, ftruncateSync, openSync, statfsSync, writevSync } from 'node:fs';
import { dirname } from 'node:path';
import { DezentError } from '../errors.ts';
import type { BlockId } from './block.ts';
import { encodeRecordHeader, PACK_HEADER_BYTES, RECORD_HEADER_BYTES, type PackId } from './pack-file.ts';
import type { LaneRecord, PackLane } from './pack-lanes.ts';

export interface PackAppender {
  /** Takes one more pack to append to. */
  lend(lane: PackLane): void;
  /** Throws DISK_FULL when the disk has no room for so many bytes. */
  checkRoom(bytes: number): void;
  /** Writes a record whose bytes are these parts, one after the other. Throws DISK_FULL, IO as the system says it. */
  append(id: BlockId, owner: Uint8Array, parts: readonly Uint8Array[]): LaneRecord;
  /** Packs that became full since this was last called: nothing more is appended to them. */
  takeFull(): PackId[];
}

interface OpenLane extends PackLane {
  fd: number;
}

export function openPackAppender(): PackAppender {
  const lanes: PackLane[] = [];
  let full: PackId[] = [];
  let current: OpenLane | undefined;

  /** The pack for a record of this size. With no other at hand the one in use grows beyond its size: offsets have room for it. */
  function laneFor(bytes: number): OpenLane {
    const fits =
      current !== undefined && (current.end === PACK_HEADER_BYTES || current.end + bytes <= current.packBytes);
    if (current !== undefined && (fits || lanes.length === 0)) return current;
    const next = lanes.shift();
    if (next === undefined) throw new DezentError('INTERNAL', 'no pack was lent to this thread');
    const fd = openSync(next.path, 'r+');
    if (current !== undefined) {
      closeSync(current.fd);
      full.push(current.pack);
    }
    current = { ...next, fd };
    return current;
  }

  return {
    lend: (lane) => void lanes.push(lane),
    checkRoom(bytes) {
      const lane = current ?? lanes[0];
      if (lane === undefined) return;
      const { bavail, bsize } = statfsSync(dirname(lane.path));
      if (bavail * bsize - lane.reserveBytes < bytes)
        throw new DezentError('DISK_FULL', `the disk of the block store has no room for ${bytes} bytes more`);
    },
    append(id, owner, parts) {
      const length = parts.reduce((sum, part) => sum + part.length, 0);
      const lane = laneFor(RECORD_HEADER_BYTES + length);
      const { pack, fd, end: offset } = lane;
      const header = encodeRecordHeader({ pack, offset }, { kind: 'block', id, owner, length });
      try {
        writeAllNow(fd, [header, ...parts], offset);
      } catch (error) {
        ftruncateSync(fd, offset);
        throw error;
      }
      lane.end += RECORD_HEADER_BYTES + length;
      return { id, pack, loan: lane.loan, offset, length, owner };
    },
    takeFull() {
      const taken = full;
      full = [];
      return taken;
    },
  };
}

/** Writes all pieces, whatever the system takes at a time (a full disk takes a part before it refuses). */
function writeAllNow(fd: number, pieces: readonly Uint8Array[], offset: number): void {
  let rest = pieces;
  let at = offset;
  while (rest.length > 0) {
    let left = writevSync(fd, rest, at);
    at += left;
    const first = rest.findIndex((piece) => {
      if (left < piece.length) return true;
      left -= piece.length;
      return false;
    });
    if (first === -1) return;
    rest = [(rest[first] as Uint8Array).subarray(left), ...rest.slice(first + 1)];
  }
}
