// Turns "so many bytes more" into progress with a rate and the time left, said at most a few times a second.
import type { CallContext } from './control-api.ts';

const SAY_EVERY_MS = 200;

export interface ProgressMeter {
  bytes(count: number): void;
  file(path: string): void;
  /** What is said from now on. */
  phase(name: string): void;
}

export function openProgressMeter(
  context: Pick<CallContext, 'progress'>,
  first: string,
  total: { bytes: number; files: number },
): ProgressMeter {
  const startedAt = Date.now();
  let phase = first;
  let doneBytes = 0;
  let doneFiles = 0;
  let saidAt = 0;

  function say(path: string | undefined, now: number): void {
    saidAt = now;
    const rateBytesPerS = Math.round((doneBytes * 1000) / Math.max(1, now - startedAt));
    const left = Math.max(0, total.bytes - doneBytes);
    context.progress({
      phase,
      doneBytes,
      doneFiles,
      rateBytesPerS,
      totalBytes: total.bytes,
      totalFiles: total.files,
      ...(path !== undefined && { path }),
      ...(rateBytesPerS > 0 && { leftMs: Math.round((left * 1000) / rateBytesPerS) }),
    });
  }

  function maybeSay(path?: string): void {
    const now = Date.now();
    if (now - saidAt >= SAY_EVERY_MS || doneFiles === total.files) say(path, now);
  }

  return {
    bytes(count) {
      doneBytes += count;
      maybeSay();
    },
    file(path) {
      doneFiles += 1;
      maybeSay(path);
    },
    phase(name) {
      phase = name;
      say(undefined, Date.now());
    },
  };
}
