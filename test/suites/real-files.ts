// Real files for tests of whole nodes: files of the installed packages as they are, and beside them every odd name, size, mode and time that
// users have. A snapshot says what is there, to compare later; a search tells whether any of it can be read somewhere else.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream, readdirSync } from 'node:fs';
import {
  chmod,
  copyFile,
  link,
  lstat,
  mkdir,
  open,
  readFile,
  readlink,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';

export interface Snapshot {
  kind: 'file' | 'folder' | 'link' | 'other';
  sizeBytes: number;
  /** SHA-256 of the content, or the target of a link. */
  content: string;
  mode: number;
  /** Microseconds since 1970, rounded down. Empty for folders: their time changes with what is put in them. */
  mtimeUs: string;
}

const PACKAGES: string = fileURLToPath(new URL('../../node_modules', import.meta.url));
const MIB_BYTES = 2 ** 20;
/** Larger ones say nothing new and take time. */
const MAX_SAMPLE_BYTES = 300_000;
/** 2019-05-06, with microseconds that no rounding leaves alone; each file has another one. */
const FIRST_MTIME_S = 1_557_135_296.123_457;
const MTIME_STEP_S = 86_461.070_707;

const prose = (bytes: number, word: string): string => {
  const lines = Array.from(
    { length: Math.ceil(bytes / 40) + 1 },
    (_, line) => `${line} ${word} wrote this line, nobody else did`,
  );
  return lines.join('\n').slice(0, bytes);
};

const FORTRAN = `      PROGRAM HELLO\nC     A user's own source file, not a stub.\n      PRINT *, 'HELLO'\n      END\n`;

/** Names and contents that need care, without the large one. */
function oddFiles(): Map<string, string | Uint8Array> {
  const twice = randomBytes(50_000);
  const files = new Map<string, string | Uint8Array>([
    ['x.f', FORTRAN],
    ['solver.f', FORTRAN.repeat(200)],
    ['both', prose(9000, 'both')],
    ['odd/-rf', prose(5000, 'dash')],
    ['odd/--all', prose(5001, 'dashes')],
    ['odd/-', prose(5002, 'hyphen')],
    ['odd/ leading and trailing ', prose(5003, 'spaces')],
    ['odd/two  spaces, 100 %25 $HOME `x` "q" \'s\' & more; a=b\\c', prose(6000, 'signs')],
    ['odd/tab\tand\nnew line', prose(6001, 'control')],
    ['odd/[brackets] {a,b} * ?', prose(6002, 'glob')],
    ['unicode/an den Süden – 南へ.txt', prose(7000, 'south')],
    ['unicode/🦊🦊.bin', randomBytes(7000)],
    ['unicode/caf\u00E9.txt', prose(7001, 'composed')],
    ['unicode/cafe\u0301.txt', prose(7002, 'decomposed')],
    ['unicode/מזל טוב.txt', prose(7003, 'right to left')],
    ['case/README', prose(8000, 'upper')],
    ['case/readme', prose(8001, 'lower')],
    ['.hidden/.deeper/.file', prose(5500, 'hidden')],
    [`long/${'n'.repeat(253)}`, prose(5600, 'longest with a stub')],
    [`long/${'m'.repeat(255)}`, prose(5601, 'too long for a stub')],
    [`${'deep/'.repeat(60)}bottom.txt`, prose(5700, 'deep')],
    [`${`${'wide'.repeat(30)}/`.repeat(12)}end.txt`, prose(5800, 'long path')],
    ['twice/a.bin', twice],
    ['twice/b.bin', twice],
    ['run/tool.sh', `#!/bin/sh\n${prose(5900, 'tool')}`],
    ['run/read only.json', JSON.stringify(prose(6100, 'read only'))],
    ['run/private', prose(6200, 'private')],
    ['run/setgid', prose(6300, 'setgid')],
    ['big/zeros.img', Buffer.alloc(9 * MIB_BYTES)],
    ['big/noise.bin', randomBytes(6 * MIB_BYTES + 13)],
    ['big/text.log', prose(4 * MIB_BYTES, 'logger')],
  ]);
  for (const bytes of [0, 1, 4095, 4096, 4097, 32_768, 32_769, 65_536, 262_143, 262_145, 1_048_577])
    files.set(`sizes/${bytes} bytes.bin`, randomBytes(bytes));
  return files;
}

const MODES: Readonly<Record<string, number>> = {
  'run/tool.sh': 0o755,
  'run/read only.json': 0o444,
  'run/private': 0o600,
  'run/setgid': 0o2755,
  'odd/-rf': 0o640,
};

/** Files of the packages, spread over all of them. */
function packageFiles(count: number): string[] {
  const all = readdirSync(PACKAGES, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(PACKAGES.length + 1))
    .filter((path) => !path.startsWith('.') && !/\.(?:map|tmp|part|node)$|~$/.test(path))
    .sort();
  assert.ok(all.length >= count, `the packages have only ${all.length} files`);
  const step = all.length / count;
  return Array.from({ length: count }, (_, index) => all[Math.floor(index * step)] as string);
}

async function writeLarge(path: string, bytes: number): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const file = await open(path, 'wx');
  try {
    for (let at = 0; at < bytes; at += 4 * MIB_BYTES)
      await file.write(randomBytes(Math.min(4 * MIB_BYTES, bytes - at)));
  } finally {
    await file.close();
  }
}

