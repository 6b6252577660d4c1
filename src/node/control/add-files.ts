// add: takes paths in at once, without waiting until they settle, and waits until everything has `min` copies.
import { lstat } from 'node:fs/promises';
import { DezentError, isDezentError } from '../../errors.ts';
import { rootKey } from '../files/content-index.ts';
import { base32 } from 'multiformats/bases/base32';
import type { AddedFile, AddRequest, CallContext } from './control-api.ts';
import type { Folder } from '../files/folder.ts';
import type { IgnoreRules } from '../files/ignore-rules.ts';
import { lstatIfPresent } from '../files/identity.ts';
import type { Ingested } from '../files/ingest.ts';
import { openProgressMeter, type ProgressMeter } from './progress-meter.ts';
import type { Replicate } from '../copies/replicate.ts';
import type { Selection } from './selection.ts';
import type { TendFolder } from '../files/tend-folder.ts';
import { shownState, type Tree, type TreeItem } from '../files/tree.ts';
import { walk } from '../files/walk.ts';

export interface AddFilesNeeds {
  folder: Folder;
  rules: IgnoreRules;
  tree: Tree;
  tend: TendFolder;
  replicate: Replicate;
  selection: Selection;
}

export const textOfId = (bytes: Uint8Array): string => base32.encode(bytes);

interface Found {
  path: string;
  sizeBytes: number;
}

/** Errors named in one message; all are counted. */
const NAMED_FAILURES = 3;

export function openAddFiles({ folder, rules, tree, tend, replicate, selection }: AddFilesNeeds) {
  /** Everything at and below one name that is to be taken in, with sizes for the progress. */
  async function* findAt(absolute: string): AsyncGenerator<Found> {
    const path = folder.relative(absolute);
    const stats = await lstatIfPresent(absolute);
    if (stats === undefined) {
      const known = tree.get(selection.pathOf(absolute));
      if (known === undefined) throw new DezentError('NOT_FOUND', `there is no file ${absolute}`);
      yield { path: known.entry.path, sizeBytes: 0 };
      return;
    }
    if (rules.ignores(path, stats.isDirectory()))
      throw new DezentError('USAGE', `${path} is ignored`, {
        hint: 'See .dezentignore and the list of temporary files in docs/operating.md.',
      });
    if (path !== '') yield { path, sizeBytes: Number(stats.size) };
    if (!stats.isDirectory()) return;
    const onUnreadable = (_: string, error: unknown): never => {
      throw error;
    };
    for await (const child of walk({ folder, rules, onUnreadable }, path)) {
      const found = await lstat(folder.absolute(child)).catch(() => undefined);
      if (found !== undefined) yield { path: child, sizeBytes: found.isFile() ? found.size : 0 };
    }
  }

  async function findAll(paths: readonly string[]): Promise<Map<string, Found>> {
    const found = new Map<string, Found>();
    for (const absolute of paths) for await (const one of findAt(absolute)) found.set(one.path, one);
    return found;
  }

  /** A path that is a stub now (or became one meanwhile) is fine as it is. */
  async function takeOne({ path }: Found, context: CallContext, meter: ProgressMeter): Promise<Ingested | undefined> {
    const taken = await tend.take(path, { signal: context.signal, onBytes: (count) => meter.bytes(count) });
    if (taken !== undefined) return taken;
    const item = tree.get(selection.pathOf(folder.absolute(path)));
    return item && { item, newBytes: 0, changed: false };
  }

  async function protectOne(taken: Ingested, request: AddRequest, signal: AbortSignal): Promise<TreeItem> {
    const { path } = taken.item.entry;
    if (!request.wait) {
      replicate.wake([path]);
      return taken.item;
    }
    try {
      return await replicate.whenProtected(path, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
      const reason = replicate.reasonFor(path);
      throw new DezentError(
        'TIMEOUT',
        `${path} does not have enough copies yet${reason === undefined ? '' : `: ${reason}`}`,
        { cause: error },
      );
    }
  }

  function answer({ item, newBytes }: Ingested, now: TreeItem): AddedFile {
    const { path, fileId, root, sizeBytes } = item.entry;
    const state = shownState(now, tree.activity(path));
    return {
      path,
      fileId: textOfId(fileId),
      root: root ? rootKey(root) : '',
      sizeBytes,
      newBytes,
      copies: now.copies,
      state,
    };
  }

  return async function add(request: AddRequest, context: CallContext): Promise<AddedFile[]> {
    const found = await findAll(request.paths);
    const totalBytes = [...found.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const meter = openProgressMeter(context, 'store', { bytes: totalBytes, files: found.size });
    const deadline = request.timeoutMs === undefined ? [] : [AbortSignal.timeout(request.timeoutMs)];
    const signal = AbortSignal.any([context.signal, ...deadline]);
    const results = await Promise.allSettled(
      [...found.values()].map(async (one) => {
        const taken = await takeOne(one, context, meter);
        if (taken === undefined) return undefined;
        const item = await protectOne(taken, request, signal);
        meter.file(one.path);
        return taken.item.entry.kind === 'file' ? answer(taken, item) : undefined;
      }),
    );
    throwFailures(
      results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : [])),
      found.size,
    );
    return results.flatMap((result) =>
      result.status === 'fulfilled' && result.value !== undefined ? [result.value] : [],
    );
  };
}

/** The first failure as it is when there is one; else one error that counts them and names some. */
export function throwFailures(failures: readonly unknown[], total: number): void {
  if (failures.length === 0) return;
  const [first] = failures;
  if (failures.length === 1 && total === 1) throw first;
  const named = [...new Set(failures.map((failure) => (failure instanceof Error ? failure.message : String(failure))))];
  const more = named.length > NAMED_FAILURES ? `; and ${named.length - NAMED_FAILURES} more` : '';
  const text = `${failures.length} of ${total} files: ${named.slice(0, NAMED_FAILURES).join('; ')}${more}`;
  if (isDezentError(first)) throw new DezentError(first.code, text, { hint: first.hint, cause: first });
  throw new DezentError('IO', text, { cause: first });
}
