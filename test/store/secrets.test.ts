import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import { blake3 } from '@napi-rs/blake-hash';
import * as fc from 'fast-check';
import { contentKeysOf, derive, keyedHash, type OpenedSecrets } from '../../src/store/secrets.ts';
import { testBytes, TEST_KEYS, TEST_SECRETS, withCode } from '../suites/content.ts';

const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 });

/** RFC 5869 by hand, for outputs of up to 32 bytes: extract without salt, then one step of expand. */
function hkdfByHand(secret: Uint8Array, info: string): Buffer {
  const prk = createHmac('sha256', Buffer.alloc(32)).update(secret).digest();
  return createHmac('sha256', prk).update(info).update(Buffer.of(1)).digest();
}

test('derive is HKDF-SHA256 without salt under dezent/1/label', () => {
  fc.assert(
    fc.property(bytes32, fc.string({ maxLength: 40 }), (secret, label) => {
      assert.deepEqual(derive(secret, label), hkdfByHand(secret, `dezent/1/${label}`));
    }),
  );
});

test('keyedHash is keyed blake3 over the parts as one', () => {
  const key = testBytes(32, 20);
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 5 }), (parts) => {
      assert.deepEqual(keyedHash(key, ...parts), keyedHash(key, Buffer.concat(parts)));
      assert.notDeepEqual(keyedHash(key, ...parts), Buffer.from(blake3(Buffer.concat(parts))));
    }),
  );
});

test('no two keys of an owner are equal', () => {
  const [first, second] = TEST_SECRETS.epochs.map(({ id }) => TEST_KEYS.epoch(id));
  const all = [first, second].flatMap((epoch) => [
    epoch?.frameHash,
    epoch?.blockKey,
    epoch?.manifest.saltHash,
    epoch?.manifest.key,
    epoch?.catalog.saltHash,
    epoch?.catalog.key,
    epoch?.stub,
  ]);
  const texts = [...all, TEST_KEYS.contentHash, TEST_KEYS.plainHash].map((key) => key?.toString('hex'));
  assert.equal(new Set(texts).size, 16);
  assert.ok(!texts.includes(undefined));
});

test('the last epoch is current, older ones open by id, and what belongs to the split secret is equal in all', () => {
  const [first, second] = TEST_SECRETS.epochs;
  assert.ok(first && second);
  assert.deepEqual(TEST_KEYS.current, TEST_KEYS.epoch(second.id));
  assert.notDeepEqual(TEST_KEYS.current, TEST_KEYS.epoch(first.id));
  const earlier = contentKeysOf({ ...TEST_SECRETS, epochs: [first] });
  assert.deepEqual(earlier.gear, TEST_KEYS.gear);
  assert.deepEqual(earlier.contentHash, TEST_KEYS.contentHash);
  assert.deepEqual(earlier.current, TEST_KEYS.epoch(first.id));
});

test('an unknown epoch is BAD_BLOCK with a hint, and no epoch at all is KEYS', () => {
  assert.throws(() => TEST_KEYS.epoch(Buffer.alloc(8)), withCode('BAD_BLOCK'));
  const none: OpenedSecrets = { ...TEST_SECRETS, epochs: [] };
  assert.throws(() => contentKeysOf(none), withCode('KEYS'));
});

test('the gear table has 256 different words', () => {
  assert.equal(TEST_KEYS.gear.length, 256);
  assert.equal(new Set(TEST_KEYS.gear).size, 256);
});
