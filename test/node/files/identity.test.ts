import assert from 'node:assert/strict';
import { lstatSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { assert as check, integer, property } from 'fast-check';
import { mtimeUsOf, utimeOf } from '../../../src/node/files/identity.ts';

/** The year 2100 in microseconds. */
const LATEST_US = 4_102_444_800_000_000;

test('a time given to a file is read back to the microsecond', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'dezent-identity-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const path = join(dir, 'file');
  writeFileSync(path, '');
  const readBack = (timeUs: number): number => {
    utimesSync(path, 0, utimeOf(timeUs));
    return mtimeUsOf(lstatSync(path, { bigint: true }));
  };
  check(property(integer({ min: 0, max: LATEST_US }), (timeUs) => assert.equal(readBack(timeUs), timeUs)));
  assert.equal(readBack(1_767_323_045_122_999), 1_767_323_045_122_999);
  assert.equal(readBack(-5_000_000), -5_000_000);
});
