// Restore: a stub → the original in its place. The stub goes only when the original stands, durable and checked.
//
//   readStub → (still in quarantine: bring it back) → manifest → journal → writeChecked → linkFreeName → tree → remove the stub → journal
import { basename, dirname, join } from 'node:path';
import { DezentError } from '../../errors.ts';
import type { ContentKeys } from '../../store/secrets.ts';
import { decodeStub, hasStubMagic, STUB_MAX_BYTES, STUB_SUFFIX, type Stub } from '../../store/stub.ts';
import { rootKey } from '../files/content-index.ts';
import type { Folder } from '../files/folder.ts';
import { identityOf, lstatIfPresent } from '../files/identity.ts';
import { newOperationId, type Journal, type RestoreRecord } from './journal.ts';
import type { Fetch, Manifests } from '../files/manifests.ts';
import type { PathLocks } from '../files/path-locks.ts';
import type { Quarantine } from './quarantine.ts';
import { dropTmp, linkFreeName, tmpBeside, writeChecked, type Meta, type RegenerateNeeds } from './regenerate.ts';
import { readStubBytes, unlinkIfSame } from './swap.ts';
import type { Tree } from '../files/tree.ts';

export interface RestoreNeeds extends RegenerateNeeds {
  folder: Folder;
  tree: Tree;
  journal: Journal;
  manifests: Manifests;
  locks: PathLocks;
  quarantine: Quarantine;
  keys: () => ContentKeys;
  own: { ownerId: string; groupId: string };
  /** Verified bytes of a block and whom they came from. */
  fetch(
    id: Parameters<Fetch>[0],
    signal: AbortSignal | undefined,
  ): Promise<{ bytes: Uint8Array; from: string | undefined }>;
}

export interface Restored {
  /** Absolute: where the original is now. */
  path: string;
  sizeBytes: number;
  root: string;
  /** Peers whose bytes were used; empty when all were here. */
  from: string[];
}

export interface RestoreOptions {
  signal?: AbortSignal;
  onBytes?: (count: number) => void;
}

export interface Restore {
  /** Opens the stub at this absolute name. Throws BAD_STUB, FOREIGN_STUB, NEWER_VERSION, NOT_FOUND, UNREACHABLE, DISK_FULL; the stub stays then. */
  open(stubPath: string, options?: RestoreOptions): Promise<Restored>;
  /** Undoes or completes what a crash or a failure left of this operation. */
  settle(record: RestoreRecord): Promise<void>;
}

const SPECIAL_MODE_BITS = 0o7000;

