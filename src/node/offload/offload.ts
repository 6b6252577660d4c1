// Offload: an original gives its disk space back and a stub stands for it. The order of the steps is what keeps files safe
// (docs/design.md, part 5): at every instant the original is in its place or in quarantine on the same disk.
//
//   openStable → checkOffloadable → confirmHeld → checkStored → journal → putStub → into quarantine → check → commit → finish
import { unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { DezentError, systemCode } from '../../errors.ts';
import { readBack } from '../../store/pipeline.ts';
import { decodeStub, encodeStub, type Stub } from '../../store/stub.ts';
import type { BlockId } from '../../store/block.ts';
import { NAME_MAX_BYTES, OWN_TMP_PREFIX } from '../files/folder.ts';
import { identityOf, lstatIfPresent } from '../files/identity.ts';
import { newOperationId, type OffloadRecord } from './journal.ts';
import { checkContent, withLease } from './original-check.ts';
import type { Quarantine, QuarantineNeeds } from './quarantine.ts';
import { openStable, type StableFile } from '../files/stable-file.ts';
import { moveInto, readStubBytes, takeName, writeNew, type QuarantinePlace } from './swap.ts';
import type { TreeItem } from '../files/tree.ts';

export interface OffloadNeeds extends QuarantineNeeds {
  quarantine: Quarantine;
  graceMs(): number;
  stubMinBytes(): number;
  /** True when all of these blocks are on this machine. */
  hasAll(ids: readonly BlockId[]): Promise<boolean>;
}

export interface Offloaded {
  item: TreeItem;
  /** Bytes given back; 0 while the original waits in quarantine. */
  freedBytes: number;
  copies: number;
}

/**
 * Puts the stub in the original's place; the caller holds the path's lock. `now`: without grace, and local blocks leave too.
 * Throws UNSAFE (too few good holders, or not a file for a stub), BUSY, CHANGED, NAME_TAKEN: the original is then where it was.
 */
export type Offload = (path: string, now: boolean) => Promise<Offloaded>;

/** Where the system cannot tell who has a file open, a late writer gets at least this long. */
const LEASELESS_GRACE_MS = 60_000;

/** Why a file of this size and name is never offloaded, or undefined. */
export function neverOffloaded(
  path: string,
  file: { sizeBytes: number; links: number },
  stubMinBytes: number,
): string | undefined {
  if (basename(path) === '.dezentignore') return 'it tells dezent what to ignore';
  if (file.sizeBytes < stubMinBytes) return `it has fewer than ${stubMinBytes} bytes, so a stub would free nothing`;
  if (file.links !== 1) return 'it has several names (hard links), and the others would keep its space';
  if (Buffer.byteLength(basename(path)) + 2 > NAME_MAX_BYTES)
    return 'the name of its stub would be too long for the file system';
  return undefined;
}

export function openOffload(needs: OffloadNeeds): Offload {
  const { folder, tree, journal, copies, manifests, keys, own, quarantine, takeLease, fetch } = needs;

  function checkOffloadable({ entry: { path }, seen }: TreeItem, { stats }: StableFile): void {
    const never = neverOffloaded(
      path,
      { sizeBytes: Number(stats.size), links: Number(stats.nlink) },
      needs.stubMinBytes(),
    );
    if (never !== undefined) throw new DezentError('UNSAFE', `${path} stays a file: ${never}`);
    // Also while that one has given way itself: solver and solver.f would be told apart by nobody.
    if (tree.get(folder.stubOf(path)) !== undefined)
      throw new DezentError(
        'NAME_TAKEN',
        `${path} stays a file: its stub would have the name of another file of yours`,
      );
    if (identityOf(stats) !== seen) throw new DezentError('CHANGED', `${path} changed since it was stored`);
  }

  /** What is stored gives these very bytes: read back from the kept blocks or, where they are not here, compared with the file. */
  async function checkStored(item: TreeItem, file: StableFile): Promise<void> {
    const { entry } = item;
    const content = await copies.contentOf(item);
    if (content === undefined || entry.root === undefined)
      throw new DezentError('UNSAFE', `${entry.path} has no stored content`);
    const manifest = await manifests.at(entry.root, fetch);
    if (await needs.hasAll(content.blocks)) await readBack(manifest, { keys: keys(), fetch });
    else await checkContent(file, manifest, keys());
  }

  function stubFor({ fileId, mode, mtimeUs, path, root, sizeBytes }: TreeItem['entry']): Stub {
    if (root === undefined) throw new DezentError('INTERNAL', `${path} has no root`);
    return {
      ...own,
      epoch: keys().current.id,
      fileId,
      mode: mode & 0o777,
      mtimeUs,
      name: basename(path),
      root,
      sizeBytes,
    };
  }

  /** Clears the stub's name: an intact stub of ours goes to quarantine; anything else stays, and then no stub is made. */
  async function clearStubName(stubPath: string, place: QuarantinePlace): Promise<void> {
    if ((await lstatIfPresent(stubPath)) === undefined) return;
    const found = await readStubBytes(stubPath);
    try {
      decodeStub(found?.bytes ?? new Uint8Array(0), keys(), own);
    } catch (error) {
      throw new DezentError(
        'NAME_TAKEN',
        `${stubPath} exists and is not an intact stub, so the original stays a file`,
        { cause: error },
      );
    }
    await moveInto(place, stubPath, place.oldStub);
  }

  async function putStub(item: TreeItem, id: string, place: QuarantinePlace): Promise<void> {
    const stubPath = folder.absolute(folder.stubOf(item.entry.path));
    await clearStubName(stubPath, place);
    const tmp = join(dirname(stubPath), `${OWN_TMP_PREFIX}${id}`);
    // Readable by its owner at least, so that opening it can work; never executable.
    await writeNew(
      tmp,
      encodeStub(stubFor(item.entry), keys()),
      (item.entry.mode & 0o666) | 0o400,
      item.entry.mtimeUs / 1e6,
    );
    await takeName(tmp, stubPath).catch(async (error: unknown) => {
      await unlink(tmp).catch((cause: unknown) => {
        if (systemCode(cause) !== 'ENOENT') throw cause;
      });
      throw error;
    });
  }

  async function swapForStub(item: TreeItem, record: OffloadRecord): Promise<void> {
    const place = await quarantine.place(record);
    await putStub(item, record.id, place);
    await moveInto(place, folder.absolute(record.path), place.original);
  }

  /** The original in quarantine, the stub in its place. After a failure everything is settled as the disk calls for. */
  async function giveWay(item: TreeItem, file: StableFile): Promise<{ record: OffloadRecord; leased: boolean }> {
    const { path, fileId, root } = item.entry;
    if (root === undefined) throw new DezentError('INTERNAL', `${path} has no root`);
    const what = { path, name: basename(path), fileId, root, segment: item.segment, seen: item.seen };
    const record: OffloadRecord = { v: 1, op: 'offload', id: newOperationId(), step: 'intent', ...what, dueAt: 0 };
    return settled(record, () =>
      withLease(file, takeLease, async (leased) => {
        await file.checkUnchanged();
        record.dueAt = Date.now() + (leased ? needs.graceMs() : Math.max(needs.graceMs(), LEASELESS_GRACE_MS));
        await journal.write(record);
        await swapForStub(item, record);
        return { record, leased };
      }),
    );
  }

  /** A step of an operation; when it fails, what it left is settled before the error goes on. */
  async function settled<T>(record: OffloadRecord, step: () => Promise<T>): Promise<T> {
    try {
      return await step();
    } catch (error) {
      const left = journal.get(record.id);
      if (left?.op === 'offload') await quarantine.settle(left);
      throw error;
    }
  }

  /** Everything up to the swap; the file is closed then, because the next lease needs to be the only one that has it open. */
  async function swap(item: TreeItem): Promise<{ record: OffloadRecord; leased: boolean; copies: number }> {
    const { path } = item.entry;
    await using file = await openStable(folder.absolute(path));
    checkOffloadable(item, file);
    const held = await needs.confirmHeld(item, false);
    if (held.copies < needs.minCopies()) {
      throw new DezentError('UNSAFE', `${path} has ${held.copies} of ${needs.minCopies()} copies: ${held.problem}`);
    }
    await checkStored(item, file);
    return { ...(await giveWay(item, file)), copies: held.copies };
  }

  return async function offload(path, now) {
    const item = tree.get(path);
    if (item === undefined || item.entry.kind !== 'file')
      throw new DezentError('NOT_FOUND', `${path} is not a stored file`);
    const { record, leased, copies: count } = await swap(item);
    return settled(record, async () => {
      const atOnce = now && leased;
      if (!atOnce) await quarantine.check(record); // at once, finish checks all the same
      const stubbed = await quarantine.commit(record, item);
      const freedBytes = atOnce ? await quarantine.finish(stubbed.record, true) : 0;
      return { item: stubbed.item, freedBytes, copies: count };
    });
  };
}
