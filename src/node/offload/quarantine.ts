// Quarantine: originals whose stub stands already wait here, on the same disk, until their space may be given back. Every way out is here:
// removed after fresh checks and proofs, brought back to its path, or (after a failed step) whichever of the two the disk calls for.
import { unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DezentError, isDezentError } from '../../errors.ts';
import type { BlockId } from '../../store/block.ts';
import type { ContentKeys } from '../../store/secrets.ts';
import { decodeStub } from '../../store/stub.ts';
import { rootKey } from '../files/content-index.ts';
import { syncDirectory } from '../home/durable-file.ts';
import { nameBeside, OWN_TMP_PREFIX, type Folder } from '../files/folder.ts';
import { identityOf, lstatIfPresent, sizeOfIdentity } from '../files/identity.ts';
import type { CopyCount, ItemCopies } from '../copies/item-copies.ts';
import type { Journal, OffloadRecord } from './journal.ts';
import type { Fetch, Manifests } from '../files/manifests.ts';
import { checkContent, withLease, type TakeLease } from './original-check.ts';
import { openStable } from '../files/stable-file.ts';
import {
  dropPlace,
  isSameFile,
  moveBack,
  quarantinePlace,
  readStubBytes,
  unlinkIfSame,
  type QuarantinePlace,
} from './swap.ts';
import type { Tree, TreeItem } from '../files/tree.ts';

export interface QuarantineNeeds {
  folder: Folder;
  tree: Tree;
  journal: Journal;
  copies: ItemCopies;
  manifests: Manifests;
  keys: () => ContentKeys;
  own: { ownerId: string; groupId: string };
  minCopies(): number;
  takeLease: TakeLease;
  fetch: Fetch;
  /** Holders that keep every block of the item: proved now (`fresh`) or within the last hour. */
  confirmHeld(item: TreeItem, fresh: boolean): Promise<CopyCount & { problem: string }>;
  /** The item's blocks are kept by enough others: they may leave this machine (`now`: at once). */
  evict(ids: readonly BlockId[], now: boolean): Promise<void>;
  onFreed(path: string, bytes: number): void;
  onKept(path: string, error: unknown): void;
}

export interface Quarantine {
  place(record: OffloadRecord): Promise<QuarantinePlace>;
  /** Throws CHANGED or BUSY unless the quarantined original is still what was stored and nobody has it open. */
  check(record: OffloadRecord): Promise<void>;
  /** Says in journal and tree that the stub stands. */
  commit(record: OffloadRecord, item: TreeItem): Promise<{ record: OffloadRecord; item: TreeItem }>;
  /**
   * Removes the original after fresh proofs and check; gives its bytes (0 when it had left before). Throws UNSAFE, CHANGED, BUSY: then it is
   * still there.
   */
  finish(record: OffloadRecord, now: boolean): Promise<number>;
  /** Brings the original back to its path and takes the stub away. False when the path is taken, or its space was given back already. */
  bringBack(record: OffloadRecord): Promise<boolean>;
  /** Completes a way out that was interrupted. `waits`: none was, the original is where it should be. */
  resume(record: OffloadRecord): Promise<'waits' | 'back' | 'gone'>;
  /** After a step that failed, or a crash: back to a file where that can be, else on as a stub. */
  settle(record: OffloadRecord): Promise<void>;
}

