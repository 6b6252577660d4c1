// Reads ranges of packs through a bounded set of open files. A pack that is unlinked meanwhile is read to the end by those who have it open.
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { packName, type PackId } from './pack-file.ts';
import { readBytes } from './pack-scan.ts';

/** Of the usual 1024 files a process may open; level takes up to 200 of them. */
const MAX_OPEN_PACKS = 128;

export interface PackReader {
  /** These bytes, fewer at the end of the pack; ENOENT when there is no such pack. */
  read(pack: PackId, offset: number, length: number): Promise<Uint8Array>;
  /** Closes the pack once nobody reads it, so that its space can return. */
  forget(pack: PackId): Promise<void>;
  close(): Promise<void>;
}

interface OpenPack {
  file: Promise<FileHandle>;
  readers: number;
  unwanted: boolean;
}

export function openPackReader(dir: string): PackReader {
  const packs = new Map<PackId, OpenPack>();

  function wanted(pack: PackId): OpenPack {
    const known = packs.get(pack) ?? { file: open(join(dir, packName(pack)), 'r'), readers: 0, unwanted: false };
    packs.delete(pack);
    packs.set(pack, known);
    return known;
  }

  async function done(pack: PackId, known: OpenPack): Promise<void> {
    known.readers--;
    if (known.readers === 0 && known.unwanted) await (await known.file).close();
    for (const [oldest, idle] of packs) {
      if (packs.size <= MAX_OPEN_PACKS) return;
      if (idle.readers === 0 && oldest !== pack) await forget(oldest);
    }
  }

  async function forget(pack: PackId): Promise<void> {
    const known = packs.get(pack);
    packs.delete(pack);
    if (known === undefined) return;
    known.unwanted = true;
    if (known.readers === 0) await (await known.file).close();
  }

  async function read(pack: PackId, offset: number, length: number): Promise<Uint8Array> {
    const known = wanted(pack);
    known.readers++;
    let file: FileHandle;
    try {
      file = await known.file;
    } catch (error) {
      if (packs.get(pack) === known) packs.delete(pack);
      throw error;
    }
    try {
      return await readBytes(file, offset, length);
    } finally {
      await done(pack, known);
    }
  }

  return {
    read,
    forget,
    close: async () => {
      await Promise.all([...packs.keys()].map(forget));
    },
  };
}
