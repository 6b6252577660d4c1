// Frames: whatever is encoded is read again, however the bytes are cut; what the table forbids is refused before it is buffered.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { isDezentError } from '../../src/errors.ts';
import { createFrameReader, encodeFrame, FRAME_HEADER_BYTES } from '../../src/protocol/frame.ts';
import type { FrameTable } from '../../src/protocol/frame.ts';

const TABLE: FrameTable = { 16: { name: 'small', maxBytes: 100 }, 17: { name: 'large', maxBytes: 5000, bulk: true } };

const frames = fc.array(
  fc.record(
    {
      type: fc.constantFrom(16, 17),
      id: fc.integer({ min: 0, max: 0xffff_ffff }),
      last: fc.boolean(),
      body: fc.uint8Array({ minLength: 1, maxLength: 100 }),
    },
    { noNullPrototype: true },
  ),
  { maxLength: 20 },
);

function header(type: number, length: number): Uint8Array {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES);
  bytes[0] = type;
  bytes.writeUInt32BE(length, 5);
  return bytes;
}

const badFrame = (error: unknown): boolean => isDezentError(error, 'BAD_FRAME');

test('frames come out as they went in, however the bytes are cut', () => {
  fc.assert(
    fc.property(frames, fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1 }), (sent, cuts) => {
      const bytes = Buffer.concat(sent.flatMap(({ type, id, body, last }) => encodeFrame(type, id, [body], last)));
      const read: unknown[] = [];
      const reader = createFrameReader(TABLE, (id, { type, last, body }) => read.push({ type, id, last, body }));
      for (let at = 0, cut = 0; at < bytes.length; cut++) {
        const length = cuts[cut % cuts.length] ?? 1;
        reader.push(bytes.subarray(at, at + length));
        at += length;
      }
      assert.equal(reader.halfway(), false);
      assert.deepEqual(read, sent);
    }),
  );
});

test('a body in parts is one body', () => {
  const bodies: Uint8Array[] = [];
  const reader = createFrameReader(TABLE, (_id, { body }) => bodies.push(body));
  for (const part of encodeFrame(17, 1, [Uint8Array.of(1, 2), Uint8Array.of(3)], false)) reader.push(part);
  assert.deepEqual(bodies, [Uint8Array.of(1, 2, 3)]);
});

test('a length of 0, of 2³¹ and one over the limit are refused by the header alone', () => {
  for (const [type, length] of [
    [16, 0],
    [16, 101],
    [17, 2 ** 31],
    [17, 2 ** 32 - 1],
  ] as const) {
    const reader = createFrameReader(TABLE, () => assert.fail('no frame is expected'));
    assert.throws(() => reader.push(header(type, length)), badFrame);
  }
});

test('an unknown type is refused, also with the last flag', () => {
  for (const type of [0, 1, 18, 127, 0x80 | 18]) {
    const reader = createFrameReader(TABLE, () => assert.fail('no frame is expected'));
    assert.throws(() => reader.push(header(type, 1)), badFrame);
  }
});

test('halfway tells whether a frame has begun', () => {
  const reader = createFrameReader(TABLE, () => undefined);
  assert.equal(reader.halfway(), false);
  reader.push(header(16, 2).subarray(0, 3));
  assert.equal(reader.halfway(), true);
  reader.push(header(16, 2).subarray(3));
  reader.push(Uint8Array.of(1));
  assert.equal(reader.halfway(), true);
  reader.push(Uint8Array.of(2));
  assert.equal(reader.halfway(), false);
});
