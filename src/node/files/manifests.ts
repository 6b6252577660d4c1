// Manifests by their root. Many small files share one solid block, so the last few opened ones are kept, with the peer they came from: a
// file out of a block that was fetched for its neighbour came from that peer too, as long as that peer is here.
import type { BlockId } from '../../store/block.ts';
import { expand } from '../../store/compress.ts';
import { decodeManifest, type Manifest, type Root } from '../../store/manifest.ts';
import type { ContentKeys } from '../../store/secrets.ts';
import { KIND_MANIFEST, unsealNamed } from '../../store/seal.ts';
import { sliceRoot } from '../../store/solid.ts';

/** Opened solid blocks kept: at most 1 MiB each. */
const KEPT_SOLID_BLOCKS = 16;

export type Fetch = (id: BlockId) => Promise<Uint8Array>;

/** `from`: a peer id; undefined: this machine. */
export type FetchFrom = (id: BlockId) => Promise<{ bytes: Uint8Array; from: string | undefined }>;

export interface Manifests {
  /** Throws UNREACHABLE when its block cannot be had, BAD_MANIFEST or BAD_BLOCK when it is not what it should be. */
  at(root: Root, fetch: Fetch): Promise<Manifest>;
  /** These blocks have left this machine: what was opened of them is not kept either. */
  forget(ids: readonly BlockId[]): void;
  /** The same, and where its block came from. */
  open(root: Root, fetch: FetchFrom): Promise<{ manifest: Manifest; from: string | undefined }>;
  /** These blocks have left this machine: what is opened from now on does not come from here. */
  forget(ids: readonly BlockId[]): void;
  /** This peer is gone: the same. */
  forgetFrom(peerId: string): void;
}

interface Solid {
  plain: Uint8Array;
  from: string | undefined;
}

interface Kept {
  solid: Promise<Solid>;
  /** Where it came from, once it is here. */
  from?: string | undefined;
  /** False: opened for `at`, which does not ask where it came from. */
  tellsFrom: boolean;
}

export function openManifests(keys: () => ContentKeys): Manifests {
  const kept = new Map<BlockId, Kept>();

  function keep(id: BlockId, one: Kept): void {
    kept.delete(id);
    kept.set(id, one);
    const oldest = kept.keys().next().value;
    if (kept.size > KEPT_SOLID_BLOCKS && oldest !== undefined) kept.delete(oldest);
  }

  function load(id: BlockId, fetch: FetchFrom, tellsFrom: boolean): Promise<Solid> {
    const solid = fetch(id).then(({ bytes, from }) => ({
      plain: expand(unsealNamed(KIND_MANIFEST, bytes, keys())),
      from,
    }));
    const one: Kept = { solid, tellsFrom };
    keep(id, one);
    solid.then(
      ({ from }) => (one.from = from),
      () => kept.get(id) === one && kept.delete(id), // whoever awaits it gets the error; the next caller tries anew
    );
    return solid;
  }

  async function solidAt(id: BlockId, fetch: FetchFrom, tellsFrom: boolean): Promise<Solid> {
    const ready = kept.get(id);
    if (ready === undefined || (tellsFrom && !ready.tellsFrom)) return load(id, fetch, tellsFrom);
    keep(id, ready);
    // Another caller's attempt: it may have been cancelled, which is no reason for this one to fail.
    return ready.solid.catch(() => load(id, fetch, tellsFrom));
  }

  return {
    async at(root, fetch) {
      const unasked: FetchFrom = async (id) => ({ bytes: await fetch(id), from: undefined });
      return decodeManifest(sliceRoot(root, (await solidAt(root.block, unasked, false)).plain));
    },
    async open(root, fetch) {
      const { plain, from } = await solidAt(root.block, fetch, true);
      return { manifest: decodeManifest(sliceRoot(root, plain)), from };
    },
    forget(ids) {
      for (const id of ids) kept.delete(id);
    },
    forgetFrom(peerId) {
      for (const [id, { from }] of kept) if (from === peerId) kept.delete(id);
    },
  };
}
