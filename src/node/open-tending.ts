// The fourth stage of open-files.ts: the parts that notice what happens in FOLDER and have files give way.
import { isDezentError } from '../errors.ts';
import { openAdoptStub } from './files/adopt-stub.ts';
import { openAutoOffload, type AutoOffload } from './offload/auto-offload.ts';
import { openDeletions, type Deletions } from './files/deletions.ts';
import { openIgnoreRules, type IgnoreRules } from './files/ignore-rules.ts';
import { openIngest } from './files/ingest.ts';
import type { Kernel } from './files/kernel.ts';
import type { Replicate } from './copies/replicate.ts';
import { openTendFolder, type TendFolder } from './files/tend-folder.ts';
import { openWatch, type Watch } from './files/watch.ts';
import { readXattrs } from './files/xattrs.ts';
import type { FilesNeeds, Stored } from './open-stored.ts';
import type { Swapping } from './open-swapping.ts';

export interface Tending {
  rules: IgnoreRules;
  autoOffload: AutoOffload;
  tend: TendFolder;
  watch: Watch;
  deletions: Deletions;
}

/** The parts that notice what happens in FOLDER and have files give way. */
export async function openTending(
  needs: FilesNeeds,
  stored: Stored,
  { swapping, replicate, kernel }: { swapping: Swapping; replicate: Replicate; kernel: Kernel },
): Promise<Tending> {
  const { network, config, db, log, warnings, parts } = needs;
  const { folder, tree, keys, batch } = stored;
  const { own, locks } = swapping;
  const { deviceId } = network.group;
  const rules = await openIgnoreRules(folder.root);
  const late: { watch?: Watch } = {};
  const touch = (path: string): void => late.watch?.touch(path);
  const autoOffload = parts.use(
    openAutoOffload({
      ...swapping,
      folder,
      tree,
      settings: {
        auto: () => config.get('offload.auto'),
        afterMs: () => config.get('offload.afterMs'),
        idleMs: () => config.get('offload.idleMs'),
        stubMinBytes: () => config.get('offload.stubMinBytes'),
      },
      onChanged: (path) =>
        void tree
          .update(path, (item) => ({ ...item, seen: '' })) // its size and times may tell nothing: it is read again
          .then(() => touch(path))
          .catch((error: unknown) => log.error({ error, path }, 'a changed file could not be noted')),
      onError: (path, error) =>
        log[isDezentError(error) ? 'info' : 'warn'](
          { error, path },
          'a file could not give way now; it is tried again',
        ),
    }),
  );
  const ingest = openIngest({
    ...stored,
    deviceId,
    xattrsOf: async (absolute) => readXattrs(kernel, absolute),
  });
  const deletions = openDeletions({
    folder,
    tree,
    locks,
    warnings,
    deviceId,
    isFolderThere: stored.mark.isThere,
    log: stored.log,
    db: db.sublevel('deletions'),
    busy: () => (late.watch?.pending() ?? 0) > 0,
    onDeleted(paths) {
      replicate.wake(paths); // whoever waits for one of them hears that it is gone
      replicate.wakeLog();
      log.info({ count: paths.length, first: paths[0] }, 'deleted by their owner');
    },
  });
  const tend = openTendFolder({
    folder,
    rules,
    tree,
    locks,
    ingest,
    deletions,
    warnings,
    adoptStub: openAdoptStub({ folder, tree, batch, keys, own, deviceId }),
    onIngested({ entry }) {
      if (entry.root !== undefined) network.announce.addedManifests([entry.root.block]);
      replicate.wake([entry.path]);
    },
    later: (path, at) => void setTimeout(() => touch(path), Math.max(0, at - Date.now())).unref(),
  });
  const watch = parts.use(
    openWatch({
      folder,
      rules,
      settings: { settleMs: () => config.get('watch.settleMs'), scanMs: () => config.get('watch.scanMs') },
      onSettled: (path) => tend.look(path),
      onQuiet: () =>
        void deletions.decide().catch((error: unknown) => log.error({ error }, 'deletions could not be decided')),
      onError(error, path) {
        const what = path === '' ? folder.root : path;
        warnings.raise(
          `watch:${path}`,
          `${what} cannot be watched: ${error instanceof Error ? error.message : String(error)}`,
        );
      },
    }),
  );
  late.watch = watch;
  return { rules, autoOffload, tend, watch, deletions };
}
