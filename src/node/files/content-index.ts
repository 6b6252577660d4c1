// What this node knows of content it has sealed: plain hash → extent, content hash → root and blocks. Hints that save work and sending:
// losing them costs a new sealing, never a file. An entry counts only as long as its bytes can be had (open-stored.ts).
import { blockIdFromBytes, blockIdToBytes, BLOCK_ID_BYTES, type BlockId } from '../../store/block.ts';
import type { Extent, Root } from '../../store/manifest.ts';
import type { ChunkIndex } from '../../store/sealing.ts';
import { openTable, type StateDb } from '../home/state.ts';

export interface KnownContent {
  root: Root;
  average: number;
  sizeBytes: number;
  /** Every block that the content needs, its manifest's own included. */
  blocks: BlockId[];
}

/** Read from the table at once. */
const HASHES_A_PAGE = 1024;

export interface ContentTable extends ChunkIndex {
  content(contentHash: Uint8Array): Promise<KnownContent | undefined>;
  /** By its root: what a catalog entry names. */
  contentAt(root: Root): Promise<(KnownContent & { contentHash: Uint8Array }) | undefined>;
  addContents(contents: readonly (KnownContent & { contentHash: Uint8Array })[]): Promise<void>;
}

type ExtentValue = [block: Uint8Array, offset: number, length: number, key: Uint8Array];
interface ContentValue {
  root: [Uint8Array, number, number];
  average: number;
  size: number;
  /** All block ids, 36 bytes each, one after the other. */
  blocks: Uint8Array;
  hash: Uint8Array;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
export const rootKey = ({ block, offset }: Root): string => `${block}/${offset}`;

function joinIds(ids: readonly BlockId[]): Uint8Array {
  return Buffer.concat(ids.map(blockIdToBytes));
}

function splitIds(bytes: Uint8Array): BlockId[] {
  const ids: BlockId[] = [];
  for (let at = 0; at < bytes.length; at += BLOCK_ID_BYTES)
    ids.push(blockIdFromBytes(bytes.subarray(at, at + BLOCK_ID_BYTES)));
  return ids;
}

function fromValue({ root, average, size, blocks, hash }: ContentValue): KnownContent & { contentHash: Uint8Array } {
  const [block, offset, length] = root;
  return {
    root: { block: blockIdFromBytes(block), offset, length },
    average,
    sizeBytes: size,
    blocks: splitIds(blocks),
    contentHash: hash,
  };
}

export function openContentTable(db: StateDb): ContentTable {
  const extents = openTable<ExtentValue>(db, 'extents');
  /** The newest root of each content. */
  const contents = openTable<string>(db, 'contents');
  /** Each root has its own value: content that was sealed twice has two manifests, in different blocks. */
  const roots = openTable<ContentValue>(db, 'roots');

  function known(key: string | undefined): (KnownContent & { contentHash: Uint8Array }) | undefined {
    const value = key === undefined ? undefined : roots.getSync(key);
    return value && fromValue(value);
  }

  return {
    async *plainHashes() {
      const keys = extents.keys();
      for (let page = await keys.nextv(HASHES_A_PAGE); page.length > 0; page = await keys.nextv(HASHES_A_PAGE)) {
        yield page.map((key) => Buffer.from(key, 'hex'));
      }
      await keys.close();
    },
    content: async (contentHash) => known(contents.getSync(hex(contentHash))),
    async extent(plainHash): Promise<Extent | undefined> {
      const value = extents.getSync(hex(plainHash));
      if (value === undefined) return undefined;
      const [block, offset, length, key] = value;
      return { block: blockIdFromBytes(block), offset, length, key };
    },
    async addExtents(added) {
      await extents.batch(
        added.map(({ plainHash, extent: { block, offset, length, key } }) => ({
          type: 'put',
          key: hex(plainHash),
          value: [blockIdToBytes(block), offset, length, key],
        })),
      );
    },
    contentAt: async (root) => known(rootKey(root)),
    async addContents(added) {
      await roots.batch(
        added.map(({ contentHash, root, average, sizeBytes, blocks }) => ({
          type: 'put',
          key: rootKey(root),
          value: {
            root: [blockIdToBytes(root.block), root.offset, root.length],
            average,
            size: sizeBytes,
            blocks: joinIds(blocks),
            hash: contentHash,
          },
        })),
      );
      await contents.batch(
        added.map(({ contentHash, root }) => ({ type: 'put', key: hex(contentHash), value: rootKey(root) })),
      );
    },
  };
}
