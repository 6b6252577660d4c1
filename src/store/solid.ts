// Solid blocks: several manifests (or pages, or one catalog segment) sealed as one block. A solid block closes with its batch and never grows.
import { DezentError } from '../errors.ts';
import type { BlockId } from './block.ts';
import { compress, expand } from './compress.ts';
import type { Root } from './manifest.ts';
import type { ContentKeys } from './secrets.ts';
import { KIND_MANIFEST, sealNamed, unsealNamed, type SealedBlock } from './seal.ts';
import { join } from './split.ts';

/** A solid block closes at this many plain bytes: larger ones make reading one small file dearer than it saves. */
export const SOLID_MAX_BYTES: number = 1024 * 1024;

/** Seals these parts as one manifest block; the roots are in the order of the parts. */
export async function sealSolid(
  parts: readonly Uint8Array[],
  keys: ContentKeys,
): Promise<{ block: SealedBlock; roots: Root[] }> {
  const block = sealNamed(KIND_MANIFEST, await compress(join(parts)), keys.current);
  return { block, roots: rootsIn(block.id, parts) };
}

/** The roots of parts that follow each other in this block. */
export function rootsIn(block: BlockId, parts: readonly Uint8Array[]): Root[] {
  let offset = 0;
  return parts.map(({ length }) => {
    const root = { block, offset, length };
    offset += length;
    return root;
  });
}

/** The bytes that a root names in its (sealed) block; throws BAD_MANIFEST when it points outside. */
export function openRoot(root: Root, sealed: Uint8Array, keys: ContentKeys): Uint8Array {
  return sliceRoot(root, expand(unsealNamed(KIND_MANIFEST, sealed, keys)));
}

/** The bytes that a root names in its opened block. */
export function sliceRoot(root: Root, plain: Uint8Array): Uint8Array {
  if (root.offset + root.length > plain.length)
    throw new DezentError('BAD_MANIFEST', `root ${formatRoot(root)} points beyond its block`);
  return plain.subarray(root.offset, root.offset + root.length);
}

/** A root as text, "BLOCKID OFFSET LENGTH": in stubs and in answers. */
export function formatRoot({ block, offset, length }: { block: BlockId; offset: number; length: number }): string {
  return `${block} ${offset} ${length}`;
}
