// How fast files come back, checked, from the store on this machine: one of 512 MiB, and 20,000 of 4 KiB with mode and time, beside
// openssl | zstd -d | tar and cp in the same run, on a file system in memory. Nobody syncs. One JSON line per case.
//   node bench/restore.bench.ts
import { mkdirSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { BlockId } from '../src/store/block.ts';
import { decodeManifest } from '../src/store/manifest.ts';
import type { SmallTarget } from '../src/store/sealing.ts';
import {
  compare,
  FILE_BYTES,
  KINDS,
  makeLarge,
  makeSmall,
  openBenchPipeline,
  pack,
  report,
  seconds,
  shell,
  SMALL_FILES,
  unpack,
  workDir,
  type BenchPipeline,
} from './pipeline-corpus.ts';

const dir: string = workDir();
const out: string = join(dir, 'out');
/** As many as a solid block holds. */
const SOLID_FILES = 256;

/** Times the work on an empty directory. */
async function into(work: () => Promise<void> | void): Promise<number> {
  mkdirSync(out);
  const taken = await seconds(work);
  rmSync(out, { recursive: true });
  return taken;
}

const fetch = (id: BlockId): Promise<never> => Promise.reject(new Error(`${id} is not here`));

async function putBack({ openers }: BenchPipeline, manifest: Uint8Array): Promise<void> {
  const file = await open(join(out, 'file'), 'wx');
  await file.truncate(FILE_BYTES);
  await openers.open(decodeManifest(manifest), file.fd, { fetch });
  await file.close();
}

async function takeSmall({ sealers }: BenchPipeline, paths: readonly string[]): Promise<SmallTarget[]> {
  const targets: SmallTarget[] = [];
  for (let at = 0; at < paths.length; at += SOLID_FILES) {
    const some = paths.slice(at, at + SOLID_FILES);
    const files = await sealers.readSmall(some.map((path) => ({ path })));
    const { roots } = await sealers.keepSolid(
      files.map((file) => {
        if ('code' in file) throw new Error(file.message);
        return file.manifest;
      }),
    );
    for (const [index, root] of roots.entries()) {
      const path = join(out, `${at + index}`);
      targets.push({ root, path, tmp: `${path}.tmp`, mode: 0o644, mtimeUs: 1e15 });
    }
  }
  return targets;
}

async function putSmallBack({ openers }: BenchPipeline, targets: readonly SmallTarget[]): Promise<void> {
  for (const result of await openers.openSmall(targets, { fetch }))
    if ('code' in result) throw new Error(result.message);
}

async function compareAll(source: string, ours: () => Promise<void>): Promise<Record<string, number>> {
  const packed = join(dir, 'packed');
  shell(pack(source, packed));
  return compare({
    dezent: () => into(ours),
    'openssl|zstd|tar': () => into(() => shell(unpack(packed, out))),
    cp: () => into(() => shell(`cp -r '${source}' '${out}'`)),
  });
}

try {
  for (const kind of KINDS) {
    const path = makeLarge(dir, kind);
    const pipeline = await openBenchPipeline(join(dir, 'store'));
    const { manifest } = await pipeline.sealers.seal({ path, sizeBytes: FILE_BYTES });
    const taken = await compareAll(join(dir, kind), () => putBack(pipeline, manifest));
    report('restore', `512 MiB ${kind}`, { amount: FILE_BYTES / 1e6, unit: 'MB/s' }, taken);
    await pipeline.close();
    rmSync(join(dir, kind), { recursive: true });
  }
  const pipeline = await openBenchPipeline(join(dir, 'store'));
  const targets = await takeSmall(pipeline, makeSmall(dir));
  const taken = await compareAll(join(dir, 'small'), () => putSmallBack(pipeline, targets));
  report('restore', '20000 x 4 KiB', { amount: SMALL_FILES, unit: 'files/s' }, taken);
  await pipeline.close();
} finally {
  rmSync(dir, { recursive: true });
}
