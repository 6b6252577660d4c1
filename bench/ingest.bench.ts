// How fast files are taken in, durable in the store: one of 512 MiB, and 20,000 of 4 KiB, beside tar | zstd -1 -T2 | openssl and cp in the
// same run, on a file system in memory. Catalog and network are not part of it. One JSON line per case.
//   node bench/ingest.bench.ts
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { SmallFile } from '../src/store/sealing.ts';
import { SOLID_MAX_BYTES } from '../src/store/solid.ts';
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
  workDir,
  type BenchPipeline,
} from './pipeline-corpus.ts';

const dir: string = workDir();
/** Files read at a time: bounds what lies between reading and sealing. */
const READ_AT_ONCE = 2048;

async function ours(work: (pipeline: BenchPipeline) => Promise<void>): Promise<number> {
  const pipeline = await openBenchPipeline(join(dir, 'store'));
  const taken = await seconds(() => work(pipeline));
  await pipeline.close();
  return taken;
}

async function theirs(command: string, made: string): Promise<number> {
  const taken = await seconds(() => shell(command));
  rmSync(made, { recursive: true });
  return taken;
}

async function takeSmall({ sealers }: BenchPipeline, paths: readonly string[]): Promise<void> {
  const keeping: Promise<unknown>[] = [];
  let parts: Uint8Array[] = [];
  let bytes = 0;
  const keep = (): void => {
    keeping.push(sealers.keepSolid(parts));
    parts = [];
    bytes = 0;
  };
  const take = (file: SmallFile): void => {
    if ('code' in file) throw new Error(file.message);
    parts.push(file.manifest);
    bytes += file.manifest.length;
    if (bytes >= SOLID_MAX_BYTES) keep();
  };
  for (let at = 0; at < paths.length; at += READ_AT_ONCE)
    (await sealers.readSmall(paths.slice(at, at + READ_AT_ONCE).map((path) => ({ path })))).forEach(take);
  if (parts.length > 0) keep();
  await Promise.all(keeping);
}

try {
  for (const kind of KINDS) {
    const path = makeLarge(dir, kind);
    const taken = await compare({
      dezent: () => ours(async ({ sealers }) => void (await sealers.seal({ path, sizeBytes: FILE_BYTES }))),
      'tar|zstd|openssl': () => theirs(pack(join(dir, kind), join(dir, 'packed')), join(dir, 'packed')),
      cp: () => theirs(`cp -r '${join(dir, kind)}' '${join(dir, 'copy')}'`, join(dir, 'copy')),
    });
    report('ingest', `512 MiB ${kind}`, { amount: FILE_BYTES / 1e6, unit: 'MB/s' }, taken);
    rmSync(join(dir, kind), { recursive: true });
  }
  const paths = makeSmall(dir);
  const small = join(dir, 'small');
  const taken = await compare({
    dezent: () => ours((pipeline) => takeSmall(pipeline, paths)),
    'tar|zstd|openssl': () => theirs(pack(small, join(dir, 'packed')), join(dir, 'packed')),
    cp: () => theirs(`cp -r '${small}' '${join(dir, 'copy')}'`, join(dir, 'copy')),
  });
  report('ingest', '20000 x 4 KiB', { amount: SMALL_FILES, unit: 'files/s' }, taken);
} finally {
  rmSync(dir, { recursive: true });
}
