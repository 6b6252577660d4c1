// What the node says about files: ls, whereis, why. Counts and reasons are those that the parts themselves go by.
import { DezentError } from '../../errors.ts';
import { textOfId } from './add-files.ts';
import type { AutoOffload } from '../offload/auto-offload.ts';
import { rootKey } from '../files/content-index.ts';
import type { FileState, ListedFile, LsRequest, PathRequest, WhereisValue, WhyValue } from './control-api.ts';
import type { Folder } from '../files/folder.ts';
import type { ItemCopies } from '../copies/item-copies.ts';
import type { Journal } from '../offload/journal.ts';
import { neverOffloaded } from '../offload/offload.ts';
import type { Receipts } from '../copies/receipts.ts';
import type { Replicate } from '../copies/replicate.ts';
import type { Selection } from './selection.ts';
import { shownState, type Activity, type Tree, type TreeItem } from '../files/tree.ts';

export interface DescribeFilesNeeds {
  folder: Folder;
  tree: Tree;
  journal: Journal;
  selection: Selection;
  copies: ItemCopies;
  receipts: Pick<Receipts, 'holdersOf'>;
  replicate: Replicate;
  autoOffload: AutoOffload;
  nameOf(peerId: string): string;
  possibleCopies(): number;
  settings: { minCopies(): number; target(): number; auto(): boolean; stubMinBytes(): number };
}

export interface DescribeFiles {
  ls(request: LsRequest): Promise<ListedFile[]>;
  whereis(request: PathRequest): Promise<WhereisValue>;
  why(request: PathRequest): Promise<WhyValue>;
}

interface Told {
  reason: string;
  at?: number;
}

export function openDescribeFiles(needs: DescribeFilesNeeds): DescribeFiles {
  const { folder, tree, journal, selection, copies, receipts, replicate, autoOffload, nameOf, settings } = needs;

  const stateOf = (item: TreeItem): FileState => shownState(item, tree.activity(item.entry.path));

  function listed(item: TreeItem): ListedFile {
    const { path, fileId, kind, sizeBytes, root, mtimeUs } = item.entry;
    return {
      path,
      kind,
      sizeBytes,
      fileId: textOfId(fileId),
      state: stateOf(item),
      root: root ? rootKey(root) : null,
      copies: item.copies,
      modifiedAt: new Date(mtimeUs / 1000).toISOString(),
    };
  }

  async function ls({ dir, find }: LsRequest): Promise<ListedFile[]> {
    const wanted = find?.toLowerCase();
    const items = await selection.items([dir ?? folder.root]);
    return items.filter(({ entry }) => wanted === undefined || entry.path.toLowerCase().includes(wanted)).map(listed);
  }

  /** When each holder last proved all of the item: its oldest proof among the blocks. */
  async function provedAt(item: TreeItem, holders: readonly string[]): Promise<Map<string, number>> {
    const oldest = new Map<string, number>();
    for (const id of await copies.idsOf(item)) {
      for (const { peerId, provedAt: at } of receipts.holdersOf(id)) {
        if (holders.includes(peerId)) oldest.set(peerId, Math.min(at, oldest.get(peerId) ?? at));
      }
    }
    return oldest;
  }

  async function whereis({ path: absolute }: PathRequest): Promise<WhereisValue> {
    const items = (await selection.items([absolute])).filter(({ entry }) => entry.kind === 'file');
    const target = Math.min(settings.target(), needs.possibleCopies());
    const proofs = new Map<string, number>();
    let fewest = items.length === 0 ? 0 : Number.POSITIVE_INFINITY;
    let missing = 0;
    for (const item of items) {
      const count = await copies.count(item);
      fewest = Math.min(fewest, count.copies);
      missing += Math.max(0, Math.max(target, settings.minCopies()) - count.copies);
      for (const [peerId, at] of await provedAt(item, count.holders))
        proofs.set(peerId, Math.min(at, proofs.get(peerId) ?? at));
    }
    const holders = [...proofs].map(([deviceId, at]) => ({
      deviceId,
      name: nameOf(deviceId),
      provedAt: new Date(at).toISOString(),
    }));
    return { path: selection.pathOf(absolute), copies: fewest, holders, missing };
  }

  function tellActivity({ state, reason, nextAt }: Activity): Told {
    return {
      reason: state === 'working' ? `working on it: ${reason}` : `the last attempt failed: ${reason}`,
      ...(nextAt !== undefined && { at: nextAt }),
    };
  }

  /** Protected, but still a file: what keeps it one. */
  function tellFile(item: TreeItem): Told {
    const { path, sizeBytes, kind } = item.entry;
    if (kind !== 'file') return { reason: `it is kept with ${item.copies} copies; only files give way to stubs` };
    const never = neverOffloaded(path, { sizeBytes, links: 1 }, settings.stubMinBytes());
    if (never !== undefined) return { reason: `it is kept with ${item.copies} copies and stays a file: ${never}` };
    if (!settings.auto())
      return { reason: 'it stays a file because offload.auto is false; "dezent free" makes it a stub' };
    const waits = autoOffload.waitsFor(path);
    if (waits === undefined) return { reason: `it is kept with ${item.copies} copies` };
    return {
      reason:
        waits.reason === ''
          ? 'it gives way to a stub when its time has come'
          : `it could not give way yet: ${waits.reason}`,
      at: waits.at,
    };
  }

  function tellStub(item: TreeItem): Told {
    const { fileId, root } = item.entry;
    const record = root && journal.quarantined(fileId, root);
    if (record === undefined)
      return { reason: `${item.copies} other devices keep it; opening its stub brings it back` };
    return {
      reason: 'its original waits in quarantine until its grace time is over; opening it brings it back at once',
      at: record.dueAt,
    };
  }

  function tell(item: TreeItem): Told {
    const activity = tree.activity(item.entry.path);
    if (activity !== undefined) return tellActivity(activity);
    if (item.state === 'waiting') {
      const counted = `${item.copies} of ${settings.minCopies()} copies`;
      return { reason: replicate.reasonFor(item.entry.path) ?? `${counted}: blocks are on their way` };
    }
    return item.state === 'stubbed' ? tellStub(item) : tellFile(item);
  }

  async function why({ path: absolute }: PathRequest): Promise<WhyValue> {
    const path = selection.pathOf(absolute);
    const item = tree.get(path);
    const activity = tree.activity(path);
    if (item === undefined && activity === undefined) {
      await selection.items([absolute]); // says why there is nothing to tell
      throw new DezentError('NOT_FOUND', `${absolute} is not a stored file`);
    }
    const { reason, at } = item === undefined ? tellActivity(activity as Activity) : tell(item);
    return {
      path,
      state: shownState(item, activity),
      reason,
      nextAt: at === undefined ? null : new Date(at).toISOString(),
    };
  }

  return { ls, whereis, why };
}
