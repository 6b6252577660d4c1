// Lays entries of the catalog out below a directory: contents regenerated, links and folders made, modes and times set. Nothing is overwritten,
// and nothing is written through a symlink that somebody has put in the way.
import { chmod, readdir, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DezentError, systemCode } from '../../errors.ts';
import type { BlockId } from '../../store/block.ts';
import type { CatalogEntry } from '../../store/catalog.ts';
import type { ContentKeys } from '../../store/secrets.ts';
import type { CallContext } from '../control/control-api.ts';
import type { Fetched } from '../copies/fetch-block.ts';
import { OWN_TMP_PREFIX } from '../files/folder.ts';
import { lstatIfPresent } from '../files/identity.ts';
import { newOperationId, type Journal, type LayOutRecord } from './journal.ts';
import type { Manifests } from '../files/manifests.ts';
import type { ProgressMeter } from '../control/progress-meter.ts';
import {
  hasContent,
  makeFolders,
  makeLink,
  takeFreeName,
  tmpBeside,
  writeChecked,
  type RegenerateNeeds,
} from './regenerate.ts';
import { checkSafePath } from '../files/safe-path.ts';
import { setTimes } from './swap.ts';

export interface LayOutNeeds extends RegenerateNeeds {
  journal: Journal;
  manifests: Manifests;
  keys: () => ContentKeys;
  fetchFrom(id: BlockId, signal: AbortSignal | undefined): Promise<Fetched>;
}

export interface LayOutOptions {
  context: Pick<CallContext, 'signal'>;
  /** Peers whose bytes were used are added. */
  from?: Set<string>;
  meter?: ProgressMeter;
}

export interface LayOut {
  /** Has the work leave no temporary files below `root`, whatever happens. */
  journalled<T>(root: string, work: () => Promise<T>): Promise<T>;
  /** The content of a file entry at its path below `root`, or beside it where another content has the name. Gives the absolute name. */
  file(entry: CatalogEntry, root: string, options: LayOutOptions): Promise<string>;
  /** A folder or link; their times are set by `finishFolders`, once everything is laid out. */
  other(entry: CatalogEntry, root: string): Promise<void>;
  finishFolders(folders: readonly CatalogEntry[], root: string): Promise<void>;
  /** Removes the temporary files that a crash left. */
  settle(record: LayOutRecord): Promise<void>;
}

/** A service may write to few places; what the system says alone would not tell why. */
function explain(error: unknown, path: string): unknown {
  const code = systemCode(error) ?? systemCode(error instanceof Error ? error.cause : undefined);
  if (code !== 'EROFS' && code !== 'EACCES' && code !== 'EPERM') return error;
  return new DezentError('IO', `${path} cannot be written by the node`, {
    hint: 'A node that runs as a service may write only to its folder and home: restore into the folder, or add the directory to ReadWritePaths= (systemctl edit dezent).',
    cause: error,
  });
}

export function openLayOut(needs: LayOutNeeds): LayOut {
  const { journal, manifests, keys, fetchFrom } = needs;

  async function write(entry: CatalogEntry, root: string, { context, from, meter }: LayOutOptions): Promise<string> {
    if (entry.root === undefined) throw new DezentError('BAD_RECORD', `${entry.path} has no content in the catalog`);
    const fetch = async (id: BlockId): Promise<Fetched> => {
      const fetched = await fetchFrom(id, context.signal);
      if (fetched.from !== undefined) from?.add(fetched.from);
      return fetched;
    };
    const { manifest, from: holder } = await manifests.open(entry.root, fetch);
    if (holder !== undefined) from?.add(holder);
    const target = join(root, entry.path);
    await makeFolders(root, dirname(entry.path));
    if (await hasContent(target, manifest, keys())) return target;
    const tmp = tmpBeside(target, newOperationId());
    await writeChecked(tmp, { manifest, meta: entry }, needs, {
      fetch: async (id) => (await fetch(id)).bytes,
      signal: context.signal,
      ...(meter && { onBytes: (count: number) => meter.bytes(count) }),
    });
    return takeFreeName(tmp, target, manifest, keys());
  }

  async function guarded<T>(entry: CatalogEntry, root: string, work: () => Promise<T>): Promise<T> {
    checkSafePath(entry.path);
    try {
      return await work();
    } catch (error) {
      throw explain(error, join(root, entry.path));
    }
  }

  async function settle(record: LayOutRecord): Promise<void> {
    await dropTmps(record.root);
    await journal.remove(record.id);
  }

  return {
    settle,
    async journalled(root, work) {
      const record: LayOutRecord = { v: 1, op: 'lay-out', id: newOperationId(), root };
      await journal.write(record);
      const result = await work();
      await journal.remove(record.id);
      return result;
    },
    file: (entry, root, options) => guarded(entry, root, () => write(entry, root, options)),
    other: (entry, root) =>
      guarded(entry, root, async () => {
        if (entry.kind === 'folder') await makeFolders(root, entry.path);
        else {
          await makeFolders(root, dirname(entry.path));
          await makeLink(join(root, entry.path), entry);
        }
      }),
    async finishFolders(folders, root) {
      // Deepest first, so that what is set does not change again.
      for (const { path, mode, mtimeUs } of [...folders].sort((a, b) => b.path.length - a.path.length)) {
        const at = join(root, path);
        if ((await lstatIfPresent(at))?.isDirectory() !== true) continue;
        await setTimes(at, mtimeUs);
        await chmod(at, mode);
      }
    },
  };
}

/** Everything below that has the name of a temporary file of ours; links are not followed. */
async function dropTmps(root: string): Promise<void> {
  if ((await lstatIfPresent(root)) === undefined) return;
  for (const entry of await readdir(root, { withFileTypes: true })) {
    const path = join(root, entry.name);
    if (entry.isDirectory()) await dropTmps(path);
    else if (entry.isFile() && entry.name.startsWith(OWN_TMP_PREFIX)) await unlink(path);
  }
}
