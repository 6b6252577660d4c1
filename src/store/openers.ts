// Openers: manifests → files, on several threads. Large files go in batches of extents that lie where they lie on this machine or are
// fetched; small ones by the solid block that holds them.
import { write } from 'node:fs';
import { unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { pipe } from 'it-pipe';
import { DezentError, systemCode } from '../errors.ts';
import type { BlockId } from './block.ts';
import type { BlockSource } from './block-reads.ts';
import type { PackAccess } from './disk-store.ts';
import { extentsOf, openContentHasher, type ContentHasher, type Extent, type Manifest } from './manifest.ts';
import type { OpenInput, OpenOutput, OpenPiece } from './open-extents.ts';
import type { NameInput, WriteSmallInput, WriteSmallOutput } from './open-small.ts';
import { mapInOrder } from './pipeline.ts';
import type { PipelineThreads } from './pipeline-threads.ts';
import type { NotRead, OpenOptions, Openers, OpenSmallOptions, SmallTarget, SmallWritten } from './sealing.ts';
import { keyedHash, type ContentKeys } from './secrets.ts';
import { openRoot } from './solid.ts';
import { againWhenLost } from './thread-pool.ts';

/** Plain bytes of one job. */
const BATCH_BYTES: number = 8 * 1024 * 1024;
/** Files of one job: a solid block may hold thousands of tiny ones. */
const SMALL_BATCH = 512;
/** Files written before they get their names: one call of `beforeNames` for so many. */
const NAMED_AT_ONCE = 4096;
const HASH_BYTES = 32;

export interface OpenersNeeds {
  store: Pick<PackAccess, 'locate'>;
  threads: PipelineThreads;
  keys: () => ContentKeys;
}

const writeTo: typeof write.__promisify__ = promisify(write);

export function openOpeners(needs: OpenersNeeds): Openers {
  const { store, threads, keys } = needs;

  async function sourceOf(id: BlockId, fetch: OpenOptions['fetch']): Promise<BlockSource> {
    const [place] = await store.locate([id]);
    return place === undefined ? fetched(id, fetch) : { id, place, bytes: undefined };
  }

  /** The hashes of the batch's pieces, once they are written. */
  async function openBatch(batch: readonly PlacedExtent[], fd: number, options: OpenOptions): Promise<OpenedBatch> {
    options.signal?.throwIfAborted();
    const places = await store.locate(batch.map(({ block }) => block));
    const pieces = await Promise.all(
      batch.map(async ({ block, ...piece }, at): Promise<OpenPiece> => {
        const place = places[at];
        const source = place ? { id: block, place, bytes: undefined } : await fetched(block, options.fetch);
        return { ...piece, source };
      }),
    );
    const hashes = await openPieces({ fd, pieces }, options);
    options.onBytes?.(batch.reduce((sum, { length }) => sum + length, 0));
    return { batch, hashes };
  }

  async function openPieces(input: OpenInput, options: OpenOptions): Promise<Uint8Array> {
    const run = (of: OpenInput): Promise<OpenOutput> =>
      againWhenLost(() => threads.run<OpenOutput>('open', of, { signal: options.signal }));
    const { plainHashes, missing } = await run(input);
    if (missing.length === 0) return plainHashes;
    const again = await Promise.all(
      missing.map(async (at): Promise<OpenPiece> => {
        const piece = input.pieces[at] as OpenPiece;
        return { ...piece, source: await fetched(piece.source.id, options.fetch) };
      }),
    );
    const found = await run({ fd: input.fd, pieces: again });
    for (const [index, at] of missing.entries()) plainHashes.set(hashAt(found.plainHashes, index), at * HASH_BYTES);
    return plainHashes;
  }

  async function openInline(
    manifest: Manifest & { inline: Uint8Array },
    fd: number,
    hasher: ContentHasher,
  ): Promise<void> {
    const { inline } = manifest;
    for (let done = 0; done < inline.length;)
      done += (await writeTo(fd, inline, done, inline.length - done, done)).bytesWritten;
    if (inline.length > 0) hasher.add(inline.length, keyedHash(keys().plainHash, inline));
  }

  async function open(manifest: Manifest, fd: number, options: OpenOptions): Promise<void> {
    const hasher = openContentHasher(keys().contentHash);
    if ('inline' in manifest) {
      await openInline(manifest, fd, hasher);
      options.onBytes?.(manifest.size);
    } else {
      const loadPage = async (page: { block: BlockId; offset: number; length: number }): Promise<Uint8Array> =>
        openRoot(page, await options.fetch(page.block), keys());
      const opened = pipe(
        inBatches(extentsOf(manifest, loadPage)),
        mapInOrder(2 * threads.threads, (batch: PlacedExtent[]) => openBatch(batch, fd, options)),
      );
      for await (const { batch, hashes } of opened)
        for (const [at, { length }] of batch.entries()) hasher.add(length, hashAt(hashes, at));
    }
    if (!Buffer.from(manifest.contentHash).equals(hasher.digest()))
      throw new DezentError('BAD_MANIFEST', 'the content is not what its manifest says');
  }

  async function writeGroup(targets: readonly SmallTarget[], options: OpenSmallOptions): Promise<SmallWritten[]> {
    options.signal?.throwIfAborted();
    const { block } = (targets[0] as SmallTarget).root;
    const run = (source: BlockSource): Promise<WriteSmallOutput> =>
      cleanAgainWhenLost(targets, () => {
        const input: WriteSmallInput = { source, targets };
        return threads.run<WriteSmallOutput>('writeSmall', input, { signal: options.signal, urgent: true });
      });
    try {
      const written =
        (await run(await sourceOf(block, options.fetch))) ?? (await run(await fetched(block, options.fetch)));
      if (written === undefined) throw new DezentError('INTERNAL', `block ${block} was handed over and not taken`);
      options.onBytes?.(written.reduce((sum, one) => sum + ('sizeBytes' in one ? one.sizeBytes : 0), 0));
      return written;
    } catch (error) {
      if (!(error instanceof DezentError) || error.code === 'CANCELLED' || options.signal?.aborted) throw error;
      const { code, message } = error;
      return targets.map(() => ({ code, message }));
    }
  }

  async function nameGroup(group: readonly SmallTarget[]): Promise<(NotRead | undefined)[]> {
    const input: NameInput = group.map(({ tmp, path }) => ({ tmp, path }));
    return againWhenLost(() => threads.run('nameSmall', input, { urgent: true }));
  }

  /** One round: written, made durable, named. */
  async function openRound(
    targets: readonly SmallTarget[],
    options: OpenSmallOptions,
  ): Promise<Map<SmallTarget, SmallWritten>> {
    const results = new Map<SmallTarget, SmallWritten>();
    const isWritten = (target: SmallTarget): boolean => 'sizeBytes' in (results.get(target) ?? {});
    try {
      await eachOf(groupsOf(targets), async (group) => {
        const written = await writeGroup(group, options);
        for (const [at, target] of group.entries()) results.set(target, written[at] as SmallWritten);
      });
      const written = targets.filter(isWritten);
      await options.beforeNames?.([...new Set(written.map(({ tmp }) => dirname(tmp)))]);
      await eachOf(slicesOf(written, SMALL_BATCH), async (group) => {
        const failures = await nameGroup(group);
        for (const [at, failure] of failures.entries()) if (failure) results.set(group[at] as SmallTarget, failure);
      });
      return results;
    } catch (error) {
      await removeAll(targets.filter(isWritten));
      throw error;
    }
  }

  /** Keeps two jobs for each thread under way; all have ended when it returns or throws. */
  async function eachOf<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
    async function* source(): AsyncGenerator<T> {
      yield* items;
    }
    const works = mapInOrder(2 * threads.threads, work)(source());
    while ((await works.next()).done !== true);
  }

  return {
    open,
    async openSmall(targets, options) {
      const results: SmallWritten[] = [];
      for (const round of slicesOf(targets, NAMED_AT_ONCE)) {
        options.signal?.throwIfAborted();
        const done = await openRound(round, options);
        results.push(...round.map((target) => done.get(target) as SmallWritten));
      }
      return results;
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}

type PlacedExtent = Extent & { position: number };

interface OpenedBatch {
  batch: readonly PlacedExtent[];
  hashes: Uint8Array;
}

const hashAt = (hashes: Uint8Array, at: number): Uint8Array => hashes.subarray(at * HASH_BYTES, (at + 1) * HASH_BYTES);

async function fetched(id: BlockId, fetch: OpenOptions['fetch']): Promise<BlockSource> {
  return { id, place: undefined, bytes: await fetch(id) };
}

async function* inBatches(extents: AsyncIterable<Extent>): AsyncGenerator<PlacedExtent[]> {
  let batch: PlacedExtent[] = [];
  let bytes = 0;
  let position = 0;
  for await (const extent of extents) {
    batch.push({ ...extent, position });
    position += extent.length;
    bytes += extent.length;
    if (bytes < BATCH_BYTES) continue;
    yield batch;
    batch = [];
    bytes = 0;
  }
  if (batch.length > 0) yield batch;
}

function slicesOf<T>(items: readonly T[], count: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / count) }, (_, at) => items.slice(at * count, (at + 1) * count));
}

/** Files of the same block together. */
function groupsOf(targets: readonly SmallTarget[]): SmallTarget[][] {
  const byBlock = new Map<BlockId, SmallTarget[]>();
  for (const target of targets) {
    const group = byBlock.get(target.root.block) ?? [];
    byBlock.set(target.root.block, group);
    group.push(target);
  }
  return [...byBlock.values()].flatMap((group) => slicesOf(group, SMALL_BATCH));
}

/** Run again with nothing of the first run left. */
function cleanAgainWhenLost<T>(targets: readonly SmallTarget[], work: () => Promise<T>): Promise<T> {
  let runs = 0;
  return againWhenLost(async () => {
    runs += 1;
    if (runs > 1) await removeAll(targets);
    return work();
  });
}

async function removeAll(targets: readonly SmallTarget[]): Promise<void> {
  await Promise.all(targets.map(({ tmp }) => unlink(tmp).catch(ignoreAbsence)));
}

function ignoreAbsence(error: unknown): void {
  if (systemCode(error) !== 'ENOENT') throw error;
}
