import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys';
import { peerIdFromPrivateKey } from '@libp2p/peer-id';
import * as fc from 'fast-check';
import {
  decodeEnvelope,
  encodeEnvelope,
  idBytes,
  idText,
  MAX_ENVELOPE_BYTES,
  peerIdOf,
  publicKeyOf,
  sign,
  signingKeyFromSeed,
  verify,
} from '../../src/protocol/signature.ts';
import { seedOf } from '../suites/people.ts';

const key = signingKeyFromSeed(seedOf('signer'));
const group = seedOf('group');
const bytes = (length: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ minLength: length, maxLength: length });

test('a signature holds for its kind, group and payload only', () => {
  const envelope = sign('receipt', group, Uint8Array.of(1, 2, 3), key);
  verify('receipt', group, envelope);
  const refused = { code: 'BAD_RECORD' };
  assert.throws(() => verify('release', group, envelope), refused);
  assert.throws(() => verify('receipt', seedOf('other group'), envelope), refused);
  assert.throws(() => verify('receipt', null, envelope), refused);
  assert.throws(() => verify('receipt', group, { ...envelope, payload: Uint8Array.of(1, 2, 4) }), refused);
  assert.throws(() => verify('receipt', group, { ...envelope, signer: seedOf('no point of the curve') }), refused);
  assert.throws(() => verify('receipt', group, { ...envelope, signature: new Uint8Array(64) }), refused);
});

test('an envelope is decoded to what was encoded, and its bytes are the only ones', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), bytes(32), bytes(64), (payload, signer, signature) => {
      const encoded = encodeEnvelope({ payload, signer, signature });
      const decoded = decodeEnvelope(encoded);
      assert.deepEqual(decoded, { payload, signer, signature });
      assert.deepEqual(encodeEnvelope(decoded), encoded);
    }),
  );
});

test('envelopes that are too large, cut or followed by something are refused', () => {
  const encoded = encodeEnvelope(sign('head', group, new Uint8Array(10), key));
  for (const wrong of [
    new Uint8Array(MAX_ENVELOPE_BYTES + 1),
    encoded.subarray(1),
    encoded.subarray(0, -1),
    Buffer.concat([encoded, encoded]),
  ])
    assert.throws(() => decodeEnvelope(wrong), { code: 'BAD_RECORD' });
});

test('peer ids are those of libp2p, and go back to the key', async () => {
  for (const name of ['a', 'b', 'c']) {
    const seed = seedOf(name);
    const { publicKey } = signingKeyFromSeed(seed);
    assert.equal(peerIdOf(publicKey), peerIdFromPrivateKey(await generateKeyPairFromSeed('Ed25519', seed)).toString());
    assert.deepEqual(publicKeyOf(peerIdOf(publicKey)), publicKey);
  }
});

test('other spellings and other texts are no peer ids and no ids', () => {
  const peerId = peerIdOf(key.publicKey);
  for (const wrong of [
    '',
    'x',
    `${peerId}1`,
    peerId.slice(1),
    ` ${peerId}`,
    peerId.replace('12D3', '12d3'),
    'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N',
  ])
    assert.throws(() => publicKeyOf(wrong), { code: 'BAD_RECORD' }, wrong);
  const id = idText(group);
  assert.deepEqual(idBytes(id), group);
  // 32 bytes leave 4 bits of the last character unused: any but zero would be a second spelling.
  for (const wrong of ['', id.toUpperCase(), `${id}a`, `${id.slice(0, -1)}b`, `z${id.slice(1)}`])
    assert.throws(() => idBytes(wrong), { code: 'BAD_RECORD' }, wrong);
});

test('a signing key shows no secret', () => {
  assert.deepEqual(Object.keys(key), ['publicKey', 'sign']);
  assert.throws(() => signingKeyFromSeed(new Uint8Array(31)), { code: 'KEYS' });
});
