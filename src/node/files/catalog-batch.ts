// Batches: new manifests share solid blocks and new entries share a catalog segment, so that thousands of small files cost a handful
// of blocks and commits. A batch closes when nobody is reading any more, when it is full, or after BATCH_MAX_MS.
import type { SegmentRef } from '../../protocol/head.ts';
import type { LocalStore } from '../../store/block-store.ts';
import { encodeEntry, SEGMENT_MAX_ENTRIES, SEGMENT_TARGET_BYTES, type CatalogEntry } from '../../store/catalog.ts';
import type { Root } from '../../store/manifest.ts';
import type { StoredContent } from '../../store/pipeline.ts';
import type { ContentKeys } from '../../store/secrets.ts';
import { sealSolid, SOLID_MAX_BYTES } from '../../store/solid.ts';
import type { CatalogLog } from './catalog-log.ts';
import type { ContentTable } from './content-index.ts';
import type { Tree, TreeItem } from './tree.ts';

/** A user waits at most this long for others' files to share a batch. */
const BATCH_MAX_MS = 200;

/** One change to the tree. `content` is there when its manifest has to be kept; `root` then comes with the batch. */
export interface Change {
  content?: StoredContent;
  item(root: Root | undefined, segment: SegmentRef): TreeItem;
  entry(root: Root | undefined): CatalogEntry;
  /** A path that the item leaves (rename). */
  leaves?: string;
}

export interface CatalogBatch {
  /** Resolves when content, manifest, entry, head and tree are durable here. */
  add(change: Change): Promise<TreeItem>;
  /** Nothing more is coming for now: close at once. */
  flush(): void;
  /** Resolves when everything added so far has been closed. */
  settled(): Promise<void>;
}

interface Waiting {
  change: Change;
  done: (item: TreeItem) => void;
  failed: (error: unknown) => void;
}

export interface CatalogBatchNeeds {
  keys: () => ContentKeys;
  store: LocalStore;
  contents: ContentTable;
  log: CatalogLog;
  tree: Tree;
  owner: Uint8Array;
}

/** Consecutive items whose sizes add up to at most `maxBytes` (one alone may be larger). */
function groupBySize<T>(items: readonly T[], sizeOf: (item: T) => number, maxBytes: number): T[][] {
  const groups: T[][] = [];
  let room = 0;
  for (const item of items) {
    const size = sizeOf(item);
    if (size > room || groups.length === 0) {
      groups.push([]);
      room = maxBytes;
    }
    groups.at(-1)?.push(item);
    room -= size;
  }
  return groups;
}

export function openCatalogBatch({ keys, store, contents, log, tree, owner }: CatalogBatchNeeds): CatalogBatch {
  let waiting: Waiting[] = [];
  let bytes = 0;
  let timer: NodeJS.Timeout | undefined;
  let closing: Promise<void> = Promise.resolve();
  let closingNow = false;

  /** Seals the manifests of equal content once; gives the root of each content. */
  async function keepManifests(batch: readonly Waiting[]): Promise<Map<string, Root>> {
    const byHash = new Map<string, StoredContent>();
    for (const { change } of batch) {
      if (change.content) byHash.set(Buffer.from(change.content.contentHash).toString('hex'), change.content);
    }
    const roots = new Map<string, Root>();
    for (const group of groupBySize([...byHash], ([, { manifest }]) => manifest.length, SOLID_MAX_BYTES)) {
      const sealed = await sealSolid(
        group.map(([, { manifest }]) => manifest),
        keys(),
      );
      await store.putMany([sealed.block], { owner });
      group.forEach(([hash], index) => roots.set(hash, sealed.roots[index] as Root));
    }
    await contents.addContents(
      [...byHash].map(([hash, { contentHash, average, sizeBytes, blocks }]) => {
        const root = roots.get(hash) as Root;
        return { contentHash, average, sizeBytes, root, blocks: [...blocks, root.block] };
      }),
    );
    return roots;
  }

  async function close(batch: readonly Waiting[]): Promise<void> {
    const roots = await keepManifests(batch);
    const rootOf = ({ content }: Change): Root | undefined =>
      content && roots.get(Buffer.from(content.contentHash).toString('hex'));
    const rows = batch.map(({ change, done }) => ({
      change,
      done,
      root: rootOf(change),
      entry: change.entry(rootOf(change)),
    }));
    const sizeOf = ({ entry }: { entry: CatalogEntry }): number => encodeEntry(entry).length;
    for (const group of groupBySize(rows, sizeOf, SEGMENT_TARGET_BYTES)) {
      const segment = await log.append(group.map(({ entry }) => entry));
      const items = group.map(({ change, root }) => change.item(root, segment));
      await tree.set(
        items,
        group.flatMap(({ change }) => change.leaves ?? []),
      );
      group.forEach(({ done }, index) => done(items[index] as TreeItem));
    }
  }

  async function closeWaiting(): Promise<void> {
    while (waiting.length > 0) {
      const batch = waiting.splice(0, SEGMENT_MAX_ENTRIES);
      bytes = 0;
      try {
        await close(batch);
      } catch (error) {
        for (const { failed } of batch) failed(error);
      }
    }
    closingNow = false;
  }

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    if (closingNow || waiting.length === 0) return;
    closingNow = true;
    closing = closeWaiting();
  }

  return {
    flush,
    async settled() {
      flush();
      await closing;
    },
    add(change) {
      const { promise, resolve, reject } = Promise.withResolvers<TreeItem>();
      waiting.push({ change, done: resolve, failed: reject });
      bytes += change.content?.manifest.length ?? 0;
      if (bytes >= SOLID_MAX_BYTES || waiting.length >= SEGMENT_MAX_ENTRIES) flush();
      else timer ??= setTimeout(flush, BATCH_MAX_MS);
      return promise;
    },
  };
}
