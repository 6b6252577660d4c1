import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { HEAD_MAX_SEGMENTS, HEAD_MAX_SEEN, signHead, verifyHead, type Head } from '../../src/protocol/head.ts';
import { decodeEnvelope, encodeEnvelope } from '../../src/protocol/signature.ts';
import { blockIdFromDigest } from '../../src/store/block.ts';
import { deviceIdOf, deviceKeysOf, seedOf } from '../suites/people.ts';

const groupId = seedOf('group');
const { device: key } = deviceKeysOf('writer');
const incarnation = seedOf('incarnation').slice(0, 8);
const block = (index: number): ReturnType<typeof blockIdFromDigest> => blockIdFromDigest(seedOf(`block ${index}`));
const head: Head = {
  device: deviceIdOf('writer'),
  incarnation,
  seq: 7,
  seen: [{ device: deviceIdOf('reader'), incarnation, seq: 3 }],
  checkpoint: { id: block(0), seq: 4 },
  segments: [5, 6, 9].map((seq) => ({ id: block(seq), seq })),
};
const refused = { code: 'BAD_RECORD' };

test('a head says what its device signed', () => {
  const seqs = fc.uniqueArray(fc.nat(), { maxLength: 20 }).map((some) => some.sort((a, b) => a - b));
  fc.assert(
    fc.property(seqs, fc.integer({ min: 1, max: 2 ** 48 }), (some, seq) => {
      const one: Head = {
        device: head.device,
        incarnation,
        seq,
        seen: head.seen,
        segments: some.map((at) => ({ id: block(at % 7), seq: at })),
      };
      assert.deepEqual(verifyHead(groupId, decodeEnvelope(encodeEnvelope(signHead(groupId, one, key)))), one);
    }),
  );
  assert.deepEqual(verifyHead(groupId, signHead(groupId, head, key)), head);
});

test('`seen` is put in order when signing, so that equal heads are equal bytes', () => {
  const seen = ['p', 'q', 'r'].map((name) => ({ device: deviceIdOf(name), incarnation, seq: 1 }));
  const bytes = encodeEnvelope(signHead(groupId, { ...head, seen }, key));
  assert.deepEqual(encodeEnvelope(signHead(groupId, { ...head, seen: seen.toReversed() }, key)), bytes);
});

test('a head of another group or device, or out of order, is refused', () => {
  assert.throws(() => verifyHead(seedOf('other'), signHead(groupId, head, key)), refused);
  assert.throws(() => signHead(groupId, head, deviceKeysOf('other').device), refused);
  const [one] = head.segments;
  assert.ok(one);
  for (const wrong of [
    { segments: head.segments.toReversed() },
    { segments: [one, one] },
    { checkpoint: { id: block(0), seq: 5 } },
    { seq: 0 },
    { seen: [...head.seen, ...head.seen] },
  ])
    assert.throws(() => signHead(groupId, { ...head, ...wrong }, key), refused);
});

test('the largest head fits an envelope', () => {
  const id = block(1);
  const segments = Array.from({ length: HEAD_MAX_SEGMENTS }, (_, index) => ({ id, seq: 2 ** 40 + index }));
  const seen = Array.from({ length: HEAD_MAX_SEEN }, (_, index) => ({
    device: head.device,
    incarnation: new Uint8Array(new BigUint64Array([BigInt(index)]).buffer),
    seq: 2 ** 40,
  }));
  const large = { ...head, segments, seen };
  assert.equal(
    verifyHead(groupId, decodeEnvelope(encodeEnvelope(signHead(groupId, large, key)))).segments.length,
    HEAD_MAX_SEGMENTS,
  );
  assert.throws(() => signHead(groupId, { ...large, segments: [...segments, { id, seq: 2 ** 41 }] }, key), refused);
});
