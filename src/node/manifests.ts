// Manifests by their root. Many small files share one solid block, so the last few opened ones are kept.
import type { BlockId } from '../store/block.ts';
import { expand } from '../store/compress.ts';
import { decodeManifest, type Manifest, type Root } from '../store/manifest.ts';
import type { ContentKeys } from '../store/secrets.ts';
import { KIND_MANIFEST, unsealNamed } from '../store/seal.ts';
import { sliceRoot } from '../store/solid.ts';

/** Opened solid blocks kept: at most 1 MiB each. */
const KEPT_SOLID_BLOCKS = 16;

export type Fetch = (id: BlockId) => Promise<Uint8Array>;

export interface Manifests {
  /** Throws UNREACHABLE when its block cannot be had, BAD_MANIFEST or BAD_BLOCK when it is not what it should be. */
  at(root: Root, fetch: Fetch): Promise<Manifest>;
}

export function openManifests(keys: () => ContentKeys): Manifests {
  const opened = new Map<BlockId, Promise<Uint8Array>>();

  function solid(id: BlockId, fetch: Fetch): Promise<Uint8Array> {
    const plain = opened.get(id) ?? fetch(id).then((sealed) => expand(unsealNamed(KIND_MANIFEST, sealed, keys())));
    opened.delete(id);
    opened.set(id, plain);
    plain.catch(() => opened.delete(id)); // whoever awaits it gets the error; the next caller tries anew
    const oldest = opened.keys().next().value;
    if (opened.size > KEPT_SOLID_BLOCKS && oldest !== undefined) opened.delete(oldest);
    return plain;
  }

  return { at: async (root, fetch) => decodeManifest(sliceRoot(root, await solid(root.block, fetch))) };
}
