// A stub found in FOLDER: where its file is known under another path, it was renamed (then the file moves in the tree) or copied (then the
// copy becomes a file of its own with the same content). A stub of a deleted file brings it back. Nothing is read but the stub.
import { randomBytes } from 'node:crypto';
import { FILE_ID_BYTES, type CatalogEntry } from '../../store/catalog.ts';
import { decodeStub, hasStubMagic, STUB_SUFFIX, type Stub } from '../../store/stub.ts';
import type { ContentKeys } from '../../store/secrets.ts';
import type { CatalogBatch } from './catalog-batch.ts';
import { rootKey } from './content-index.ts';
import type { Folder } from './folder.ts';
import { lstatIfPresent } from './identity.ts';
import { readStubBytes } from '../offload/swap.ts';
import type { Tree, TreeItem } from './tree.ts';

export interface AdoptStubNeeds {
  folder: Folder;
  tree: Tree;
  batch: CatalogBatch;
  keys: () => ContentKeys;
  own: { ownerId: string; groupId: string };
  deviceId: string;
}

/**
 * Looks at the file at this path (which ends in `.f`). Gives the item it stands for, or undefined when it is no stub but an ordinary
 * file. Throws BAD_STUB, FOREIGN_STUB, NEWER_VERSION: it has a stub's first line, but nothing may be concluded from it.
 */
export type AdoptStub = (stubPath: string) => Promise<TreeItem | undefined>;

export function openAdoptStub({ folder, tree, batch, keys, own, deviceId }: AdoptStubNeeds): AdoptStub {
  const isAt = async (path: string): Promise<boolean> =>
    (await lstatIfPresent(folder.absolute(path))) !== undefined ||
    (await lstatIfPresent(folder.absolute(folder.stubOf(path)))) !== undefined;

  function add(entry: CatalogEntry, seen: string, leaves?: string): Promise<TreeItem> {
    return batch.add({
      entry: () => entry,
      item: (_, segment) => ({ entry, state: 'stubbed', reason: '', seen, segment, copies: 0, since: Date.now() }),
      ...(leaves !== undefined && { leaves }),
    });
  }

  const bump = (versions: Record<string, number>): Record<string, number> => ({
    ...versions,
    [deviceId]: (versions[deviceId] ?? 0) + 1,
  });

  const entryOf = (stub: Stub, path: string, fileId: Uint8Array): CatalogEntry => ({
    fileId,
    path,
    kind: 'file',
    root: stub.root,
    sizeBytes: stub.sizeBytes,
    mode: stub.mode,
    mtimeUs: stub.mtimeUs,
    versions: { [deviceId]: 1 },
  });

  const isSameRoot = (item: TreeItem, { root }: Stub): boolean =>
    item.entry.root !== undefined && rootKey(item.entry.root) === rootKey(root);

  /** Beside its own file it is the earlier version of it; alone it is what the path stands for. */
  async function adoptHere(here: TreeItem, stub: Stub, seen: string): Promise<TreeItem> {
    const { path, versions } = here.entry;
    if (isSameRoot(here, stub)) {
      if (here.state === 'stubbed' && here.seen === seen) return here;
      if (here.state !== 'stubbed' && (await lstatIfPresent(folder.absolute(path))) !== undefined) return here;
      const item: TreeItem = { ...here, state: 'stubbed', reason: '', seen, since: Date.now() };
      await tree.set([item]);
      return item;
    }
    if ((await lstatIfPresent(folder.absolute(path))) !== undefined) return here;
    return add({ ...entryOf(stub, path, here.entry.fileId), versions: bump(versions) }, seen);
  }

  async function adopt(path: string, stub: Stub, seen: string): Promise<TreeItem> {
    const here = tree.get(path);
    if (here !== undefined) return adoptHere(here, stub, seen);
    const elsewhere = tree.pathOf(stub.fileId);
    const item = elsewhere === undefined ? undefined : tree.get(elsewhere);
    // The path of a deleted file may be another file's by now.
    const isItself = item !== undefined && Buffer.from(item.entry.fileId).equals(stub.fileId);
    if (!isItself) return add(entryOf(stub, path, stub.fileId), seen);
    if (await isAt(item.entry.path)) return add(entryOf(stub, path, randomBytes(FILE_ID_BYTES)), seen);
    return add({ ...item.entry, path, versions: bump(item.entry.versions) }, seen, item.entry.path);
  }

  return async function adoptStub(stubPath) {
    const found = await readStubBytes(folder.absolute(stubPath));
    if (found === undefined || !hasStubMagic(found.bytes)) return undefined;
    const stub = decodeStub(found.bytes, keys(), own);
    return adopt(stubPath.slice(0, -STUB_SUFFIX.length), stub, found.identity);
  };
}
