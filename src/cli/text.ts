// How values read on a terminal: sizes, times, tables, and names that cannot play tricks with the terminal.
import prettyBytes from 'pretty-bytes';
import prettyMs from 'pretty-ms';

/** "1.5 GiB"; sizes are powers of two, as file managers show them. */
export function sizeText(bytes: number): string {
  return prettyBytes(bytes, { binary: true });
}

/** "1 h 2 min" in two units at most. */
export function spanText(ms: number): string {
  return prettyMs(ms, { unitCount: 2, secondsDecimalDigits: ms < 10_000 ? 1 : 0 });
}

/** "3 files", "1 file". */
export function countText(count: number, noun: string): string {
  const plural = noun.endsWith('y') ? `${noun.slice(0, -1)}ies` : `${noun}s`;
  return `${count} ${count === 1 ? noun : plural}`;
}

/** "2 minutes ago" as a span; "never" for null. */
export function agoText(at: string | null, now: number = Date.now()): string {
  return at === null ? 'never' : `${spanText(Math.max(0, now - Date.parse(at)))} ago`;
}

const UNSAFE: RegExp = /[\p{Cc}\p{Cf}\u2028\u2029]/gu;

/** A name as one harmless line: control, formatting and bidirectional characters become \u{…}. */
export function safeText(text: string): string {
  return text.replace(UNSAFE, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);
}

/** Columns as wide as their widest cell; the last one is not padded. Cells whose column is named in `right` are right-aligned. */
export function tableText(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths: number[] = [];
  for (const row of rows)
    for (const [index, cell] of row.entries()) widths[index] = Math.max(widths[index] ?? 0, cell.length);
  const pad = (cell: string, index: number, row: readonly string[]): string => {
    if (right.includes(index)) return cell.padStart(widths[index] ?? 0);
    return index === row.length - 1 ? cell : cell.padEnd(widths[index] ?? 0);
  };
  return rows.map((row) => row.map((cell, index) => pad(cell, index, row)).join('  ')).join('\n');
}
