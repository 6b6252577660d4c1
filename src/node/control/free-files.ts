// free: has files give way now, without grace, and their blocks leave this machine; what would not be safe is refused and stays.
import pLimit from 'p-limit';
import { DezentError } from '../../errors.ts';
import type { CallContext, FreedFile, FreeRequest } from './control-api.ts';
import type { Folder } from '../files/folder.ts';
import { lstatIfPresent } from '../files/identity.ts';
import type { ItemCopies } from '../copies/item-copies.ts';
import type { Journal } from '../offload/journal.ts';
import { neverOffloaded, type Offload } from '../offload/offload.ts';
import type { OwnBlocks } from '../copies/own-blocks.ts';
import type { PathLocks } from '../files/path-locks.ts';
import { openProgressMeter } from './progress-meter.ts';
import type { Quarantine } from '../offload/quarantine.ts';
import type { Replicate } from '../copies/replicate.ts';
import type { Selection } from './selection.ts';
import type { Tree, TreeItem } from '../files/tree.ts';
import { throwFailures } from './add-files.ts';

const IN_FLIGHT = 4;

export interface FreeFilesNeeds {
  folder: Folder;
  tree: Tree;
  journal: Journal;
  locks: PathLocks;
  selection: Selection;
  offload: Offload;
  quarantine: Quarantine;
  copies: ItemCopies;
  ownBlocks: OwnBlocks;
  replicate: Replicate;
  settings: { minCopies(): number; stubMinBytes(): number };
  confirmHeld(item: TreeItem, fresh: boolean): Promise<{ copies: number; problem: string }>;
  /** Gives the space of blocks that left back to the file system. */
  compact(): Promise<void>;
}

export function openFreeFiles(needs: FreeFilesNeeds) {
  const { folder, tree, journal, locks, selection, offload, quarantine, copies, ownBlocks, replicate, settings } =
    needs;

  const answer = ({ entry }: TreeItem, freedBytes: number, count: number): FreedFile => ({
    path: entry.path,
    stub: folder.stubOf(entry.path),
    freedBytes,
    copies: count,
  });

  /** A stub already: its original leaves quarantine, or only its blocks leave. */
  async function freeStub(item: TreeItem): Promise<FreedFile> {
    const { fileId, root, path } = item.entry;
    const record = root && journal.quarantined(fileId, root);
    if (record?.step === 'stubbed')
      return answer(item, await quarantine.finish(record, true), (await copies.count(item)).copies);
    const held = await needs.confirmHeld(item, true);
    if (held.copies < settings.minCopies())
      throw new DezentError(
        'UNSAFE',
        `${path} has ${held.copies} of ${settings.minCopies()} proved copies: ${held.problem}`,
      );
    await ownBlocks.evict(await copies.idsOf(item), true);
    return answer(item, 0, held.copies);
  }

  async function freeOne(path: string): Promise<FreedFile> {
    const item = tree.get(path);
    if (item === undefined) throw new DezentError('NOT_FOUND', `${path} is not a stored file`);
    if (item.state === 'stubbed') return freeStub(item);
    const counted = await replicate.recount(item);
    if (counted.copies < settings.minCopies()) {
      const reason = replicate.reasonFor(path) ?? `${counted.copies} of ${settings.minCopies()} copies`;
      throw new DezentError('UNSAFE', `${path} stays a file: ${reason}`);
    }
    const done = await offload(path, true);
    return answer(done.item, done.freedBytes, done.copies);
  }

  /** In a folder, files that are never offloaded are passed over; named themselves, they are refused with the reason. */
  async function canGiveWay({ entry, state }: TreeItem, named: ReadonlySet<string>): Promise<boolean> {
    if (state === 'stubbed' || named.has(entry.path)) return true;
    if (tree.get(folder.stubOf(entry.path)) !== undefined) return false; // its stub's name is another file's
    const stats = await lstatIfPresent(folder.absolute(entry.path));
    const file = { sizeBytes: entry.sizeBytes, links: Number(stats?.nlink ?? 1) };
    return neverOffloaded(entry.path, file, settings.stubMinBytes()) === undefined;
  }

  async function chosen(paths: readonly string[]): Promise<TreeItem[]> {
    const named = new Set(paths.map((path) => selection.pathOf(path)));
    const items: TreeItem[] = [];
    for (const item of await selection.files(paths)) if (await canGiveWay(item, named)) items.push(item);
    return items;
  }

  return async function free(request: FreeRequest, context: CallContext): Promise<FreedFile[]> {
    const items = await chosen(request.paths);
    const bytes = items.reduce((sum, { entry }) => sum + entry.sizeBytes, 0);
    const meter = openProgressMeter(context, 'free', { bytes, files: items.length });
    const limit = pLimit(IN_FLIGHT);
    const results = await Promise.allSettled(
      items.map(({ entry: { path, sizeBytes } }) =>
        limit(async () => {
          context.signal.throwIfAborted();
          const freed = await locks.run(path, () => freeOne(path));
          meter.bytes(sizeBytes);
          meter.file(path);
          return freed;
        }),
      ),
    );
    await needs.compact();
    throwFailures(
      results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : [])),
      items.length,
    );
    return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  };
}
