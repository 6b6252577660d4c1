// Whole numbers typed as option values.
import { DezentError } from '../errors.ts';

export interface Range {
  name: string;
  least: number;
  most: number;
}

/** The whole number that `text` spells, or USAGE naming what is allowed. */
export function parseWhole(text: string, { name, least, most }: Range): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new DezentError(
    'USAGE',
    `${name} cannot be ${JSON.stringify(text)}; allowed: a whole number from ${least} to ${most}`,
  );
}

/** A parser for commander's options. */
export function whole(range: Range): (text: string) => number {
  return (text) => parseWhole(text, range);
}
