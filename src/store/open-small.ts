// The thread's work on many small files to restore: one solid block is opened for all its files; each is checked, written under its tmp
// name with mode and time, and gets its own name in a second step, when all are durable.
import { closeSync, fchmodSync, futimesSync, linkSync, lstatSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { DezentError, systemCode } from '../errors.ts';
import { openBlockReads, type BlockSource } from './block-reads.ts';
import { expand } from './compress.ts';
import { decodeManifest, openContentHasher, type Root } from './manifest.ts';
import { KIND_MANIFEST, unsealNamed } from './seal.ts';
import { keyedHash, type ContentKeys } from './secrets.ts';
import type { ThreadTools } from './seal-windows.ts';
import type { NotRead, SmallTarget, SmallWritten } from './sealing.ts';
import { notReadOf, TOO_LARGE } from './small-files.ts';
import { sliceRoot } from './solid.ts';
import type { Given } from './thread-jobs.ts';

export interface WriteSmallInput {
  source: BlockSource;
  targets: readonly SmallTarget[];
}

/** Undefined when the block is not where it was said to be; nothing is written then. */
export type WriteSmallOutput = SmallWritten[] | undefined;

/** Writes the files of one solid block under their tmp names. Throws BAD_BLOCK when the block does not open. */
export function writeSmallFiles({ source, targets }: WriteSmallInput, { keys, window }: ThreadTools): Given {
  const reads = openBlockReads(window());
  try {
    const sealed = reads.read(source);
    const plain = sealed && expand(unsealNamed(KIND_MANIFEST, sealed, keys));
    return { value: plain && targets.map((target) => writeOne(target, plain, keys)), transfer: [] };
  } finally {
    reads.close();
  }
}

function writeOne(target: SmallTarget, solid: Uint8Array, keys: ContentKeys): SmallWritten {
  try {
    const inline = checkedInline(target.root, solid, keys);
    if (inline === undefined) return { code: TOO_LARGE, message: `${target.path} does not lie in its manifest` };
    writeNew(target, inline);
    return { sizeBytes: inline.length };
  } catch (error) {
    return notReadOf(error);
  }
}

function checkedInline(root: Root, solid: Uint8Array, keys: ContentKeys): Uint8Array | undefined {
  const manifest = decodeManifest(sliceRoot(root, solid));
  if (!('inline' in manifest)) return undefined;
  const hasher = openContentHasher(keys.contentHash);
  if (manifest.size > 0) hasher.add(manifest.size, keyedHash(keys.plainHash, manifest.inline));
  if (!Buffer.from(manifest.contentHash).equals(hasher.digest()))
    throw new DezentError('BAD_MANIFEST', 'the content is not what its manifest says');
  return manifest.inline;
}

function writeNew({ tmp, mode, mtimeUs }: SmallTarget, bytes: Uint8Array): void {
  const fd = openSync(tmp, 'wx', 0o600);
  try {
    for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, done);
    fchmodSync(fd, mode & 0o7777);
    // Half a microsecond more: the double that comes closest may lie below, and the system cuts off.
    futimesSync(fd, Date.now() / 1000, (mtimeUs + 0.5) / 1e6);
  } catch (error) {
    unlinkSync(tmp);
    throw error;
  } finally {
    closeSync(fd);
  }
}

export type NameInput = readonly Pick<SmallTarget, 'tmp' | 'path'>[];

/** Gives written files their names; a result for each: undefined, or why it keeps its tmp name. */
export function nameSmallFiles(targets: NameInput): Given {
  return { value: targets.map(nameOne), transfer: [] };
}

function nameOne({ tmp, path }: NameInput[number]): NotRead | undefined {
  try {
    if (!linkedNow(tmp, path)) return { code: 'NAME_TAKEN', message: `${path} exists already` };
    unlinkSync(tmp);
    return undefined;
  } catch (error) {
    return notReadOf(error);
  }
}

/** False when something else has the name; true also where it was given in an earlier run of the same work. */
function linkedNow(tmp: string, path: string): boolean {
  try {
    linkSync(tmp, path);
    return true;
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error;
    return lstatSync(tmp).ino === lstatSync(path).ino;
  }
}
