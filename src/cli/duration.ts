// Durations as people type them: "90" (seconds), "30s", "1h", "1h30m", "250ms".
import { DezentError } from '../errors.ts';

const UNIT_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};
const PARTS: RegExp = /^(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+$/;
const PART: RegExp = /(\d+(?:\.\d+)?)(ms|[smhdw])/g;
/** A year; more is a slip. */
const MAX_DURATION_MS = 366 * 86_400_000;

/** Milliseconds, a whole number ≥ 1. A bare number is seconds. Throws USAGE for anything else, naming the forms. */
export function parseDuration(text: string): number {
  const given = text.trim().toLowerCase();
  const ms = Math.round(/^\d+(?:\.\d+)?$/.test(given) ? Number(given) * 1000 : sumOfParts(given));
  if (ms >= 1 && ms <= MAX_DURATION_MS) return ms;
  throw new DezentError('USAGE', `not a duration: ${JSON.stringify(text)}`, {
    hint: 'Use a number of seconds or forms like 30s, 5m, 1h30m, 2d (at most a year).',
  });
}

function sumOfParts(text: string): number {
  if (!PARTS.test(text)) return Number.NaN;
  return [...text.matchAll(PART)].reduce(
    (sum, [, amount, unit]) => sum + Number(amount) * (UNIT_MS[unit ?? ''] ?? Number.NaN),
    0,
  );
}
