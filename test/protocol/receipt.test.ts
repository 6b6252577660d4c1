import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import {
  digestOfIds,
  newReceiptNonce,
  RECEIPT_MAX_IDS,
  signReceipt,
  signRelease,
  verifyReceipt,
  verifyRelease,
  type Receipt,
} from '../../src/protocol/receipt.ts';
import { ownerKeysOf } from '../../src/protocol/owner-keys.ts';
import { decodeEnvelope, encodeEnvelope } from '../../src/protocol/signature.ts';
import { blockIdOf } from '../../src/store/block.ts';
import { deviceIdOf, deviceKeysOf, phraseOf, seedOf } from '../suites/people.ts';

const groupId = seedOf('group');
const holder = deviceKeysOf('holder').device;
const ids = ['x', 'y', 'z'].map((name) => blockIdOf(seedOf(name)));
const refused = { code: 'BAD_RECORD' };
const receipt: Receipt = {
  owner: ownerKeysOf(phraseOf('anna')).ownerId,
  device: deviceIdOf('asker'),
  holder: deviceIdOf('holder'),
  nonce: newReceiptNonce(),
  ids: digestOfIds(ids),
  count: 3,
  bytes: 96,
  issuedAt: 1_700_000_000_000,
};

test('a receipt says what the holder signed', () => {
  const count = fc.integer({ min: 1, max: RECEIPT_MAX_IDS });
  fc.assert(
    fc.property(count, fc.maxSafeNat(), fc.maxSafeNat(), (count, bytes, issuedAt) => {
      const some = { ...receipt, count, bytes, issuedAt };
      const envelope = signReceipt(groupId, some, holder);
      assert.deepEqual(verifyReceipt(groupId, decodeEnvelope(encodeEnvelope(envelope))), some);
    }),
  );
});

test('the order of the ids does not matter, the ids do', () => {
  assert.deepEqual(digestOfIds(ids.toReversed()), receipt.ids);
  assert.notDeepEqual(digestOfIds(ids.slice(1)), receipt.ids);
});

test('a receipt of another group, holder or number is refused', () => {
  const envelope = signReceipt(groupId, receipt, holder);
  assert.throws(() => verifyReceipt(seedOf('other'), envelope), refused);
  assert.throws(() => signReceipt(groupId, { ...receipt, holder: deviceIdOf('other') }, holder), refused);
  assert.throws(
    () =>
      verifyReceipt(groupId, { ...envelope, payload: signReceipt(groupId, { ...receipt, bytes: 97 }, holder).payload }),
    refused,
  );
  for (const wrong of [
    { count: 0 },
    { count: RECEIPT_MAX_IDS + 1 },
    { bytes: -1 },
    { issuedAt: 1.5 },
    { device: 'nobody' },
    { nonce: new Uint8Array(15) },
  ])
    assert.throws(() => signReceipt(groupId, { ...receipt, ...wrong }, holder), refused);
});

test('a release says what the device signed, to this holder only', () => {
  const asker = deviceKeysOf('asker').device;
  const release = { device: deviceIdOf('asker'), holder: deviceIdOf('holder'), nonces: [newReceiptNonce()], ids };
  const envelope = signRelease(groupId, release, asker);
  assert.deepEqual(verifyRelease(groupId, envelope, release.holder), release);
  assert.throws(() => verifyRelease(groupId, envelope, deviceIdOf('other')), refused);
  assert.throws(() => verifyRelease(seedOf('other'), envelope, release.holder), refused);
  assert.throws(() => signRelease(groupId, release, holder), refused);
  assert.throws(() => verifyReceipt(groupId, envelope), refused);
});

test('the largest release fits its own limit', () => {
  const many = {
    nonces: Array.from({ length: 256 }, newReceiptNonce),
    ids: Array.from({ length: RECEIPT_MAX_IDS }, () => ids)
      .flat()
      .slice(0, RECEIPT_MAX_IDS),
  };
  const release = { device: deviceIdOf('asker'), holder: deviceIdOf('holder'), ...many };
  assert.equal(
    verifyRelease(groupId, signRelease(groupId, release, deviceKeysOf('asker').device), release.holder).ids.length,
    RECEIPT_MAX_IDS,
  );
});
