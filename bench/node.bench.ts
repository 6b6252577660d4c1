// What a user feels: how long a node takes to start, what it costs while idle, and how fast `add` and `open` are between three real nodes
// on loopback, against a plain copy with fsync of the same file in the same run.
// Run: node bench/node.bench.ts [DIR on the disk to measure]. One JSON line per case; MB/s are of 10^6 bytes of the user's files. Linux only.
import { execFileSync } from 'node:child_process';
import { randomBytes, randomFillSync } from 'node:crypto';
import { createReadStream, createWriteStream, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { openDemoGround, type DemoNode } from '../src/cli/demo-nodes.ts';
import type { OpenedFile, StatusValue } from '../src/node/control/control-api.ts';

const MIB = 2 ** 20;
const BIG_BYTES: number = 256 * MIB;
const SMALL_COUNT = 2000;
const SMALL_BYTES = 8192;
const IDLE_MS = 10_000;
/** USER_HZ of every Linux (proc_pid_stat(5)). */
const TICKS_PER_S = 100;

const top: string = await mkdtemp(join(process.argv[2] ?? tmpdir(), 'dezent-bench-'));
const ground: ReturnType<typeof openDemoGround> = openDemoGround(top, new AbortController().signal);

try {
  const startedAt = performance.now();
  const ada = await ground.makeNode('ada');
  print({ case: 'init and start', ms: since(startedAt) });
  const { invite } = (await ada.ask(['invite', '--uses', '2'])) as { invite: string };
  for (const name of ['ben', 'cleo']) await ground.makeNode(name, invite);
  while (((await ada.ask(['status'])) as StatusValue).peers.connected < 2) await pause(100);
  await idle(ada);
  await bigFile(ada);
  await smallFiles(ada);
} finally {
  await ground.end();
  await rm(top, { recursive: true });
}

async function idle({ pid }: DemoNode): Promise<void> {
  const before = cpuTicks(pid);
  await pause(IDLE_MS);
  const cpuPercent = ((cpuTicks(pid) - before) / TICKS_PER_S / (IDLE_MS / 1000)) * 100;
  print({ case: 'idle with two peers', rssMiB: rssMiB(pid), cpuPercent: Number(cpuPercent.toFixed(2)) });
}

async function bigFile(node: DemoNode): Promise<void> {
  const path = join(node.folder, 'big.bin');
  await writeRandom(path);
  const copyMBps = await rate(BIG_BYTES, () => copyDurably(path, join(top, 'copy.bin')));
  const addMBps = await rate(BIG_BYTES, () => node.ask(['add', path]));
  await node.ask(['free', path]);
  const opened: { from?: string[] } = {};
  const openMBps = await rate(BIG_BYTES, async () => {
    opened.from = ((await node.ask(['open', path])) as OpenedFile).from;
  });
  print({
    case: '256 MiB of random bytes, 2 peers',
    addMBps,
    openMBps,
    from: opened.from?.length,
    copyMBps,
    peakRssMiB: peakMiB(node.pid),
  });
}

async function smallFiles(node: DemoNode): Promise<void> {
  const folder = join(node.folder, 'small');
  mkdirSync(folder);
  for (let index = 0; index < SMALL_COUNT; index += 1)
    writeFileSync(join(folder, `${index}.bin`), randomBytes(SMALL_BYTES));
  const addStart = performance.now();
  await node.ask(['add', folder]);
  const addFilesPerS = Math.round(SMALL_COUNT / ((performance.now() - addStart) / 1000));
  await node.ask(['free', folder]);
  const restoreStart = performance.now();
  await node.ask(['restore', folder]);
  const restoreFilesPerS = Math.round(SMALL_COUNT / ((performance.now() - restoreStart) / 1000));
  print({ case: '2000 files of 8 KiB, 2 peers', addFilesPerS, restoreFilesPerS });
}

async function rate(bytes: number, work: () => Promise<unknown>): Promise<number> {
  execFileSync('sync');
  const start = performance.now();
  await work();
  return Math.round(bytes / 1000 / (performance.now() - start));
}

async function writeRandom(path: string): Promise<void> {
  const file = await open(path, 'wx');
  const chunk = Buffer.alloc(4 * MIB);
  for (let bytes = 0; bytes < BIG_BYTES; bytes += chunk.length) await file.write(randomFillSync(chunk));
  await file.close();
}

async function copyDurably(from: string, to: string): Promise<void> {
  await pipeline(createReadStream(from, { highWaterMark: MIB }), createWriteStream(to, { flush: true }));
}

function statusField(pid: number, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

function rssMiB(pid: number): number {
  return Math.round(statusField(pid, 'VmRSS') / 1024);
}

function peakMiB(pid: number): number {
  return Math.round(statusField(pid, 'VmHWM') / 1024);
}

/** utime + stime, fields 14 and 15 of /proc/PID/stat, counted after the name in brackets. */
function cpuTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
  return Number(fields[11]) + Number(fields[12]);
}

function since(start: number): number {
  return Math.round(performance.now() - start);
}

function print(value: object): void {
  console.log(JSON.stringify(value));
}
