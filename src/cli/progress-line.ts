// The one line that shows long work on a terminal: bytes, rate, time left. On stderr, so that stdout stays clean.
import type { Progress } from '../node/control/control-api.ts';
import type { Output } from './output.ts';
import { safeText, sizeText, spanText } from './text.ts';

export interface ProgressView {
  show(progress: Progress): void;
  /** Takes the line away. */
  end(): void;
}

const BAR_CELLS = 20;
/** Redrawing more often than the eye follows only costs. */
const REDRAW_MS = 100;
const CLEAR_LINE = '\r\u{1b}[K';

/** Events with --json --progress, a line on a terminal, plain lines elsewhere with --progress, else nothing. */
export function openProgressView(output: Output): ProgressView {
  const { json, quiet, progress: wanted } = output.settings;
  const nothing = { show: () => undefined, end: () => undefined };
  if (json)
    return wanted ? { ...nothing, show: (progress) => output.event({ event: 'progress', ...progress }) } : nothing;
  if (process.stderr.isTTY && !quiet) return terminalLine();
  return wanted ? { ...nothing, show: (progress) => process.stderr.write(`${progressText(progress)}\n`) } : nothing;
}

function terminalLine(): ProgressView {
  let drawnAt = Number.NEGATIVE_INFINITY;
  return {
    show(progress) {
      if (performance.now() - drawnAt < REDRAW_MS) return;
      drawnAt = performance.now();
      process.stderr.write(`${CLEAR_LINE}${progressText(progress, process.stderr.columns)}`);
    },
    end() {
      if (drawnAt > 0) process.stderr.write(CLEAR_LINE);
    },
  };
}

/** "store [#####...............]  25 %  1.0 GiB of 4.0 GiB  80 MiB/s  40s left  photos/a.jpg", cut to the width. */
export function progressText(progress: Progress, columns = 200): string {
  const { phase, path, doneBytes, totalBytes, doneFiles, totalFiles, rateBytesPerS, leftMs } = progress;
  const share = totalBytes > 0 ? Math.min(1, doneBytes / totalBytes) : 0;
  const filled = Math.round(share * BAR_CELLS);
  const parts = [
    phase,
    `[${'#'.repeat(filled)}${'.'.repeat(BAR_CELLS - filled)}]`,
    `${String(Math.floor(share * 100)).padStart(3)} %`,
    `${sizeText(doneBytes)} of ${sizeText(totalBytes)}`,
    ...(totalFiles === undefined ? [] : [`${doneFiles ?? 0} of ${totalFiles} files`]),
    `${sizeText(rateBytesPerS)}/s`,
    ...(leftMs === undefined ? [] : [`${spanText(Math.ceil(leftMs / 1000) * 1000)} left`]),
    ...(path === undefined ? [] : [safeText(path)]),
  ];
  return parts.join('  ').slice(0, Math.max(20, columns - 1));
}
