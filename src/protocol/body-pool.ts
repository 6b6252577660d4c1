// Memory for large frame bodies that is used again: fresh megabytes cost page faults and garbage collections, a sixth of a receiver's time.

/** Bodies are rounded up to this, so that buffers fit again; shorter ones are allocated as they are. */
const STEP_BYTES: number = 256 * 1024;
const MIN_POOLED_BYTES: number = 64 * 1024;

/** Kept for later: two batches of a push session. */
const MAX_FREE_BYTES: number = 16 * 1024 * 1024;

export interface BodyPool {
  /** Memory of this length with anything in it. */
  take(length: number): Uint8Array;
  /** Nobody looks at this body, or the body it is a part of, any more. Memory from elsewhere is left alone. */
  giveBack(body: Uint8Array): void;
}

/** Memory of exactly this length, not zeroed: whoever asks writes every byte before anybody sees it. */
export function takeFresh(length: number): Uint8Array {
  return new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
}

export function createBodyPool(): BodyPool {
  const free = new Map<number, ArrayBufferLike[]>();
  const lent = new WeakSet<ArrayBufferLike>();
  let freeBytes = 0;
  return {
    take(length) {
      if (length < MIN_POOLED_BYTES) return takeFresh(length);
      const capacity = Math.ceil(length / STEP_BYTES) * STEP_BYTES;
      const used = free.get(capacity)?.pop();
      if (used !== undefined) freeBytes -= capacity;
      const buffer = used ?? takeFresh(capacity).buffer;
      lent.add(buffer);
      return new Uint8Array(buffer, 0, length);
    },
    giveBack({ buffer }) {
      if (!lent.delete(buffer) || freeBytes + buffer.byteLength > MAX_FREE_BYTES) return;
      const same = free.get(buffer.byteLength);
      if (same === undefined) free.set(buffer.byteLength, [buffer]);
      else same.push(buffer);
      freeBytes += buffer.byteLength;
    },
  };
}
