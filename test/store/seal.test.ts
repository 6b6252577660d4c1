import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { blockIdOf, MAX_BLOCK_BYTES } from '../../src/store/block.ts';
import {
  KIND_CATALOG,
  KIND_MANIFEST,
  sealData,
  sealNamed,
  unsealData,
  unsealNamed,
  type SealedBlock,
} from '../../src/store/seal.ts';
import { contentKeysOf } from '../../src/store/secrets.ts';
import { flipEach, OTHER_KEYS, testBytes, TEST_KEYS, TEST_SECRETS, withCode } from '../suites/content.ts';

const epoch = TEST_KEYS.current;
const frames = fc.uint8Array({ maxLength: 3000 });
const namedKinds = fc.constantFrom(KIND_MANIFEST, KIND_CATALOG);
const isBad = withCode('BAD_BLOCK');

/** The header fields before a named block's ciphertext. */
const NAMED_HEADER_BYTES = 42;

test('unsealData is the inverse of sealData, and the id names the bytes', () => {
  fc.assert(
    fc.property(frames, (frame) => {
      const { id, bytes, key } = sealData(frame, epoch);
      assert.equal(id, blockIdOf(bytes));
      assert.equal(bytes.length, frame.length + 18);
      assert.deepEqual(Buffer.from(unsealData(bytes, key)), Buffer.from(frame));
    }),
  );
});

test('unsealNamed is the inverse of sealNamed', () => {
  fc.assert(
    fc.property(namedKinds, frames, (kind, frame) => {
      const { id, bytes } = sealNamed(kind, frame, epoch);
      assert.equal(id, blockIdOf(bytes));
      assert.equal(bytes.length, frame.length + NAMED_HEADER_BYTES + 16);
      assert.deepEqual(Buffer.from(unsealNamed(kind, bytes, TEST_KEYS)), Buffer.from(frame));
    }),
  );
});

test('equal frames give equal blocks within an owner and epoch only; different ones share neither key nor salt', () => {
  const [older] = TEST_SECRETS.epochs;
  assert.ok(older);
  fc.assert(
    fc.property(frames, frames, (a, b) => {
      fc.pre(!Buffer.from(a).equals(b));
      const data = sealData(a, epoch);
      assert.deepEqual(sealData(a, epoch), data);
      for (const other of [
        sealData(b, epoch),
        sealData(a, TEST_KEYS.epoch(older.id)),
        sealData(a, OTHER_KEYS.current),
      ]) {
        assert.notEqual(other.id, data.id);
        assert.notDeepEqual(other.key, data.key);
      }
      const salt = ({ bytes }: SealedBlock): string => bytes.toString('hex', 10, NAMED_HEADER_BYTES);
      assert.notEqual(salt(sealNamed(KIND_MANIFEST, a, epoch)), salt(sealNamed(KIND_MANIFEST, b, epoch)));
      assert.notEqual(salt(sealNamed(KIND_MANIFEST, a, epoch)), salt(sealNamed(KIND_CATALOG, a, epoch)));
    }),
  );
});

test('nothing of the frame shows in the block', () => {
  const frame = Buffer.from('a line that must not be seen '.repeat(20));
  for (const { bytes } of [sealData(frame, epoch), sealNamed(KIND_CATALOG, frame, epoch)]) {
    assert.equal(bytes.indexOf(frame.subarray(0, 8)), -1);
  }
});

test('every changed byte of a data block is noticed', () => {
  const { bytes, key } = sealData(testBytes(300, 1), epoch);
  flipEach(bytes, (altered, at) => {
    assert.throws(() => unsealData(altered, key), withCode(at === 0 ? 'NEWER_VERSION' : 'BAD_BLOCK', 'BAD_BLOCK'));
  });
  flipEach(key, (altered) => assert.throws(() => unsealData(bytes, altered), isBad));
});

test('every changed byte of a named block is noticed', () => {
  for (const kind of [KIND_MANIFEST, KIND_CATALOG] as const) {
    const { bytes } = sealNamed(kind, testBytes(300, 1), epoch);
    flipEach(bytes, (altered, at) => {
      assert.throws(
        () => unsealNamed(kind, altered, TEST_KEYS),
        withCode(at === 0 ? 'NEWER_VERSION' : 'BAD_BLOCK', 'BAD_BLOCK'),
      );
    });
  }
});

test('truncated and lengthened blocks are refused', () => {
  const data = sealData(testBytes(100, 1), epoch);
  const named = sealNamed(KIND_MANIFEST, testBytes(100, 1), epoch);
  for (let length = 0; length < data.bytes.length; length += 1) {
    assert.throws(() => unsealData(data.bytes.subarray(0, length), data.key), isBad);
  }
  for (let length = 0; length < named.bytes.length; length += 1) {
    assert.throws(() => unsealNamed(KIND_MANIFEST, named.bytes.subarray(0, length), TEST_KEYS), isBad);
  }
  assert.throws(() => unsealData(Buffer.concat([data.bytes, Buffer.of(0)]), data.key), isBad);
});

test('a newer suite is NEWER_VERSION, suite 0 and another kind are BAD_BLOCK', () => {
  const data = sealData(testBytes(100, 1), epoch);
  const named = sealNamed(KIND_MANIFEST, testBytes(100, 1), epoch);
  const withSuite = (bytes: Buffer, suite: number): Buffer => Buffer.concat([Buffer.of(suite), bytes.subarray(1)]);
  for (const suite of [2, 255]) {
    assert.throws(() => unsealData(withSuite(data.bytes, suite), data.key), withCode('NEWER_VERSION'));
    assert.throws(
      () => unsealNamed(KIND_MANIFEST, withSuite(named.bytes, suite), TEST_KEYS),
      withCode('NEWER_VERSION'),
    );
  }
  assert.throws(() => unsealData(withSuite(data.bytes, 0), data.key), isBad);
  assert.throws(() => unsealNamed(KIND_CATALOG, named.bytes, TEST_KEYS), isBad);
  assert.throws(() => unsealData(named.bytes, data.key), isBad);
  assert.throws(() => unsealNamed(KIND_MANIFEST, data.bytes, TEST_KEYS), isBad);
});

test("another owner's block does not open, one of an older epoch does", () => {
  const foreign = sealNamed(KIND_MANIFEST, testBytes(100, 1), OTHER_KEYS.current);
  assert.throws(() => unsealNamed(KIND_MANIFEST, foreign.bytes, TEST_KEYS), isBad);
  const [older] = TEST_SECRETS.epochs;
  assert.ok(older);
  const then = contentKeysOf({ ...TEST_SECRETS, epochs: [older] });
  const frame = testBytes(100, 2);
  const { bytes } = sealNamed(KIND_MANIFEST, frame, then.current);
  assert.deepEqual(unsealNamed(KIND_MANIFEST, bytes, TEST_KEYS), frame);
});

test('a frame that would not fit a block is not sealed', () => {
  const largest = Buffer.alloc(MAX_BLOCK_BYTES - 18);
  assert.equal(sealData(largest, epoch).bytes.length, MAX_BLOCK_BYTES);
  assert.throws(() => sealData(Buffer.alloc(MAX_BLOCK_BYTES - 17), epoch), withCode('INTERNAL'));
});
