// Any number of changes, submitted a commit's worth at a time.
import type { CallOptions } from './block-store.ts';
import { changeBytes, COMMIT_BYTES, type Committer } from './pack-commit.ts';
import type { Change } from './pack-plan.ts';

/** Changes of one batch; a tombstone is small, and an index batch of so many stays under a MiB. */
const BATCH_CHANGES = 8192;

type Failure = { error: unknown } | undefined;

/** Two batches at a time: one is gathered while the other is written. Nothing is under way any more when it returns or throws. */
export async function submitAll(committer: Committer, changes: Iterable<Change>, options: CallOptions): Promise<void> {
  let before: Promise<Failure> = Promise.resolve(undefined);
  let failure: Failure;
  try {
    for (const batch of batchesOf(changes)) {
      const now = failureOf(committer.submit(batch, options));
      failure = await before;
      before = now;
      if (failure) break;
    }
  } finally {
    const last = await before;
    failure ??= last;
  }
  if (failure) throw failure.error;
}

function failureOf(work: Promise<void>): Promise<Failure> {
  return work.then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
}

function* batchesOf(changes: Iterable<Change>): Iterable<Change[]> {
  let batch: Change[] = [];
  let bytes = 0;
  for (const change of changes) {
    if (batch.length >= BATCH_CHANGES || (batch.length > 0 && bytes + changeBytes(change) > COMMIT_BYTES)) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(change);
    bytes += changeBytes(change);
  }
  if (batch.length > 0) yield batch;
}
