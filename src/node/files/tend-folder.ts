// Tends FOLDER: for each path that has settled, decides what it is (file, stub, folder, link, gone) and has it ingested, adopted or
// considered for deletion. Everything here is idempotent: the same path may come any number of times.
import { DezentError, isDezentError, systemCode } from '../../errors.ts';
import { STUB_SUFFIX } from '../../store/stub.ts';
import type { AdoptStub } from './adopt-stub.ts';
import type { Deletions } from './deletions.ts';
import type { Folder } from './folder.ts';
import type { IgnoreRules } from './ignore-rules.ts';
import { lstatIfPresent } from './identity.ts';
import type { Ingest, Ingested, IngestOptions } from './ingest.ts';
import type { PathLocks } from './path-locks.ts';
import type { Tree, TreeItem } from './tree.ts';
import type { Warnings } from '../home/warnings.ts';

/** When a failed attempt is made again, doubling up to the last. */
const RETRY_FIRST_MS = 2_000;
const RETRY_LAST_MS = 300_000;

export interface TendFolderNeeds {
  folder: Folder;
  rules: IgnoreRules;
  tree: Tree;
  locks: PathLocks;
  ingest: Ingest;
  adoptStub: AdoptStub;
  deletions: Deletions;
  warnings: Warnings;
  /** Content or entry is new: copies have to be made. */
  onIngested(item: TreeItem): void;
  /** Try this path again at about this time. */
  later(path: string, at: number): void;
}

export interface TendFolder {
  /** Whatever is at the path now. */
  look(path: string): Promise<void>;
  /** Takes the path in at once (add); gives the item and how much of it was new, undefined when nothing that is kept is there. */
  take(path: string, options?: IngestOptions): Promise<Ingested | undefined>;
}

export function openTendFolder(needs: TendFolderNeeds): TendFolder {
  const { folder, rules, tree, locks, ingest, adoptStub, deletions, warnings } = needs;
  const tries = new Map<string, number>();

  function noteFailure(path: string, error: unknown): void {
    const count = (tries.get(path) ?? 0) + 1;
    tries.set(path, count);
    const at = Date.now() + Math.min(RETRY_LAST_MS, RETRY_FIRST_MS * 2 ** (count - 1));
    const reason = error instanceof Error ? error.message : String(error);
    const state = isDezentError(error, 'CHANGED') ? 'working' : 'failed';
    tree.mark(path, { state, reason: state === 'working' ? `still being written: ${reason}` : reason, nextAt: at });
    needs.later(path, at);
  }

  function noteSuccess(path: string): void {
    tries.delete(path);
    tree.mark(path, undefined);
  }

  /** The stub at x.f stands for x: both are looked at under the lock of x. */
  async function takeStub(stubPath: string): Promise<TreeItem | undefined> {
    const subject = `stub:${stubPath}`;
    try {
      const item = await adoptStub(stubPath);
      warnings.clear(subject);
      return item;
    } catch (error) {
      if (!isDezentError(error)) throw error;
      warnings.raise(subject, `${stubPath}: ${error.message}`);
      throw error;
    }
  }

  async function takeLocked(path: string, options: IngestOptions): Promise<Ingested | undefined> {
    if (path.endsWith(STUB_SUFFIX)) {
      const before = tree.get(lockOf(path));
      const item = await takeStub(path);
      // Renamed, copied or back from the trash: its new entry has to be kept by others too.
      if (item !== undefined && item.segment.id !== before?.segment.id) needs.onIngested(item);
      if (item !== undefined) return { item, newBytes: 0, changed: false };
    }
    const before = tree.get(path);
    if (before === undefined || before.state === 'waiting')
      tree.mark(path, { state: 'working', reason: 'is being split and sealed', nextAt: undefined });
    const ingested = await ingest.ingest(path, options);
    noteSuccess(path);
    if (ingested === undefined) return undefined;
    if (ingested.changed || ingested.item.state === 'waiting') needs.onIngested(ingested.item);
    return ingested;
  }

  const lockOf = (path: string): string => (path.endsWith(STUB_SUFFIX) ? path.slice(0, -STUB_SUFFIX.length) : path);

  async function take(path: string, options: IngestOptions = {}): Promise<Ingested | undefined> {
    try {
      return await locks.run(lockOf(path), () => takeLocked(path, options));
    } catch (error) {
      tree.mark(path, undefined);
      if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return undefined;
      throw error;
    }
  }

  /** The file went: a stub that stands beside it is what is left. */
  async function takeStubOf(path: string): Promise<void> {
    const stub = folder.stubOf(path);
    if ((await lstatIfPresent(folder.absolute(stub))) !== undefined) await take(stub);
  }

  async function lookAt(path: string): Promise<void> {
    const stats = await lstatIfPresent(folder.absolute(path));
    if (stats === undefined) {
      noteSuccess(path);
      deletions.gone(path);
      if (!path.endsWith(STUB_SUFFIX)) return takeStubOf(path);
      deletions.gone(lockOf(path));
      warnings.clear(`stub:${path}`);
      return;
    }
    deletions.present();
    if (rules.ignores(path, stats.isDirectory())) return;
    await take(path);
  }

  return {
    take,
    async look(path) {
      try {
        await lookAt(path);
      } catch (error) {
        // A stub that cannot be trusted is left alone and named in the warnings; trying again would tell nothing new.
        if (error instanceof DezentError && ['BAD_STUB', 'FOREIGN_STUB', 'NEWER_VERSION'].includes(error.code)) return;
        noteFailure(path, error);
      }
    },
  };
}
