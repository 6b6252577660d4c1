// What the tests of content share: one deterministic set of secrets, deterministic bytes, and stores that count.
import assert from 'node:assert/strict';
import { createCipheriv } from 'node:crypto';
import type { ErrorCode } from '../../src/errors.ts';
import { isDezentError } from '../../src/errors.ts';
import { contentKeysOf, type ContentKeys, type OpenedSecrets } from '../../src/store/secrets.ts';

/** `length` bytes that look random and follow from `seed` alone (AES-256-CTR of zeros). */
export function testBytes(length: number, seed: number): Buffer {
  const key = Buffer.alloc(32);
  key.writeUInt32BE(seed);
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length));
}

/** The secrets of the golden fixtures: two epochs, the second one is current. */
export const TEST_SECRETS: OpenedSecrets = {
  split: testBytes(32, 1),
  epochs: [
    { id: testBytes(8, 2), secret: testBytes(32, 3) },
    { id: testBytes(8, 4), secret: testBytes(32, 5) },
  ],
};

export const TEST_KEYS: ContentKeys = contentKeysOf(TEST_SECRETS);

/** Secrets of somebody else. */
export const OTHER_KEYS: ContentKeys = contentKeysOf({
  split: testBytes(32, 11),
  epochs: [{ id: testBytes(8, 12), secret: testBytes(32, 13) }],
});

/** The bytes as a stream of pieces of `pieceBytes`. */
export async function* inPieces(bytes: Uint8Array, pieceBytes: number = 64 * 1024): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

/** For assert.throws and assert.rejects: a DezentError with one of these codes. */
export function withCode(...codes: ErrorCode[]): (error: unknown) => true {
  return (error) => {
    assert.ok(isDezentError(error), `not a DezentError: ${String(error)}`);
    assert.ok(codes.includes(error.code), `${error.code} (${error.message}), expected ${codes.join(' or ')}`);
    return true;
  };
}

/** Runs `read`; true when it gave a value, false when it threw a DezentError with one of these codes, else it fails. */
export function readsOr(codes: ErrorCode[], read: () => unknown): boolean {
  try {
    read();
    return true;
  } catch (error) {
    withCode(...codes)(error);
    return false;
  }
}

/** Calls `use` with the bytes once for each of their bytes, that one changed. */
export function flipEach(bytes: Uint8Array, use: (altered: Buffer, at: number) => void, step: number = 1): void {
  for (let at = 0; at < bytes.length; at += step) {
    const altered = Buffer.from(bytes);
    altered[at] = (altered[at] as number) ^ (1 << (at % 8));
    use(altered, at);
  }
}
