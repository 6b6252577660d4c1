// open and restore for the command line: single stubs in place, or whole trees, in place or laid out below another directory.
import { mkdir } from 'node:fs/promises';
import pLimit from 'p-limit';
import { DezentError, isDezentError, type ErrorCode } from '../../errors.ts';
import type { CatalogEntry } from '../../store/catalog.ts';
import { STUB_SUFFIX } from '../../store/stub.ts';
import { throwFailures } from './add-files.ts';
import { rootKey } from '../files/content-index.ts';
import type { CallContext, OpenedFile, OpenRequest, RestoredFile, RestoreRequest } from './control-api.ts';
import type { Folder } from '../files/folder.ts';
import { lstatIfPresent } from '../files/identity.ts';
import type { LayOut } from '../offload/lay-out.ts';
import type { PathLocks } from '../files/path-locks.ts';
import { openProgressMeter } from './progress-meter.ts';
import type { Restore } from '../offload/restore.ts';
import type { Selection } from './selection.ts';
import type { Transfers } from './transfers.ts';
import type { Tree, TreeItem } from '../files/tree.ts';

/** Files regenerated at once. */
const IN_FLIGHT = 8;

/** What a stub is that `restore` does without. */
const UNTRUSTED_STUB: ReadonlySet<ErrorCode> = new Set(['BAD_STUB', 'FOREIGN_STUB', 'NEWER_VERSION']);

export interface RestoreFilesNeeds {
  folder: Folder;
  tree: Tree;
  locks: PathLocks;
  selection: Selection;
  restore: Restore;
  layOut: LayOut;
  transfers: Transfers;
  /** Items at or below a path that their owner deleted, as they were last. */
  deletedAt(path: string): Promise<TreeItem[]>;
}

export interface RestoreFiles {
  open(request: OpenRequest, context: CallContext): Promise<OpenedFile>;
  restore(request: RestoreRequest, context: CallContext): Promise<RestoredFile[]>;
}

