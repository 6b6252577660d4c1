// Quarantine: originals whose stub stands already wait here, on the same disk, until their space may be given back. Every way out is here:
// removed after fresh checks and proofs, brought back to its path, or (after a failed step) whichever of the two the disk calls for.
import { unlink } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';
import { DezentError, isDezentError } from '../errors.ts';
import type { BlockId } from '../store/block.ts';
import type { ContentKeys } from '../store/secrets.ts';
import { decodeStub } from '../store/stub.ts';
import { rootKey } from './content-index.ts';
import { syncDirectory } from './durable-file.ts';
import { OWN_TMP_PREFIX, type Folder } from './folder.ts';
import { identityOf, lstatIfPresent } from './identity.ts';
import type { CopyCount, ItemCopies } from './item-copies.ts';
import type { Journal, OffloadRecord } from './journal.ts';
import type { Fetch, Manifests } from './manifests.ts';
import { checkContent, withLease, type TakeLease } from './original-check.ts';
import { openStable } from './stable-file.ts';
import { dropPlace, moveBack, quarantinePlace, readStubBytes, unlinkIfSame, type QuarantinePlace } from './swap.ts';
import type { Tree, TreeItem } from './tree.ts';

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
  /** Removes the original after check and fresh proofs; gives its bytes. Throws UNSAFE, CHANGED, BUSY: then it is still there. */
  finish(record: OffloadRecord, now: boolean): Promise<number>;
  /** Brings the original back to its path and takes the stub away. False when the path is taken: nothing changed. */
  bringBack(record: OffloadRecord): Promise<boolean>;
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

  /** The file, wherever it has been renamed to, with the content that waits (a newer version may have come since). */
  function itemOf({ fileId, root, path }: OffloadRecord): TreeItem {
    const item = tree.get(tree.pathOf(fileId) ?? path);
    if (item === undefined || !Buffer.from(item.entry.fileId).equals(fileId)) {
      throw new DezentError('UNSAFE', `the tree has no file for the original of ${path}; it stays in quarantine`);
    }
    return { ...item, entry: { ...item.entry, root } };
  }

  async function finish(record: OffloadRecord, now: boolean): Promise<number> {
    const item = itemOf(record);
    await check(record);
    const held = await needs.confirmHeld(item, true);
    if (held.copies < needs.minCopies()) {
      throw new DezentError(
        'UNSAFE',
        `${record.path} has ${held.copies} proved copies of ${needs.minCopies()}: ${held.problem}`,
      );
    }
    const at = await place(record);
    const bytes = Number((await lstatIfPresent(at.original))?.size ?? 0n);
    await unlink(at.original);
    if (await isThere(at.oldStub)) await unlink(at.oldStub);
    await syncDirectory(at.dir);
    await dropPlace(at);
    await journal.remove(record.id);
    needs.onFreed(record.path, bytes);
    if (needs.minCopies() > 0) await needs.evict(await copies.idsOf(item), now);
    return bytes;
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
    const at = await place(record);
    if (!(await moveBack(at, at.original, folder.absolute(record.path)))) return false;
    await removeStub(record);
    await journal.remove(record.id);
    await noteFile(record.path);
    return true;
  }

  /** A new file has taken the path and there is no stub: the original comes back under a name that says so. */
  async function bringBackBeside(record: OffloadRecord): Promise<void> {
    const at = await place(record);
    const path = folder.absolute(record.path);
    const ending = extname(path);
    const beside = join(dirname(path), `${basename(path, ending)} (dezent ${record.id.slice(0, 8)})${ending}`);
    if (await moveBack(at, at.original, beside)) await journal.remove(record.id);
    await dropPlace(at);
  }

  async function settle(record: OffloadRecord): Promise<void> {
    const tmp = join(dirname(stubPathOf(record)), `${OWN_TMP_PREFIX}${record.id}`);
    if (await isThere(tmp)) await unlink(tmp);
    const at = await place(record);
    if (!(await isThere(at.original))) {
      // The original is in its place (or its owner took it away): only a stub that stands beside it is undone.
      if (await isThere(folder.absolute(record.path))) await removeStub(record);
      await dropPlace(at);
      await journal.remove(record.id);
      return;
    }
    if (await bringBack(record)) return;
    const item = tree.get(record.path);
    if (item !== undefined && (await ownStub(record)) !== undefined) await commit(record, item);
    else await bringBackBeside(record);
  }

  return { place, check, commit, finish, bringBack, settle };
}
