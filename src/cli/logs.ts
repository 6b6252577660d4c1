// logs: the node's log, readable, on request only transfers of one direction. Reads the file, so it works after a crash too.
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { DezentError, systemCode } from '../errors.ts';
import { logPaths } from '../node/home/log-path.ts';
import { cliOf, declare } from './command.ts';
import { whole } from './numbers.ts';
import { safeText, sizeText } from './text.ts';

interface LogsOptions {
  uploads?: boolean;
  downloads?: boolean;
  last: number;
}

export type LogRecord = Record<string, unknown>;

const DEFAULT_LAST = 200;
const LAST = { name: '--last', least: 1, most: 1_000_000 };

export function defineLogs(program: Command): void {
  declare(program, {
    usage: 'logs',
    summary: "show the node's log",
    examples: ['dezent logs', 'dezent logs --uploads --last 20'],
  })
    .option('--uploads', 'only what was sent')
    .option('--downloads', 'only what was fetched')
    .option('--last <n>', 'how many records at most', whole(LAST), DEFAULT_LAST)
    .action(async ({ uploads = false, downloads = false, last }: LogsOptions, self: Command) => {
      const cli = cliOf(self);
      const wanted = new Set([...(uploads ? ['upload'] : []), ...(downloads ? ['download'] : [])]);
      const records = await readRecords(cli.home);
      const chosen = records
        .filter(({ direction }) => wanted.size === 0 || (typeof direction === 'string' && wanted.has(direction)))
        .slice(-last);
      cli.answer(chosen, () => chosen.map(recordText).join('\n'));
    });
}

async function readRecords(home: string): Promise<LogRecord[]> {
  const texts = await Promise.all(logPaths(home).map(readIfPresent));
  if (texts.every((text) => text === undefined))
    throw new DezentError('NOT_RUNNING', `no node has run for ${home}: it has no log`);
  return texts.flatMap((text) => (text ?? '').split('\n')).flatMap(recordOf);
}

async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** The last line before a power cut may be half a record: it is left out. */
function recordOf(line: string): LogRecord[] {
  try {
    return line === '' ? [] : [JSON.parse(line) as LogRecord];
  } catch (error) {
    if (error instanceof SyntaxError) return [];
    throw error;
  }
}

function recordText({ time, level, msg, ...fields }: LogRecord): string {
  const details = Object.entries(fields).map(([name, value]) => `${name}=${detailText(name, value)}`);
  return safeText([String(time), String(level).padEnd(5), String(msg), ...details].join(' '));
}

function detailText(name: string, value: unknown): string {
  if (name === 'bytes' && typeof value === 'number') return sizeText(value);
  return typeof value === 'string' ? value : JSON.stringify(value);
}
