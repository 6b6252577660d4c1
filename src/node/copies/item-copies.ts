// How many distinct holders keep everything that an item needs to come back: its blocks, manifest, catalog segment (with older ones'
// checkpoint) and a head that lists it. What counts as one copy is receipts.ts's business.
import type { BlockId } from '../../store/block.ts';
import { blocksOf } from '../../store/pipeline.ts';
import type { ContentKeys } from '../../store/secrets.ts';
import type { ContentTable, KnownContent } from '../files/content-index.ts';
import type { Fetch, Manifests } from '../files/manifests.ts';
import type { TreeItem } from '../files/tree.ts';

export interface CopyCount {
  copies: number;
  /** Peer ids. */
  holders: string[];
}

export interface ItemCopies {
  contentOf(item: TreeItem): Promise<KnownContent | undefined>;
  /** Every block that a holder must keep for this item. */
  idsOf(item: TreeItem): Promise<BlockId[]>;
  count(item: TreeItem): Promise<CopyCount>;
}

export interface ItemCopiesNeeds {
  contents: ContentTable;
  keys: () => ContentKeys;
  fetch: Fetch;
  manifests: Manifests;
  checkpoints(): readonly BlockId[];
  /** Peer ids of those that gave a receipt for this block which stands. */
  holdersOf(id: BlockId): readonly string[];
  /** Highest seq of this device's head that the peer has acknowledged. */
  ackedHead(peerId: string): number;
  countDistinct(peerIds: readonly string[]): number;
}

export function openItemCopies(needs: ItemCopiesNeeds): ItemCopies {
  const { contents, keys, manifests, fetch, checkpoints, holdersOf, ackedHead, countDistinct } = needs;

  async function contentOf({ entry: { root } }: TreeItem): Promise<KnownContent | undefined> {
    if (root === undefined) return undefined;
    const known = await contents.contentAt(root);
    if (known !== undefined) return known;
    const manifest = await manifests.at(root, fetch);
    const blocks = await blocksOf(manifest, { keys: keys(), fetch });
    const content = {
      contentHash: manifest.contentHash,
      average: manifest.average,
      sizeBytes: manifest.size,
      root,
      blocks: [...blocks, root.block],
    };
    await contents.addContents([content]);
    return content;
  }

  async function idsOf(item: TreeItem): Promise<BlockId[]> {
    const content = await contentOf(item);
    return [...new Set([...(content?.blocks ?? []), item.segment.id, ...checkpoints()])];
  }

  return {
    contentOf,
    idsOf,
    async count(item) {
      let holders: Set<string> | undefined;
      for (const id of await idsOf(item)) {
        const having = new Set(holdersOf(id));
        holders = holders === undefined ? having : holders.intersection(having);
        if (holders.size === 0) break;
      }
      const whole = [...(holders ?? [])].filter((peerId) => ackedHead(peerId) >= item.segment.seq);
      return { copies: countDistinct(whole), holders: whole };
    },
  };
}
