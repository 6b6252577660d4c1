import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { newPhrase, ownerKeysOf } from '../../src/protocol/owner-keys.ts';
import { isDezentError } from '../../src/errors.ts';
import { peerIdOf } from '../../src/protocol/signature.ts';
import { phraseOf } from '../suites/people.ts';

/** BIP39's own test vector of 32 bytes 0x7f. */
const VECTOR =
  'legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth title';

test('a new phrase has 24 words and is another one each time', () => {
  const phrase = newPhrase();
  assert.equal(phrase.split(' ').length, 24);
  assert.notEqual(newPhrase(), phrase);
  assert.equal(ownerKeysOf(phrase).ownerId, ownerKeysOf(phrase).ownerId);
});

test('the keys of a phrase are what they were in version 1', () => {
  const keys = ownerKeysOf(VECTOR);
  assert.deepEqual(
    [keys.ownerId, Buffer.from(keys.recovery.publicKey).toString('hex'), peerIdOf(keys.recoveryGuest.publicKey)],
    [
      'b5zmsvfq2mktrb2krvl4x6cbmqemvnbtxay225mtvvgmv3nvnqspa',
      '196591edc9e2375596e3856be5675ea629c2231b707622113dbab4a719011728',
      '12D3KooWD9V7CbRzPe7qUU9Z1jYUCq4uTLY5uytN91ByjVDpsziX',
    ],
  );
});

test('case, white space and line breaks do not matter', () => {
  const words = VECTOR.split(' ');
  assert.equal(
    ownerKeysOf(`\n ${words.map((word) => word.toUpperCase()).join('\n  ')}\t`).ownerId,
    ownerKeysOf(VECTOR).ownerId,
  );
});

test('a typo is refused with the number of the word, never the word', () => {
  const words = phraseOf('somebody').split(' ');
  const typo = words.with(6, 'zebrra').join(' ');
  assert.throws(
    () => ownerKeysOf(typo),
    (error: unknown) => {
      assert.ok(isDezentError(error, 'BAD_PHRASE'));
      assert.match(error.message, /word 7 /);
      assert.equal(inspect(error).includes('zebrra'), false);
      return true;
    },
  );
});

test('another word of the list, swapped words and a wrong number of words are refused', () => {
  const words = VECTOR.split(' ');
  for (const wrong of [
    words.with(3, 'zoo'),
    [words[1] ?? '', words[0] ?? '', ...words.slice(2)],
    words.slice(0, 12),
    [...words, 'zoo'],
    [],
  ])
    assert.throws(() => ownerKeysOf(wrong.join(' ')), { code: 'BAD_PHRASE' });
});

test('the keys show no secret', () => {
  const keys = ownerKeysOf(VECTOR);
  const shown = inspect(keys, { depth: Infinity, showHidden: true });
  const secretish = Object.keys(keys.signing).concat(Object.keys(keys.recovery));
  assert.deepEqual(secretish, ['publicKey', 'sign', 'publicKey', 'unseal']);
  assert.equal(shown.includes('winner'), false);
});
