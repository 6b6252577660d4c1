// open and restore for the command line: single stubs in place, or whole trees, in place or laid out below another directory.
import { chmod } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import pLimit from 'p-limit';
import { DezentError } from '../errors.ts';
import type { CatalogEntry } from '../store/catalog.ts';
import type { BlockId } from '../store/block.ts';
import type { ContentKeys } from '../store/secrets.ts';
import { STUB_SUFFIX } from '../store/stub.ts';
import { throwFailures } from './add-files.ts';
import { rootKey } from './content-index.ts';
import type { CallContext, OpenedFile, OpenRequest, RestoredFile, RestoreRequest } from './control-api.ts';
import type { Folder } from './folder.ts';
import { lstatIfPresent } from './identity.ts';
import { newOperationId } from './journal.ts';
import type { Manifests } from './manifests.ts';
import type { PathLocks } from './path-locks.ts';
import { openProgressMeter, type ProgressMeter } from './progress-meter.ts';
import {
  hasContent,
  makeFolder,
  makeLink,
  takeFreeName,
  tmpBeside,
  writeChecked,
  type RegenerateNeeds,
} from './regenerate.ts';
import type { Restore } from './restore.ts';
import { checkSafePath } from './safe-path.ts';
import type { Selection } from './selection.ts';
import { setTimes } from './swap.ts';
import type { Transfers } from './transfers.ts';
import type { Tree, TreeItem } from './tree.ts';

/** Files regenerated at once. */
const IN_FLIGHT = 8;

export interface RestoreFilesNeeds extends RegenerateNeeds {
  folder: Folder;
  tree: Tree;
  locks: PathLocks;
  selection: Selection;
  restore: Restore;
  manifests: Manifests;
  keys: () => ContentKeys;
  transfers: Transfers;
  fetch(id: BlockId, signal: AbortSignal | undefined): Promise<{ bytes: Uint8Array; from: string | undefined }>;
}

export interface RestoreFiles {
  open(request: OpenRequest, context: CallContext): Promise<OpenedFile>;
  restore(request: RestoreRequest, context: CallContext): Promise<RestoredFile[]>;
}