/** Lays out odd files, `packaged` files of packages and one of `largeBytes` of noise below `folder`. */
export async function writeRealFiles(folder: string, packaged: number, largeBytes: number): Promise<void> {
  const put = async (path: string, content: string | Uint8Array): Promise<void> => {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), content);
  };
  for (const [path, content] of oddFiles()) await put(path, content);
  for (const path of packageFiles(packaged)) {
    const to = join(folder, 'packages', path);
    await mkdir(dirname(to), { recursive: true });
    const { size } = await lstat(join(PACKAGES, path));
    if (size <= MAX_SAMPLE_BYTES) await copyFile(join(PACKAGES, path), to);
    else await writeFile(to, (await readFile(join(PACKAGES, path))).subarray(0, MAX_SAMPLE_BYTES));
  }
  await writeLarge(join(folder, 'big/film.mov'), largeBytes);
  await writeFile(join(folder, 'run/one of two names'), prose(6400, 'linked'));
  await link(join(folder, 'run/one of two names'), join(folder, 'run/the other name'));
  await mkdir(join(folder, 'empty/inside'), { recursive: true });
  await mkdir(join(folder, 'empty/private'), { mode: 0o700 });
  await symlink('../x.f', join(folder, 'odd/link to a file'));
  await symlink('empty', join(folder, 'link to a folder'));
  await symlink('/nowhere/at all', join(folder, 'dangling'));
  for (const [path, mode] of Object.entries(MODES)) await chmod(join(folder, path), mode);
  let number = 0;
  for (const [path, { kind }] of await snapshotOf(folder)) {
    if (kind === 'file') await setMtime(join(folder, path), FIRST_MTIME_S + number * MTIME_STEP_S);
    number += 1;
  }
  // Node takes negative seconds for "now"; a Date is taken as it is.
  await utimes(join(folder, 'odd/-rf'), new Date(), new Date(-86_400_250));
  await setMtime(join(folder, 'odd/-'), 4_102_444_800.999_999);
}

const setMtime = (path: string, mtimeS: number): Promise<void> => utimes(path, mtimeS, mtimeS);

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: MIB_BYTES }), hash);
  return hash.digest('hex');
}

/** What lies at a path now. */
export async function snapshotAt(path: string): Promise<Snapshot> {
  const stats = await lstat(path, { bigint: true });
  const mode = Number(stats.mode) & 0o7777;
  const mtimeUs = String(stats.mtimeNs / 1000n - (stats.mtimeNs % 1000n < 0n ? 1n : 0n));
  if (stats.isFile())
    return { kind: 'file', sizeBytes: Number(stats.size), content: await sha256Of(path), mode, mtimeUs };
  if (stats.isSymbolicLink()) return { kind: 'link', sizeBytes: 0, content: await readlink(path), mode, mtimeUs: '' };
  return { kind: stats.isDirectory() ? 'folder' : 'other', sizeBytes: 0, content: '', mode, mtimeUs: '' };
}

/** Without following links to folders, as `recursive` of readdir would. */
function pathsBelow(folder: string): string[] {
  const below = (dir: string): string[] =>
    readdirSync(join(folder, dir), { withFileTypes: true }).flatMap((entry) => {
      const path = join(dir, entry.name);
      return entry.isDirectory() ? [path, ...below(path)] : [path];
    });
  return below('').sort();
}

/** Everything below a folder by its path, without what the node makes for itself. */
export async function snapshotOf(folder: string): Promise<Map<string, Snapshot>> {
  const found = new Map<string, Snapshot>();
  for (const path of pathsBelow(folder))
    if (!path.split('/').some((part) => part.startsWith('.dezent')))
      found.set(path, await snapshotAt(join(folder, path)));
  return found;
}

