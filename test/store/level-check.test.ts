import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Level } from 'level';
import { checkLevelTables } from '../../src/store/level-check.ts';
import { liveTables } from '../../src/store/level-manifest.ts';
import { isDezentError } from '../../src/errors.ts';

const isDamage = (error: unknown): boolean => isDezentError(error, 'BAD_INDEX');

/** A closed database with a few tables, some of them made and dropped by compactions. */
async function filledDatabase(t: TestContext): Promise<{ dir: string; tables: string[] }> {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-level-'));
  t.after(() => rm(dir, { recursive: true }));
  const settings = { valueEncoding: 'view', compression: false, writeBufferSize: 64 * 1024 };
  for (let opening = 0; opening < 2; opening++) {
    const db = new Level<string, Uint8Array>(dir, settings);
    for (let batch = 0; batch < 30; batch++) {
      await db.batch(
        Array.from({ length: 100 }, () => ({
          type: 'put' as const,
          key: String(randomInt(10_000)),
          value: randomBytes(100),
        })),
      );
    }
    await db.close();
  }
  const live = await liveTables(dir);
  assert.ok(live && live.size > 0);
  return { dir, tables: [...live].map((number) => join(dir, `${String(number).padStart(6, '0')}.ldb`)) };
}

test('a bit flipped anywhere in a table is noticed, but for the padding of its footer', async (t) => {
  const { dir, tables } = await filledDatabase(t);
  await checkLevelTables(dir);
  for (let round = 0; round < 100; round++) {
    const path = tables[round % tables.length]!;
    const intact = await readFile(path);
    const damaged = Buffer.from(intact);
    const at = randomInt(intact.length - 48);
    damaged[at] = damaged[at]! ^ (1 << randomInt(8));
    await writeFile(path, damaged);
    await assert.rejects(checkLevelTables(dir), isDamage, `${path} ${at}`);
    await writeFile(path, intact);
  }
  await writeFile(tables[0]!, (await readFile(tables[0]!)).subarray(0, 1000));
  await assert.rejects(checkLevelTables(dir), isDamage);
});

test('tables that a crash has left half-written, and that nobody will read, are no damage', async (t) => {
  const { dir, tables } = await filledDatabase(t);
  const names = await readdir(dir);
  assert.ok(tables.every((path) => names.includes(basename(path))));
  await writeFile(join(dir, '999999.ldb'), 'half a table');
  await checkLevelTables(dir);
});

test('a directory that does not exist has no damage', async () => {
  await checkLevelTables(join(tmpdir(), 'dezent-no-such-database'));
});