export function openRestore(needs: RestoreNeeds): Restore {
  const { folder, tree, journal, manifests, locks, quarantine, keys, own } = needs;

  async function readStub(stubPath: string): Promise<{ stub: Stub; identity: string }> {
    const found = await readStubBytes(stubPath);
    if (found === undefined) throw new DezentError('NOT_FOUND', `there is no stub at ${stubPath}`);
    if (!hasStubMagic(found.bytes))
      throw new DezentError('BAD_STUB', `${stubPath} is not a stub`, {
        hint: 'It is an ordinary file, or a stub that was damaged; `dezent ls` lists the stubs.',
      });
    if (found.bytes.length > STUB_MAX_BYTES)
      throw new DezentError('BAD_STUB', `${stubPath} is longer than a stub can be`);
    return { stub: decodeStub(found.bytes, keys(), own), identity: found.identity };
  }

  /** Where the original goes: the stub's own name without its suffix, else the name the stub was made under. */
  function targetOf(stubPath: string, stub: Stub): string {
    if (stubPath.endsWith(STUB_SUFFIX) && basename(stubPath) !== STUB_SUFFIX)
      return stubPath.slice(0, -STUB_SUFFIX.length);
    return join(dirname(stubPath), basename(stub.name));
  }

  const pathIn = (absolute: string): string | undefined => {
    try {
      return folder.relative(absolute);
    } catch (error) {
      if (error instanceof DezentError && error.code === 'OUTSIDE_FOLDER') return undefined;
      throw error;
    }
  };

  /** The original still waits in quarantine: no byte has to be fetched. A copy of the stub does not take it from the other. */
  async function fromQuarantine(path: string | undefined, stub: Stub): Promise<boolean> {
    const record = journal.quarantined(stub.fileId, stub.root);
    if (path === undefined || record?.step !== 'stubbed') return false;
    if (record.path === path) return quarantine.bringBack(record);
    if ((await lstatIfPresent(folder.absolute(folder.stubOf(record.path)))) !== undefined) return false;
    const renamed = { ...record, path };
    await journal.write(renamed);
    return quarantine.bringBack(renamed);
  }

  async function noteRestored(path: string | undefined, stub: Stub, at: string): Promise<void> {
    const stats = await lstatIfPresent(at);
    if (path === undefined || stats === undefined || at !== folder.absolute(path)) return;
    const seen = identityOf(stats);
    await tree.update(path, (item) => {
      const isIts = item.entry.root !== undefined && rootKey(item.entry.root) === rootKey(stub.root);
      return isIts ? { ...item, state: 'restored', reason: '', seen, since: Date.now() } : undefined;
    });
  }

  /** Mode and times from the stub; xattrs and the bits above rwx (setuid, setgid, sticky) are in the catalog alone. */
  function metaOf(path: string | undefined, { mode, mtimeUs, root }: Stub): Meta {
    const entry = path === undefined ? undefined : tree.get(path)?.entry;
    if (entry?.root === undefined || rootKey(entry.root) !== rootKey(root)) return { mode, mtimeUs };
    const { xattrs } = entry;
    return { mode: mode | (entry.mode & SPECIAL_MODE_BITS), mtimeUs, ...(xattrs && { xattrs }) };
  }

  async function regenerate(
    stubPath: string,
    stub: Stub,
    stubSeen: string,
    options: RestoreOptions,
  ): Promise<Restored> {
    const target = targetOf(stubPath, stub);
    const path = pathIn(target);
    const done = { sizeBytes: stub.sizeBytes, root: rootKey(stub.root) };
    if (await fromQuarantine(path, stub)) return { ...done, path: target, from: [] };
    const from = new Set<string>();
    const note = (peerId: string | undefined): void => void (peerId !== undefined && from.add(peerId));
    const fetch: Fetch = async (id) => {
      const fetched = await needs.fetch(id, options.signal);
      note(fetched.from);
      return fetched.bytes;
    };
    const { manifest, from: holder } = await manifests.open(stub.root, (id) => needs.fetch(id, options.signal));
    note(holder);
    const id = newOperationId();
    const record: RestoreRecord = {
      v: 1,
      op: 'restore',
      id,
      tmp: tmpBeside(target, id),
      target,
      stub: stubPath,
      stubSeen,
    };
    await journal.write(record);
    try {
      await writeChecked(record.tmp, { manifest, meta: metaOf(path, stub) }, needs, { ...options, fetch });
      const at = await linkFreeName(record.tmp, target, manifest, keys());
      await noteRestored(path, stub, at);
      await unlinkIfSame(stubPath, stubSeen);
      await dropTmp(record.tmp);
      await journal.remove(id);
      return { ...done, path: at, from: [...from] };
    } catch (error) {
      await settle(record);
      throw error;
    }
  }

  async function settle(record: RestoreRecord): Promise<void> {
    const tmp = await lstatIfPresent(record.tmp);
    const target = await lstatIfPresent(record.target);
    // Linked already: the original stands, complete; only the stub is left to remove.
    if (tmp !== undefined && target !== undefined && tmp.ino === target.ino)
      await unlinkIfSame(record.stub, record.stubSeen);
    await dropTmp(record.tmp);
    await journal.remove(record.id);
  }

  return {
    settle,
    async open(stubPath, options = {}) {
      const { stub: first } = await readStub(stubPath);
      const target = targetOf(stubPath, first);
      return locks.run(pathIn(target) ?? target, async () => {
        const { stub, identity } = await readStub(stubPath);
        return regenerate(stubPath, stub, identity, options);
      });
    },
  };
}
