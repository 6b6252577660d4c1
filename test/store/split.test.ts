import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import {
  join,
  split,
  splitSizesFor,
  SPLIT_LARGE,
  SPLIT_LARGE_FROM_BYTES,
  SPLIT_SMALL,
  type SplitSizes,
} from '../../src/store/split.ts';
import { MAX_BLOCK_BYTES } from '../../src/store/block.ts';
import { inPieces, OTHER_KEYS, testBytes, TEST_KEYS, withCode } from '../suites/content.ts';

const { gear } = TEST_KEYS;
const MIB = 1024 * 1024;
/** Sizes small enough to try many cuts in little time. */
const TINY: SplitSizes = { minBytes: 64, averageBytes: 256, maxBytes: 1024 };

async function chunksOf(source: AsyncIterable<Uint8Array>, sizes: SplitSizes, table = gear): Promise<Uint8Array[]> {
  return Array.fromAsync(split(table, sizes)(source));
}

/** The cut rule as the head of split.ts states it, one byte at a time. */
function specifiedLengths(bytes: Uint8Array, { minBytes, averageBytes, maxBytes }: SplitSizes): number[] {
  const bits = Math.log2(averageBytes);
  const lengths: number[] = [];
  let start = 0;
  let hash = 0;
  for (let at = 0; at < bytes.length; at += 1) {
    const index = at - start;
    if (index >= minBytes - 32) hash = ((hash << 1) + (gear[bytes[at] as number] as number)) >>> 0;
    const topBits = index < averageBytes ? bits + 2 : bits - 2;
    if ((index >= minBytes && hash < 2 ** (32 - topBits)) || index + 1 === maxBytes) {
      lengths.push(index + 1);
      start = at + 1;
      hash = 0;
    }
  }
  return start < bytes.length ? [...lengths, bytes.length - start] : lengths;
}

async function* cutAt(bytes: Uint8Array, lengths: readonly number[]): AsyncGenerator<Uint8Array> {
  let at = 0;
  for (const length of lengths) yield bytes.subarray(at, (at += length));
  yield bytes.subarray(at);
}

test('join is the inverse of split, whatever the bytes and however they arrive', async () => {
  const source = fc.record({
    seed: fc.nat(),
    length: fc.nat({ max: 20_000 }),
    pieces: fc.array(fc.nat({ max: 3000 }), { maxLength: 20 }),
  });
  await fc.assert(
    fc.asyncProperty(source, async ({ seed, length, pieces }) => {
      const bytes = testBytes(length, seed);
      const chunks = await chunksOf(cutAt(bytes, pieces), TINY);
      assert.deepEqual(Buffer.from(join(chunks)), bytes);
      assert.deepEqual(
        chunks.map((chunk) => chunk.length),
        specifiedLengths(bytes, TINY),
      );
    }),
  );
});

test('bytes with long runs are cut by the same rule', async () => {
  const runs = fc.array(fc.tuple(fc.integer({ min: 0, max: 255 }), fc.nat({ max: 2500 })), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(runs, fc.integer({ min: 1, max: 700 }), async (all, pieceBytes) => {
      const bytes = Buffer.concat(all.map(([value, length]) => Buffer.alloc(length, value)));
      const lengths = (await chunksOf(inPieces(bytes, pieceBytes), TINY)).map((chunk) => chunk.length);
      assert.deepEqual(lengths, specifiedLengths(bytes, TINY));
    }),
  );
});

for (const [name, sizes, totalBytes] of [
  ['small', SPLIT_SMALL, 64 * MIB],
  ['large', SPLIT_LARGE, 96 * MIB],
] as const) {
  test(`${name} chunks keep min and max, and their mean is near the average`, async () => {
    const lengths = (await chunksOf(inPieces(testBytes(totalBytes, 7), MIB), sizes)).map(({ length }) => length);
    assert.equal(
      lengths.reduce((sum, length) => sum + length, 0),
      totalBytes,
    );
    for (const length of lengths.slice(0, -1)) assert.ok(length > sizes.minBytes && length <= sizes.maxBytes);
    const mean = totalBytes / lengths.length;
    // The rule's own mean is 1.17 averages: 18 % end before the average, the rest soon after it.
    assert.ok(Math.abs(mean / sizes.averageBytes - 1.17) < 0.15, `mean ${mean}`);
  });
}

test('bytes that never match are cut at max, which fits a block', async () => {
  const zeros = Buffer.alloc(2 * SPLIT_LARGE.maxBytes + 5);
  const lengths = (await chunksOf(inPieces(zeros, 100_000), SPLIT_LARGE)).map(({ length }) => length);
  assert.deepEqual(lengths, [SPLIT_LARGE.maxBytes, SPLIT_LARGE.maxBytes, 5]);
  assert.ok(SPLIT_LARGE.maxBytes * 1.03 < MAX_BLOCK_BYTES);
});

test('cuts do not depend on the pieces: 61 bytes to all at once', async () => {
  const bytes = testBytes(3 * MIB, 8);
  const whole = (await chunksOf(inPieces(bytes, bytes.length), SPLIT_SMALL)).map(({ length }) => length);
  assert.ok(whole.length > 5);
  for (const pieceBytes of [61, 4095, 65_536, 262_144, 262_145]) {
    const chunks = await chunksOf(inPieces(bytes, pieceBytes), SPLIT_SMALL);
    assert.deepEqual(
      chunks.map(({ length }) => length),
      whole,
    );
  }
});

test('a byte inserted at the front of 8 MiB changes only the first chunks', async () => {
  const before = testBytes(8 * MIB, 9);
  const after = Buffer.concat([Buffer.of(42), before]);
  const known = new Set(
    (await chunksOf(inPieces(before), SPLIT_SMALL)).map((chunk) => Buffer.from(chunk).toString('latin1')),
  );
  const chunks = await chunksOf(inPieces(after), SPLIT_SMALL);
  const changed = chunks.filter((chunk) => !known.has(Buffer.from(chunk).toString('latin1')));
  assert.ok(known.size > 20);
  assert.ok(changed.length <= 3, `${changed.length} of ${chunks.length} chunks changed`);
});

test('another owner cuts elsewhere', async () => {
  const bytes = testBytes(4 * MIB, 10);
  const own = (await chunksOf(inPieces(bytes), SPLIT_SMALL)).map(({ length }) => length);
  const other = (await chunksOf(inPieces(bytes), SPLIT_SMALL, OTHER_KEYS.gear)).map(({ length }) => length);
  assert.notDeepEqual(own, other);
});

test('nothing gives no chunk', async () => {
  assert.deepEqual(await chunksOf(inPieces(Buffer.alloc(0)), SPLIT_SMALL), []);
  assert.deepEqual(await chunksOf(cutAt(Buffer.alloc(0), [0, 0]), SPLIT_SMALL), []);
  assert.equal(join([]).length, 0);
});

test('a file keeps the sizes of its first version', () => {
  assert.equal(splitSizesFor(SPLIT_LARGE_FROM_BYTES - 1), SPLIT_SMALL);
  assert.equal(splitSizesFor(SPLIT_LARGE_FROM_BYTES), SPLIT_LARGE);
  assert.equal(splitSizesFor(1, SPLIT_LARGE.averageBytes), SPLIT_LARGE);
  assert.equal(splitSizesFor(1e12, SPLIT_SMALL.averageBytes), SPLIT_SMALL);
  assert.throws(() => splitSizesFor(1, 12_345), withCode('NEWER_VERSION'));
});
