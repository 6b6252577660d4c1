// The demo's files: real text, real images, one of 200 MiB, nested folders, odd names, odd modes; each with its hash, to compare later.
import { createHash, randomFillSync } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, mkdir, open, stat, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { bmpImage, pngImage } from './demo-images.ts';

export interface SampleFile {
  path: string;
  sizeBytes: number;
  sha256: string;
  mode: number;
  /** Microseconds: what Node can give back to a file. */
  mtimeUs: bigint;
}

const MIB_BYTES = 2 ** 20;
const BIG_FILE_BYTES = 200 * MIB_BYTES;
const CHUNK_BYTES = 4 * MIB_BYTES;
/** 2026-01-02 03:04:05 UTC and a bit: a time that no copy has by chance. */
const SAMPLE_TIME_S = 1_767_323_045.123;

const SENTENCES = [
  'The tide came in while nobody watched the letters on the sand.',
  'A list of things to take: rope, paper, two lamps, the blue map.',
  'Every copy that is kept elsewhere is one worry less at home.',
  'She wrote the numbers down twice and put them in two drawers.',
];

const FORTRAN = `      PROGRAM HELLO
C     A source file whose own name ends in .f: not a stub, and kept like any other file.
      PRINT *, 'HELLO'
      END
`;

function prose(bytes: number): string {
  const lines: string[] = [];
  for (let length = 0, index = 0; length < bytes; index += 1) {
    const line = `${index} ${SENTENCES[(index * 7 + (index >> 3)) % SENTENCES.length]}`;
    lines.push(line);
    length += line.length + 1;
  }
  return `${lines.join('\n')}\n`.slice(0, bytes);
}

function table(rows: number): string {
  const lines = Array.from(
    { length: rows },
    (_, row) => `${row},2026-03-${String((row % 28) + 1).padStart(2, '0')},${((row * 7919) % 10_007) / 100}`,
  );
  return `id,day,amount\n${lines.join('\n')}\n`;
}

/** Everything but the large file, by path. */
function smallFiles(): Map<string, string | Uint8Array> {
  const photo = pngImage(1280, 720);
  return new Map<string, string | Uint8Array>([
    ['notes.txt', prose(20_000)],
    ['letters/2025/12/to ada.txt', prose(9000)],
    ['letters/2025/12/an den Süden – 南へ.txt', prose(15_000)],
    ['letters/draft.txt', prose(700)],
    ['letters/empty.txt', ''],
    ['tables/amounts.csv', table(40_000)],
    ['photos/sunrise.png', photo],
    ['photos/copy of sunrise.png', photo],
    ['photos/field.bmp', bmpImage(800, 600)],
    ["odd names/it's 100 % $HOME & more; really.txt", prose(6000)],
    ['odd names/-starts-with-a-dash.txt', prose(6000)],
    ['odd names/two  spaces .txt', prose(6000)],
    ['odd names/🦊.txt', prose(6000)],
    [`odd names/${'long-'.repeat(45)}name.txt`, prose(6000)],
    [`${'deeper/'.repeat(20)}bottom.txt`, prose(30_000)],
    ['code/hello.f', FORTRAN.repeat(40)],
    ['code/build.sh', `#!/bin/sh\n${prose(5000).replaceAll(/^/gm, '# ')}`],
    ['code/read-only.json', JSON.stringify({ rows: table(500).split('\n') })],
    ...Array.from({ length: 12 }, (_, index): [string, string] => [
      `letters/short/${index + 1}.txt`,
      prose(300 + index * 250),
    ]),
  ]);
}

const MODES: Readonly<Record<string, number>> = { 'code/build.sh': 0o755, 'code/read-only.json': 0o444 };

/** Writes the sample below `folder` and returns what was written. `onBytes` hears of the large file's progress. */
export async function writeSample(folder: string, signal: AbortSignal): Promise<SampleFile[]> {
  const files = smallFiles();
  for (const [path, content] of files) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), content, { signal });
  }
  await writeLargeFile(join(folder, 'videos', 'holiday.mov'), signal);
  const written: SampleFile[] = [];
  for (const path of [...files.keys(), 'videos/holiday.mov']) {
    await chmod(join(folder, path), MODES[path] ?? 0o644);
    await utimes(join(folder, path), SAMPLE_TIME_S, SAMPLE_TIME_S + written.length);
    written.push(await describe(folder, path));
  }
  return written;
}

/** Bytes that no compressor shrinks, as in a video: what is kept elsewhere is as large as the file. */
async function writeLargeFile(path: string, signal: AbortSignal): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const file = await open(path, 'wx');
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    for (let bytes = 0; bytes < BIG_FILE_BYTES; bytes += CHUNK_BYTES) {
      signal.throwIfAborted();
      await file.write(randomFillSync(chunk));
    }
  } finally {
    await file.close();
  }
}

/** A file as it is on disk now. */
export async function describe(folder: string, path: string): Promise<SampleFile> {
  const { size, mode, mtimeNs } = await stat(join(folder, path), { bigint: true });
  const hash = createHash('sha256');
  await pipeline(createReadStream(join(folder, path), { highWaterMark: MIB_BYTES }), hash);
  return {
    path,
    sizeBytes: Number(size),
    sha256: hash.digest('hex'),
    mode: Number(mode) & 0o7777,
    mtimeUs: mtimeNs / 1000n,
  };
}

/** What of a file is not as it was: any of "size", "content", "mode", "time". */
export function differences(before: SampleFile, after: SampleFile): string[] {
  return [
    ...(before.sizeBytes === after.sizeBytes ? [] : ['size']),
    ...(before.sha256 === after.sha256 ? [] : ['content']),
    ...(before.mode === after.mode ? [] : [`mode ${before.mode.toString(8)} → ${after.mode.toString(8)}`]),
    ...(before.mtimeUs === after.mtimeUs ? [] : [`time ${before.mtimeUs} → ${after.mtimeUs}`]),
  ];
}