export function openRestoreFiles(needs: RestoreFilesNeeds): RestoreFiles {
  const { folder, tree, locks, selection, restore, manifests, keys, transfers } = needs;

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

  async function open({ path }: OpenRequest, context: CallContext): Promise<OpenedFile> {
    const startedAt = performance.now();
    const here = await alreadyHere(path);
    if (here !== undefined) return { path: here.entry.path, sizeBytes: here.entry.sizeBytes, tookMs: 0, from: [] };
    const stub = await stubAt(path);
    if (stub === undefined) {
      const item = tree.get(selection.pathOf(path));
      if (item?.entry.kind !== 'file') throw new DezentError('NOT_FOUND', `there is no stub ${path}`);
      const from = new Set<string>();
      const at = await putFile(item.entry, folder.absolute(item.entry.path), { context, from });
      return {
        path: shown(at),
        sizeBytes: item.entry.sizeBytes,
        tookMs: Math.round(performance.now() - startedAt),
        from: [...from],
      };
    }
    const size = tree.get(selection.pathOf(stub.startsWith(folder.root) ? stub : folder.root))?.entry.sizeBytes ?? 0;
    const done = await openStub(stub, size, context);
    return {
      path: shown(done.path),
      sizeBytes: done.sizeBytes,
      tookMs: Math.round(performance.now() - startedAt),
      from: done.from,
    };
  }

  interface PutOptions {
    context: CallContext;
    from?: Set<string>;
    meter?: ProgressMeter;
  }

  /** Regenerates the content of an entry at this absolute name, or beside it where another content has it. */
  async function putFile(entry: CatalogEntry, target: string, { context, from, meter }: PutOptions): Promise<string> {
    if (entry.root === undefined) throw new DezentError('BAD_RECORD', `${entry.path} has no content in the catalog`);
    const note = (peerId: string | undefined): void => void (peerId !== undefined && from?.add(peerId));
    const fetch = async (id: BlockId): Promise<Uint8Array> => {
      const fetched = await needs.fetch(id, context.signal);
      note(fetched.from);
      return fetched.bytes;
    };
    const { manifest, from: holder } = await manifests.open(entry.root, (id) => needs.fetch(id, context.signal));
    note(holder);
    await makeFolder(dirname(target));
    if (await hasContent(target, manifest, keys())) return target;
    const tmp = tmpBeside(target, newOperationId());
    const options = { fetch, signal: context.signal, ...(meter && { onBytes: (count: number) => meter.bytes(count) }) };
    await writeChecked(tmp, { manifest, meta: entry }, needs, options);
    return takeFreeName(tmp, target, manifest, keys());
  }

  /** Links and folders have no content; their times are set once everything is laid out. */
  async function putOther(entry: CatalogEntry, target: string): Promise<void> {
    if (entry.kind === 'folder') await makeFolder(target);
    else {
      await makeFolder(dirname(target));
      await makeLink(target, entry);
    }
  }

  /** Deepest first, so that what is set does not change again. */
  async function finishFolders(folders: readonly CatalogEntry[], to: string): Promise<void> {
    for (const { path, mode, mtimeUs } of [...folders].sort((a, b) => b.path.length - a.path.length)) {
      await setTimes(join(to, path), mtimeUs);
      await chmod(join(to, path), mode);
    }
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

  async function restoreTo(
    items: readonly TreeItem[],
    to: string,
    request: RestoreRequest,
    context: CallContext,
  ): Promise<RestoredFile[]> {
    const files = items.filter(({ entry }) => entry.kind === 'file');
    const meter = openProgressMeter(context, 'fetch', {
      bytes: files.reduce((sum, { entry }) => sum + entry.sizeBytes, 0),
      files: files.length,
    });
    await makeFolder(to);
    for (const { entry } of items) checkSafePath(entry.path);
    for (const { entry } of items) if (entry.kind !== 'file') await putOther(entry, join(to, entry.path));
    const done = await each(files, async (item) => {
      const entry = await versionOf(item, request);
      await putFile(entry, join(to, entry.path), { context, meter });
      meter.file(entry.path);
      return { path: entry.path, sizeBytes: entry.sizeBytes, root: entry.root ? rootKey(entry.root) : '' };
    });
    await finishFolders(
      items.flatMap(({ entry }) => (entry.kind === 'folder' ? [entry] : [])),
      to,
    );
    return done;
  }

  async function restoreHere(item: TreeItem, request: RestoreRequest, context: CallContext): Promise<RestoredFile> {
    const entry = await versionOf(item, request);
    const target = folder.absolute(entry.path);
    const done = { path: entry.path, sizeBytes: entry.sizeBytes, root: entry.root ? rootKey(entry.root) : '' };
    const isCurrent =
      item.entry.root !== undefined && entry.root !== undefined && rootKey(item.entry.root) === rootKey(entry.root);
    if (isCurrent && (await lstatIfPresent(target)) !== undefined) return done;
    const stub = folder.absolute(folder.stubOf(entry.path));
    if (isCurrent && (await lstatIfPresent(stub)) !== undefined) {
      const { path } = await openStub(stub, entry.sizeBytes, context);
      return { ...done, path: shown(path) };
    }
    const at = await locks.run(entry.path, () => putFile(entry, target, { context }));
    return { ...done, path: shown(at) };
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
      const items = await selection.items(request.all ? [folder.root] : request.paths);
      if (request.to !== undefined) return restoreTo(items, request.to, request, context);
      for (const { entry } of items) if (entry.kind === 'folder') await makeFolder(folder.absolute(entry.path));
      return each(
        items.filter(({ entry }) => entry.kind === 'file'),
        (item) => restoreHere(item, request, context),
      );
    },
  };
}
