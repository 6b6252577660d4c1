import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encode } from '@ipld/dag-cbor';
import * as v from 'valibot';
import { count, decodeRecord, encodeRecord, nameOf, type RecordFormat } from '../../src/protocol/record-codec.ts';

interface Sample {
  v: 1;
  n: number;
  list: unknown[];
}
const format: RecordFormat<Sample> = {
  name: 'sample',
  version: 1,
  maxBytes: 400_000,
  schema: v.strictObject({ v: v.literal(1), n: count, list: v.array(v.unknown()) }),
};
const refused = { code: 'BAD_RECORD' };

test('what is encoded is decoded', () => {
  const sample: Sample = { v: 1, n: 5, list: [1, 'two', Uint8Array.of(3), null, true, [4], { five: 6 }] };
  assert.deepEqual(decodeRecord(format, encodeRecord(format, sample)), sample);
});

test('a newer version is told apart from a wrong one', () => {
  assert.throws(() => decodeRecord(format, encode({ v: 2, anything: 1 })), { code: 'NEWER_VERSION' });
  for (const other of [{ v: 0, n: 1, list: [] }, { n: 1, list: [] }, { v: '2', n: 1, list: [] }, [], null, 5])
    assert.throws(() => decodeRecord(format, encode(other)), refused);
});

test('unknown fields, wrong types and out of range numbers are refused, also when encoding', () => {
  for (const other of [
    { v: 1, n: -1, list: [] },
    { v: 1, n: 1.5, list: [] },
    { v: 1, n: 1, list: [], more: 1 },
    { v: 1, n: 1 },
  ])
    assert.throws(() => decodeRecord(format, encode(other)), refused);
  assert.throws(() => encodeRecord(format, { v: 1, n: -1, list: [] }), refused);
});

test('depth, item count and size are capped before decoding', () => {
  const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)]);
  assert.doesNotThrow(() => decodeRecord(format, encode({ v: 1, n: 1, list: [nested(4)] })));
  assert.throws(() => decodeRecord(format, encode({ v: 1, n: 1, list: [nested(20)] })), refused);
  assert.throws(() => decodeRecord(format, new Uint8Array(300_000).fill(0x81)), refused);
  assert.throws(
    () => decodeRecord(format, encode({ v: 1, n: 1, list: Array.from({ length: 140_000 }, () => 0) })),
    refused,
  );
  assert.throws(() => decodeRecord(format, encode({ v: 1, n: 1, list: [new Uint8Array(400_000)] })), refused);
});

test('one record has one spelling', () => {
  const text = encode({ v: 1, n: 1, list: ['abc'] });
  const badText = Buffer.from(text.map((byte, index) => (index > text.length - 4 ? 0xff : byte)));
  const sample = encode({ n: 1, v: 1, list: [] });
  const swapped = [sample.subarray(0, 1), sample.subarray(4, 7), sample.subarray(1, 4), sample.subarray(7)];
  const indefinite = Uint8Array.of(0x9f, 0xff);
  const wide = Uint8Array.of(0x18, 1);
  const half = Uint8Array.of(0xf9, 0x3c, 0);
  const beyond = Uint8Array.of(0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
  for (const wrong of [badText, Buffer.concat(swapped), indefinite, wide, half, beyond, Uint8Array.of()])
    assert.throws(() => decodeRecord(format, wrong), /canonical/);
});

test('names cannot disguise themselves', () => {
  const name = nameOf(20);
  for (const right of ['kiste', 'Mein Größter 1', '机器', 'a']) assert.equal(v.is(name, right), true, right);
  for (const wrong of ['', 'a\nb', 'a\u001b[2J', 'abc\u202Egpj', 'x'.repeat(21), '\u2028'])
    assert.equal(v.is(name, wrong), false, JSON.stringify(wrong));
});
