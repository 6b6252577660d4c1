// HOME/log/dezent.log: lines appended in small batches, capped in size by keeping one older file beside it.
// A disk that is full or gone must not stop the node: what cannot be written is dropped and told to `onFailure`.
import { appendFileSync, chmodSync, mkdirSync, renameSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { systemCode } from '../../errors.ts';
import { logPath } from './log-path.ts';

/** Two files of 10 MiB hold some 80,000 records: weeks of an ordinary node. */
export const MAX_LOG_FILE_BYTES: number = 10 * 1024 * 1024;
/** A batch of this size is written at once; a page-cache append of it takes some 30 µs. */
const BATCH_BYTES = 64 * 1024;
/** How old a line may get before it is in the file. */
const BATCH_MS = 100;

export interface LogFile {
  write(line: string): void;
  /** Writes what waits now; for the moments before the process ends. */
  flush(): void;
}

/** Opens (or creates, 0600) the log of this home. `onFailure` hears of write errors; it must not log. */
export function openLogFile(
  home: string,
  onFailure: (error: Error) => void,
  maxBytes: number = MAX_LOG_FILE_BYTES,
): LogFile {
  const path = logPath(home);
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  let fileBytes = sizeOf(path);
  let waiting: string[] = [];
  let waitingBytes = 0;
  let timer: NodeJS.Timeout | undefined;

  const flush = (): void => {
    clearTimeout(timer);
    timer = undefined;
    const batch = waiting.join('');
    [waiting, waitingBytes] = [[], 0];
    if (batch === '') return;
    try {
      if (fileBytes > 0 && fileBytes + batch.length > maxBytes) {
        renameSync(path, `${path}.1`);
        fileBytes = 0;
      }
      appendFileSync(path, batch, { mode: 0o600 });
      fileBytes += Buffer.byteLength(batch);
    } catch (error) {
      onFailure(error as Error);
    }
  };

  return {
    flush,
    write(line) {
      waiting.push(line);
      waitingBytes += line.length;
      if (waitingBytes >= Math.min(BATCH_BYTES, maxBytes)) flush();
      else timer ??= setTimeout(flush, BATCH_MS).unref();
    },
  };
}

function sizeOf(path: string): number {
  try {
    chmodSync(path, 0o600);
    return statSync(path).size;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return 0;
    throw error;
  }
}