/** Names each path that is missing, too many or different, with both sides. */
export function assertSameFiles(actual: ReadonlyMap<string, Snapshot>, expected: ReadonlyMap<string, Snapshot>): void {
  const differing: Record<string, { actual: Snapshot | undefined; expected: Snapshot | undefined }> = {};
  for (const path of new Set([...actual.keys(), ...expected.keys()])) {
    const [is, was] = [actual.get(path), expected.get(path)];
    if (JSON.stringify(is) !== JSON.stringify(was)) differing[path] = { actual: is, expected: was };
  }
  assert.deepEqual(differing, {});
}

/** Samples of contents and names that must not be readable elsewhere: 32 bytes each of what does not repeat itself, and names that nobody else uses. */
export async function tracesOf(folder: string, perFile: number): Promise<Map<string, string>> {
  const traces = new Map<string, string>();
  for (const path of pathsBelow(folder)) {
    const name = basename(path);
    if (Buffer.byteLength(name) >= MIN_NAME_BYTES) traces.set(Buffer.from(name).toString('latin1'), `the name ${path}`);
    const stats = await lstat(join(folder, path));
    if (!stats.isFile() || stats.size < SAMPLE_BYTES) continue;
    for (const sample of await samplesOf(join(folder, path), stats.size, perFile))
      traces.set(sample, `content of ${path}`);
  }
  return traces;
}

const SAMPLE_BYTES = 32;
/** Shorter names ("internal", "index.ts") may be words of a log. */
const MIN_NAME_BYTES = 12;
/** Runs of one byte and the like are everywhere. */
const MIN_DISTINCT_BYTES = 12;

async function samplesOf(path: string, size: number, count: number): Promise<string[]> {
  const file = await open(path);
  const samples: string[] = [];
  try {
    for (let index = 0; index < count; index += 1) {
      const at = Math.floor(((size - SAMPLE_BYTES) * index) / Math.max(1, count - 1));
      const bytes = Buffer.alloc(SAMPLE_BYTES);
      await file.read(bytes, 0, SAMPLE_BYTES, at);
      if (new Set(bytes).size >= MIN_DISTINCT_BYTES) samples.push(bytes.toString('latin1'));
    }
  } finally {
    await file.close();
  }
  return samples;
}

/** Which of the traces can be read in any file below `folder`, at any offset, or in a name there. */
export async function findTraces(folder: string, traces: ReadonlyMap<string, string>): Promise<Set<string>> {
  const search = openSearch(traces);
  const found = new Set<string>();
  for (const path of pathsBelow(folder)) {
    search(Buffer.from(path), found);
    if (!(await lstat(join(folder, path))).isFile()) continue;
    const file = await open(join(folder, path));
    try {
      const buffer = Buffer.alloc(8 * MIB_BYTES);
      let kept = 0;
      for (;;) {
        const { bytesRead } = await file.read(buffer, kept, buffer.length - kept);
        if (bytesRead === 0) break;
        const filled = buffer.subarray(0, kept + bytesRead);
        search(filled, found);
        kept = Math.min(filled.length, MAX_TRACE_BYTES);
        filled.copyWithin(0, filled.length - kept);
      }
    } finally {
      await file.close();
    }
  }
  return found;
}

/** The longest name. */
const MAX_TRACE_BYTES = 255;

/** All traces at once: a table of their first four bytes, hashed, is small enough for the processor's cache and passes by nearly every offset. */
function openSearch(traces: ReadonlyMap<string, string>): (bytes: Buffer, found: Set<string>) => void {
  const byStart = new Map<number, { bytes: Buffer; what: string }[]>();
  for (const [text, what] of traces) {
    const bytes = Buffer.from(text, 'latin1');
    const start = bytes.readInt32BE(0);
    const others = byStart.get(start) ?? [];
    others.push({ bytes, what });
    byStart.set(start, others);
  }
  const isStart = new Uint8Array(2 ** HASH_BITS);
  for (const start of byStart.keys()) isStart[hashOf(start)] = 1;
  return (bytes, found) => {
    for (const at of offsetsOf(bytes, isStart)) {
      for (const { bytes: trace, what } of byStart.get(bytes.readInt32BE(at)) ?? [])
        if (trace.equals(bytes.subarray(at, at + trace.length))) found.add(what);
    }
  };
}

const HASH_BITS = 18;
/** Fibonacci hashing. */
const hashOf = (start: number): number => Math.imul(start, 0x9e_37_79_b1) >>> (32 - HASH_BITS);

/** Where something may begin. */
function offsetsOf(bytes: Uint8Array, isStart: Uint8Array): Uint32Array {
  const offsets = new Uint32Array(bytes.length);
  let count = 0;
  let window = 0;
  for (let at = 0; at < bytes.length; at += 1) {
    window = (window << 8) | (bytes[at] as number);
    if (isStart[hashOf(window)] === 1 && at >= 3) offsets[count++] = at - 3;
  }
  return offsets.subarray(0, count);
}
