import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { boxKeyFromSeed, SEALED_OVERHEAD_BYTES, sealTo } from '../../src/protocol/sealed-box.ts';
import { seedOf } from '../suites/people.ts';

const mine = boxKeyFromSeed(seedOf('mine'));
const context = { info: Buffer.from('info'), aad: Buffer.from('aad') };
const refused = { code: 'KEYS' };

test('what is sealed to a key is unsealed by it', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (secret) => {
      const sealed = await sealTo(mine.publicKey, secret, context);
      assert.equal(sealed.length, secret.length + SEALED_OVERHEAD_BYTES);
      assert.deepEqual(await mine.unseal(sealed, context), secret);
    }),
    { numRuns: 20 },
  );
});

test('another key, another context and any changed byte are refused', async () => {
  const sealed = await sealTo(mine.publicKey, new Uint8Array(32), context);
  await assert.rejects(boxKeyFromSeed(seedOf('theirs')).unseal(sealed, context), refused);
  await assert.rejects(mine.unseal(sealed, { ...context, info: Buffer.from('other') }), refused);
  await assert.rejects(mine.unseal(sealed, { ...context, aad: Buffer.from('other') }), refused);
  for (const at of [0, 31, 32, 50, sealed.length - 1]) {
    const changed = Uint8Array.from(sealed);
    changed[at] = (changed[at] ?? 0) ^ 4;
    await assert.rejects(mine.unseal(changed, context), refused);
  }
  for (const short of [0, 31, 32, 47]) await assert.rejects(mine.unseal(sealed.subarray(0, short), context), refused);
});

test('a key of order 1 is refused when sealing', async () => {
  await assert.rejects(sealTo(new Uint8Array(32), new Uint8Array(32), context), { code: 'BAD_RECORD' });
});

// RFC 9180 has no vector for X25519 with AES-256-GCM in base mode that takes a raw private key, so this one was made with version 1.
test('what version 1 sealed can be unsealed', async () => {
  const sealed = Buffer.from(
    'ba3fadbc16a0ddffc646151bf222d14843bd427561d7e16766aa98736dd0bc6342f14ec889877740b6415e975d23ab5d8475455e7d7e19b26507f63536e7528181935d05e39570035e99e49e27661f4a',
    'hex',
  );
  assert.deepEqual(await mine.unseal(sealed, context), seedOf('a secret'));
});