export function openQuarantine(needs: QuarantineNeeds): Quarantine {
  const { folder, tree, journal, copies, manifests, keys, own, takeLease, fetch } = needs;

  const place = async (record: OffloadRecord): Promise<QuarantinePlace> =>
    quarantinePlace(await folder.quarantine(), record.id, record.name);
  const stubPathOf = (record: OffloadRecord): string => folder.absolute(folder.stubOf(record.path));
  const isThere = async (path: string): Promise<boolean> => (await lstatIfPresent(path)) !== undefined;

  /** The identity of the stub that this operation made, if it stands. */
  async function ownStub(record: OffloadRecord): Promise<string | undefined> {
    const found = await readStubBytes(stubPathOf(record));
    if (found === undefined) return undefined;
    try {
      return rootKey(decodeStub(found.bytes, keys(), own).root) === rootKey(record.root) ? found.identity : undefined;
    } catch (error) {
      if (!isDezentError(error)) throw error;
      needs.onKept(record.path, error); // something else has that name: it stays
      return undefined;
    }
  }

  async function removeStub(record: OffloadRecord): Promise<void> {
    const identity = await ownStub(record);
    if (identity !== undefined) await unlinkIfSame(stubPathOf(record), identity);
    const at = await place(record);
    if (await isThere(at.oldStub)) await moveBack(at, at.oldStub, stubPathOf(record));
    await dropPlace(at);
  }

  /** The stub that stood there before: of no use beside the one that took its name, else back to it. */
  async function dropOldStub(record: OffloadRecord, at: QuarantinePlace): Promise<void> {
    if (!(await isThere(at.oldStub))) return;
    if (record.step === 'stubbed' || (await ownStub(record)) !== undefined) await unlink(at.oldStub);
    else await moveBack(at, at.oldStub, stubPathOf(record));
  }

  async function check(record: OffloadRecord): Promise<void> {
    await using file = await openStable((await place(record)).original);
    if (identityOf(file.stats) !== record.seen) {
      throw new DezentError('CHANGED', `${record.path} was written to while it gave way to its stub`);
    }
    const manifest = await manifests.at(record.root, fetch);
    await withLease(file, takeLease, () => checkContent(file, manifest, keys()));
  }

  async function commit(record: OffloadRecord, item: TreeItem): Promise<{ record: OffloadRecord; item: TreeItem }> {
    const stats = await lstatIfPresent(stubPathOf(record));
    if (stats === undefined) throw new DezentError('CHANGED', `the stub of ${record.path} went away while it was made`);
    const stubbed: OffloadRecord = { ...record, step: 'stubbed' };
    await journal.write(stubbed);
    const seen = identityOf(stats);
    const next = await tree.update(record.path, (now) => ({
      ...now,
      state: 'stubbed',
      reason: '',
      seen,
      since: Date.now(),
    }));
    return { record: stubbed, item: next ?? item };
  }

  /**
   * The file, wherever it has been renamed to, with the content that waits (a newer version may have come since). Of one that its owner has
   * deleted only the content is left to prove: history keeps it.
   */
  function itemOf({ fileId, root, path, segment, seen }: OffloadRecord): TreeItem {
    const item = tree.get(tree.pathOf(fileId) ?? path);
    if (item !== undefined && Buffer.from(item.entry.fileId).equals(fileId))
      return { ...item, entry: { ...item.entry, root } };
    const sizeBytes = sizeOfIdentity(seen);
    const entry = { fileId, path, kind: 'file' as const, root, sizeBytes, mode: 0, mtimeUs: 0, versions: {} };
    return {
      entry,
      state: 'stubbed',
      reason: '',
      seen,
      segment: { id: segment.id as BlockId, seq: segment.seq },
      copies: 0,
      since: 0,
    };
  }

  async function finish(record: OffloadRecord, now: boolean): Promise<number> {
    const way = await resume(record);
    if (way === 'back') return 0;
    const item = itemOf(record);
    const bytes = way === 'gone' ? 0 : await remove(record, item);
    if (needs.minCopies() > 0) await needs.evict(await copies.idsOf(item), now);
    return bytes;
  }

  /** The check comes last: what happens to the original while holders are asked is seen by it. */
  async function remove(record: OffloadRecord, item: TreeItem): Promise<number> {
    const held = await needs.confirmHeld(item, true);
    if (held.copies < needs.minCopies()) {
      throw new DezentError(
        'UNSAFE',
        `${record.path} has ${held.copies} proved copies of ${needs.minCopies()}: ${held.problem}`,
      );
    }
    await check(record);
    const at = await place(record);
    const bytes = sizeOfIdentity(record.seen);
    await unlink(at.original);
    await forget(record, at);
    needs.onFreed(record.path, bytes);
    return bytes;
  }

  /** The original has left quarantine: the rest of its place goes, and the journal forgets it. */
  async function forget(record: OffloadRecord, at: QuarantinePlace): Promise<void> {
    await dropOldStub(record, at);
    if (await isThere(at.dir)) await syncDirectory(at.dir);
    await dropPlace(at);
    await journal.remove(record.id);
  }

  /** The tree says again that a file is at the path. */
  async function noteFile(path: string): Promise<void> {
    const stats = await lstatIfPresent(folder.absolute(path));
    if (stats === undefined) return;
    const seen = identityOf(stats);
    await tree.update(path, (item) =>
      item.state === 'stubbed' ? { ...item, state: 'restored', reason: '', seen, since: Date.now() } : undefined,
    );
  }

  async function bringBack(record: OffloadRecord): Promise<boolean> {
    const way = await resume(record);
    if (way !== 'waits') return way === 'back';
    const at = await place(record);
    if (!(await moveBack(at, at.original, folder.absolute(record.path)))) return false;
    await concludeBack(record);
    return true;
  }

  async function concludeBack(record: OffloadRecord): Promise<void> {
    await removeStub(record);
    await noteFile(record.path);
    await journal.remove(record.id);
  }

  async function resume(record: OffloadRecord): Promise<'waits' | 'back' | 'gone'> {
    const at = await place(record);
    const path = folder.absolute(record.path);
    const isWaiting = await isThere(at.original);
    if (isWaiting && !(await isSameFile(at.original, path))) return 'waits';
    if (isWaiting) await moveBack(at, at.original, path);
    const here = await lstatIfPresent(path);
    // Before the stub was committed the original can only be at its path; afterwards a new file may have come there.
    const isBack = here !== undefined && (isWaiting || record.step === 'intent' || identityOf(here) === record.seen);
    if (isBack) await concludeBack(record);
    else await forget(record, at);
    return isBack ? 'back' : 'gone';
  }

  /** A new file has taken the path: the original comes back under a name that says so. */
  async function bringBackBeside(record: OffloadRecord): Promise<void> {
    const at = await place(record);
    const beside = nameBeside(folder.absolute(record.path), `dezent ${record.id.slice(0, 8)}`);
    if (await moveBack(at, at.original, beside)) await forget(record, at);
  }

  /** The stub can stand for the original: it is there, and nobody has written to the original meanwhile. */
  async function canStandIn(record: OffloadRecord): Promise<boolean> {
    const stats = await lstatIfPresent((await place(record)).original);
    return stats !== undefined && identityOf(stats) === record.seen && (await ownStub(record)) !== undefined;
  }

  async function settle(record: OffloadRecord): Promise<void> {
    const tmp = join(dirname(stubPathOf(record)), `${OWN_TMP_PREFIX}${record.id}`);
    if (await isThere(tmp)) await unlink(tmp);
    if ((await resume(record)) !== 'waits' || (await bringBack(record))) return;
    const item = tree.get(record.path);
    if (item !== undefined && (await canStandIn(record))) await commit(record, item);
    else await bringBackBeside(record);
  }

  return { place, check, commit, finish, bringBack, resume, settle };
}
