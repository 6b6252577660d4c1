// Sealing a secret to one X25519 key: HPKE base mode (RFC 9180) with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
// Sealed bytes = encapsulated key (32) ‖ ciphertext ‖ tag (16). `info` binds them to a group and owner, `aad` to one place there.
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256, HpkeError } from '@hpke/core';
import { DezentError } from '../errors.ts';

export const BOX_KEY_BYTES = 32;
const ENCAPSULATED_BYTES = 32;
const TAG_BYTES = 16;
export const SEALED_OVERHEAD_BYTES: number = ENCAPSULATED_BYTES + TAG_BYTES;
/** RFC 8410: the DER before the 32 bytes of an X25519 private or public key. */
const PRIVATE_DER = Buffer.from('302e020100300506032b656e04220420', 'hex');
const PUBLIC_DER_BYTES = 12;

export interface SealContext {
  info: Uint8Array;
  aad: Uint8Array;
}

/** An X25519 key pair whose private half stays inside. */
export interface BoxKey {
  readonly publicKey: Uint8Array;
  /** The inverse of {@link sealTo}; throws KEYS when the bytes were not sealed to this key in this context. */
  unseal(sealed: Uint8Array, context: SealContext): Promise<Uint8Array>;
}

function openSuite(): CipherSuite {
  return new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
}

/** A copy that is an ArrayBuffer of its own, as WebCrypto wants it. */
function own(bytes: Uint8Array): ArrayBuffer {
  return new Uint8Array(bytes).buffer;
}

/** The key pair of a 32-byte X25519 private key. Throws KEYS for another length. */
export function boxKeyFromSeed(seed: Uint8Array): BoxKey {
  if (seed.length !== BOX_KEY_BYTES)
    throw new DezentError('KEYS', `an X25519 key has ${BOX_KEY_BYTES} bytes, not ${seed.length}`);
  const key = createPrivateKey({ key: Buffer.concat([PRIVATE_DER, seed]), format: 'der', type: 'pkcs8' });
  const publicHalf = createPublicKey(key);
  const publicKey = new Uint8Array(publicHalf.export({ format: 'der', type: 'spki' }).subarray(PUBLIC_DER_BYTES));
  const recipientKey = {
    privateKey: key.toCryptoKey('X25519', false, ['deriveBits']),
    publicKey: publicHalf.toCryptoKey('X25519', true, []),
  };
  return {
    publicKey,
    async unseal(sealed, { info, aad }) {
      if (sealed.length < SEALED_OVERHEAD_BYTES) throw new DezentError('KEYS', 'a sealed secret is too short');
      const enc = own(sealed.subarray(0, ENCAPSULATED_BYTES));
      try {
        const context = await openSuite().createRecipientContext({ recipientKey, enc, info: own(info) });
        return new Uint8Array(await context.open(own(sealed.subarray(ENCAPSULATED_BYTES)), own(aad)));
      } catch (error) {
        if (error instanceof HpkeError)
          throw new DezentError('KEYS', 'a secret is not sealed to this key', { cause: error });
        throw error;
      }
    },
  };
}

/** Seals bytes to an X25519 public key; twice the same gives different bytes. Throws BAD_RECORD for a key that is none. */
export async function sealTo(
  publicKey: Uint8Array,
  bytes: Uint8Array,
  { info, aad }: SealContext,
): Promise<Uint8Array> {
  const suite = openSuite();
  try {
    const recipientPublicKey = await suite.kem.importKey('raw', own(publicKey), true);
    const sender = await suite.createSenderContext({ recipientPublicKey, info: own(info) });
    const ciphertext = await sender.seal(own(bytes), own(aad));
    return new Uint8Array(Buffer.concat([new Uint8Array(sender.enc), new Uint8Array(ciphertext)]));
  } catch (error) {
    if (error instanceof HpkeError) throw new DezentError('BAD_RECORD', 'not an X25519 public key', { cause: error });
    throw error;
  }
}