export function openRestoreFiles(needs: RestoreFilesNeeds): RestoreFiles {
  const { folder, tree, locks, selection, restore, layOut, transfers } = needs;

  const shown = (absolute: string): string => {
    try {
      return folder.relative(absolute);
    } catch (error) {
      if (error instanceof DezentError && error.code === 'OUTSIDE_FOLDER') return absolute;
      throw error;
    }
  };

  /** The stub that this name means: itself, or the one that stands for it. */
  async function stubAt(absolute: string): Promise<string | undefined> {
    const candidates = absolute.endsWith(STUB_SUFFIX)
      ? [absolute, folder.stubOf(absolute)]
      : [folder.stubOf(absolute), absolute];
    for (const candidate of candidates) if ((await lstatIfPresent(candidate)) !== undefined) return candidate;
    return undefined;
  }

  /** A file that is here already needs no opening. One that has a stub's name and never had a stub is told from a damaged stub by nobody. */
  async function alreadyHere(absolute: string): Promise<TreeItem | undefined> {
    const item = (await lstatIfPresent(absolute)) === undefined ? undefined : tree.get(shown(absolute));
    if (item === undefined || (absolute.endsWith(STUB_SUFFIX) && item.state !== 'restored')) return undefined;
    return item.entry.kind === 'file' ? item : undefined;
  }

  async function openStub(
    stub: string,
    sizeBytes: number,
    context: CallContext,
  ): Promise<Awaited<ReturnType<Restore['open']>>> {
    const transfer = transfers.start({ path: shown(stub), direction: 'download', totalBytes: sizeBytes, peer: null });
    const meter = openProgressMeter(context, 'fetch', { bytes: sizeBytes, files: 1 });
    const onBytes = (count: number): void => {
      meter.bytes(count);
      transfer.moved(count);
    };
    let failure: string | undefined = 'interrupted';
    try {
      const done = await restore.open(stub, { signal: context.signal, onBytes });
      failure = undefined;
      return done;
    } catch (error) {
      failure = error instanceof Error ? error.message : String(error);
      throw error;
    } finally {
      transfer.end(failure);
    }
  }

  type Opened = Omit<OpenedFile, 'tookMs'>;

  const asItIs = ({ entry: { path, sizeBytes } }: TreeItem): Opened => ({ path, sizeBytes, from: [] });

  /** The stub went missing unobserved: the catalog knows the file all the same. */
  async function openWithoutStub(absolute: string, context: CallContext): Promise<Opened> {
    const item = tree.get(selection.pathOf(absolute));
    if (item?.entry.kind !== 'file') throw new DezentError('NOT_FOUND', `there is no stub ${absolute}`);
    const from = new Set<string>();
    const at = await layOut.file(item.entry, folder.root, { context, from });
    return { path: shown(at), sizeBytes: item.entry.sizeBytes, from: [...from] };
  }

  async function openAt(absolute: string, context: CallContext): Promise<Opened> {
    const here = await alreadyHere(absolute);
    if (here !== undefined) return asItIs(here);
    const stub = await stubAt(absolute);
    if (stub === undefined) return openWithoutStub(absolute, context);
    const size = tree.get(selection.pathOf(stub.startsWith(folder.root) ? stub : folder.root))?.entry.sizeBytes ?? 0;
    try {
      const { path, sizeBytes, from } = await openStub(stub, size, context);
      return { path: shown(path), sizeBytes, from };
    } catch (error) {
      // Somebody else opened it while this one waited for its turn.
      const opened = isDezentError(error, 'NOT_FOUND')
        ? await alreadyHere(stub.slice(0, -STUB_SUFFIX.length))
        : undefined;
      if (opened === undefined) throw error;
      return asItIs(opened);
    }
  }

  async function open({ path }: OpenRequest, context: CallContext): Promise<OpenedFile> {
    const startedAt = performance.now();
    const opened = await openAt(path, context);
    return { ...opened, tookMs: Math.round(performance.now() - startedAt) };
  }

  /** The entry as it was: by its number in `versions`, or the newest at a time. */
  async function versionOf({ entry }: TreeItem, { at, version }: RestoreRequest): Promise<CatalogEntry> {
    if (at === undefined && version === undefined) return entry;
    const past = await tree.versions(entry.fileId);
    const wanted =
      version === undefined
        ? past.filter((one) => one.at <= Date.parse(at as string)).at(-1)
        : past.find((one) => one.version === version);
    if (wanted === undefined)
      throw new DezentError('NOT_FOUND', `${entry.path} has no version ${version ?? `from before ${at}`}`);
    return { ...wanted.entry, path: entry.path };
  }

  const answer = (entry: CatalogEntry, path = entry.path): RestoredFile => ({
    path,
    sizeBytes: entry.sizeBytes,
    root: entry.root ? rootKey(entry.root) : '',
  });

  async function restoreTo(
    items: readonly TreeItem[],
    to: string,
    request: RestoreRequest,
    context: CallContext,
  ): Promise<RestoredFile[]> {
    const files = items.filter(({ entry }) => entry.kind === 'file');
    const bytes = files.reduce((sum, { entry }) => sum + entry.sizeBytes, 0);
    const meter = openProgressMeter(context, 'fetch', { bytes, files: files.length });
    await mkdir(to, { recursive: true });
    for (const { entry } of items) if (entry.kind !== 'file') await layOut.other(entry, to);
    const done = await each(files, async (item) => {
      const entry = await versionOf(item, request);
      await layOut.file(entry, to, { context, meter });
      meter.file(entry.path);
      return answer(entry);
    });
    await layOut.finishFolders(foldersOf(items), to);
    return done;
  }

  const foldersOf = (items: readonly TreeItem[]): CatalogEntry[] =>
    items.flatMap(({ entry }) => (entry.kind === 'folder' ? [entry] : []));

  /** The stub opened, unless it cannot be trusted: then the catalog has the intact one, and the damaged one is left as it is. */
  async function openIntact(stub: string, entry: CatalogEntry, context: CallContext): Promise<string | undefined> {
    if ((await lstatIfPresent(stub)) === undefined) return undefined;
    try {
      return (await openStub(stub, entry.sizeBytes, context)).path;
    } catch (error) {
      if (!isDezentError(error) || !UNTRUSTED_STUB.has(error.code)) throw error;
      return undefined;
    }
  }

  async function restoreHere(item: TreeItem, request: RestoreRequest, context: CallContext): Promise<RestoredFile> {
    const entry = await versionOf(item, request);
    const isCurrent =
      item.entry.root !== undefined && entry.root !== undefined && rootKey(item.entry.root) === rootKey(entry.root);
    if (isCurrent && (await lstatIfPresent(folder.absolute(entry.path))) !== undefined) return answer(entry);
    const opened = isCurrent ? await openIntact(folder.absolute(folder.stubOf(entry.path)), entry, context) : undefined;
    const at = opened ?? (await locks.run(entry.path, () => layOut.file(entry, folder.root, { context })));
    return answer(entry, shown(at));
  }

  /** In place: what is missing comes back; folders that are there keep their own modes. */
  async function restoreAllHere(
    items: readonly TreeItem[],
    request: RestoreRequest,
    context: CallContext,
  ): Promise<RestoredFile[]> {
    const missing: TreeItem[] = [];
    for (const item of items) {
      const isMissing =
        item.entry.kind !== 'file' && (await lstatIfPresent(folder.absolute(item.entry.path))) === undefined;
      if (isMissing) missing.push(item);
    }
    for (const { entry } of missing) await layOut.other(entry, folder.root);
    const files = items.filter(({ entry }) => entry.kind === 'file');
    const done = await each(files, (item) => restoreHere(item, request, context));
    await layOut.finishFolders(foldersOf(missing), folder.root);
    return done;
  }

  /** What the names mean; a name that means nothing now may be of something deleted, which history keeps. */
  async function itemsFor(request: RestoreRequest): Promise<TreeItem[]> {
    if (request.all) return selection.items([folder.root]);
    const found: TreeItem[] = [];
    for (const absolute of request.paths) {
      try {
        found.push(...(await selection.items([absolute])));
      } catch (error) {
        if (!isDezentError(error, 'NOT_FOUND')) throw error;
        const deleted = await needs.deletedAt(selection.pathOf(absolute));
        if (deleted.length === 0) throw error;
        found.push(...deleted);
      }
    }
    return found;
  }

  async function each<T>(items: readonly TreeItem[], work: (item: TreeItem) => Promise<T>): Promise<T[]> {
    const limit = pLimit(IN_FLIGHT);
    const results = await Promise.allSettled(items.map((item) => limit(() => work(item))));
    throwFailures(
      results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : [])),
      items.length,
    );
    return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  }

  return {
    open,
    async restore(request, context) {
      if (request.paths.length === 0 && !request.all) throw new DezentError('USAGE', 'name a path, or --all');
      const items = await itemsFor(request);
      const { to } = request;
      return layOut.journalled(to ?? folder.root, () =>
        to === undefined ? restoreAllHere(items, request, context) : restoreTo(items, to, request, context),
      );
    },
  };
}
