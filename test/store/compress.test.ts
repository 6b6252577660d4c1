import assert from 'node:assert/strict';
import { test } from 'node:test';
import { zstdCompressSync } from 'node:zlib';
import * as fc from 'fast-check';
import {
  compress,
  compressNow,
  expand,
  FRAME_HEADER_BYTES,
  framePartsNow,
  MAX_PLAIN_BYTES,
  padme,
} from '../../src/store/compress.ts';
import { flipEach, readsOr, testBytes, withCode } from '../suites/content.ts';

const RAW = 0;
const ZSTD = 1;

/** A frame with any fields, padded as it should be. */
function frameWith(codec: number, plainLength: number, payload: Uint8Array, payloadLength = payload.length): Buffer {
  const frame = Buffer.alloc(padme(FRAME_HEADER_BYTES + payload.length));
  frame[0] = codec;
  frame.writeUInt32BE(plainLength, 1);
  frame.writeUInt32BE(payloadLength, 5);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}

const isBad = withCode('BAD_BLOCK');

test('expand is the inverse of compress', async () => {
  const repeated = fc
    .tuple(fc.uint8Array({ minLength: 1, maxLength: 50 }), fc.integer({ min: 1, max: 200 }))
    .map(([unit, times]) => Buffer.concat(Array.from({ length: times }, () => unit)));
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.uint8Array({ maxLength: 2000 }), repeated), async (plain) => {
      const frame = await compress(plain);
      assert.equal(frame.length, padme(frame.length));
      assert.deepEqual(Buffer.from(expand(frame)), Buffer.from(plain));
    }),
  );
});

test('the thread pool and this thread give the same frame, whole and in parts', async () => {
  const contents = fc.oneof(
    fc.uint8Array({ maxLength: 2000 }),
    fc
      .tuple(fc.nat(600_000), fc.nat(600_000), fc.nat(99))
      .map(([random, text, seed]) =>
        Buffer.concat([testBytes(random, seed), Buffer.alloc(text, `it is said that ${seed} `)]),
      ),
  );
  await fc.assert(
    fc.asyncProperty(contents, async (plain) => {
      const frame = await compress(plain);
      assert.ok(compressNow(plain).equals(frame));
      assert.ok(Buffer.concat(framePartsNow(plain)).equals(frame));
    }),
    { numRuns: 60 },
  );
});

test('0, 1, 63, 64 bytes and the largest plain size come back', async () => {
  for (const length of [0, 1, 63, 64, 3 * 1024 * 1024]) {
    for (const plain of [testBytes(length, 1), Buffer.alloc(length)]) {
      assert.ok(Buffer.from(expand(await compress(plain))).equals(plain));
    }
  }
  const largest = await compress(Buffer.alloc(MAX_PLAIN_BYTES));
  assert.equal(expand(largest).length, MAX_PLAIN_BYTES);
});

test('what does not shrink to 97 % stays raw, what does is zstd', async () => {
  assert.equal((await compress(testBytes(100_000, 1)))[0], RAW);
  const half = Buffer.concat([testBytes(50_000, 1), Buffer.alloc(50_000)]);
  assert.equal((await compress(half))[0], ZSTD);
  const little = Buffer.concat([testBytes(98_000, 1), Buffer.alloc(2000)]);
  assert.equal((await compress(little))[0], RAW);
});

test('equal bytes give equal frames', async () => {
  const plain = Buffer.from('to be or not to be '.repeat(1000));
  assert.deepEqual(await compress(plain), await compress(Buffer.from(plain)));
});

test('a Padmé size is never smaller, at most 12 % larger, and its own Padmé size', () => {
  fc.assert(
    fc.property(fc.nat({ max: 2 ** 32 }), (length) => {
      const padded = padme(length);
      assert.ok(padded >= length && padded <= length * 1.12 + 1, `${length} → ${padded}`);
      assert.equal(padme(padded), padded);
    }),
  );
  assert.deepEqual([0, 1, 2, 9, 100, 1000].map(padme), [0, 1, 2, 10, 104, 1024]);
});

test('a bomb stops at the size it names, and a size beyond a block is refused before anything is expanded', () => {
  const bomb = zstdCompressSync(Buffer.alloc(64 * 1024 * 1024));
  assert.ok(bomb.length < 10_000);
  for (const says of [0, 1, 1000, MAX_PLAIN_BYTES]) assert.throws(() => expand(frameWith(ZSTD, says, bomb)), isBad);
  assert.throws(() => expand(frameWith(ZSTD, MAX_PLAIN_BYTES + 1, bomb)), isBad);
  assert.throws(() => expand(frameWith(ZSTD, 2 ** 32 - 1, bomb)), isBad);
});

test('wrong lengths, unknown codecs and truncated frames are refused', async () => {
  const payload = testBytes(500, 2);
  const packed = zstdCompressSync(Buffer.alloc(5000));
  const cases: Buffer[] = [
    frameWith(RAW, 501, payload),
    frameWith(RAW, 499, payload),
    frameWith(RAW, 500, payload, 499 - 64),
    frameWith(RAW, 500, payload, 2 ** 31),
    frameWith(2, 500, payload),
    frameWith(255, 500, payload),
    frameWith(ZSTD, 4999, packed),
    frameWith(ZSTD, 5001, packed),
    frameWith(ZSTD, 500, payload),
    frameWith(ZSTD, 5000, packed.subarray(0, packed.length - 3)),
    Buffer.concat([frameWith(RAW, 500, payload), Buffer.alloc(1)]),
  ];
  for (const [index, frame] of cases.entries()) {
    assert.throws(() => expand(frame), isBad, `case ${index}`);
  }
  const frame = await compress(payload);
  for (let length = 0; length < frame.length; length += 1)
    assert.throws(() => expand(frame.subarray(0, length)), isBad);
});

test('a frame with a byte changed is refused or gives bytes of the length it says, never another error', async () => {
  for (const plain of [testBytes(300, 3), Buffer.from('so what '.repeat(200))]) {
    const frame = await compress(plain);
    flipEach(frame, (altered) =>
      readsOr(['BAD_BLOCK'], () => assert.equal(expand(altered).length, altered.readUInt32BE(1))),
    );
  }
});

test('any bytes at all are expanded or refused', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void readsOr(['BAD_BLOCK'], () => expand(bytes))),
  );
  const framed = fc.tuple(fc.constantFrom(RAW, ZSTD, 2), fc.nat({ max: 500 }), fc.uint8Array({ maxLength: 300 }));
  fc.assert(
    fc.property(framed, ([codec, length, payload]) => {
      void readsOr(['BAD_BLOCK'], () => assert.equal(expand(frameWith(codec, length, payload)).length, length));
    }),
  );
});
