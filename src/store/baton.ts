// The baton of a file that several threads share: where the next one goes on reading. Only its holder reads and cuts, so cut points are
// those of one thread; sealing, which is most of the work, goes on in parallel. Holders wait for it by blocking, so it is held briefly.

/** Words of 8 bytes: the lock (0 free, 1 held; in the first half) and the next offset. */
const [LOCK, NEXT] = [0, 1];
const ENDED = -1n;
/** A wait is repeated so often, should a wake-up be lost with the thread that was to pass it on. */
const WAIT_MS = 200;

export function openBaton(): SharedArrayBuffer {
  return new SharedArrayBuffer(16);
}

/** Waits for the baton. The offset to read from, or undefined (and no baton) when the file has ended. */
export function takeBaton(baton: SharedArrayBuffer): number | undefined {
  const locks = new Int32Array(baton);
  while (Atomics.compareExchange(locks, LOCK, 0, 1) !== 0) Atomics.wait(locks, LOCK, 1, WAIT_MS);
  const next = Atomics.load(new BigInt64Array(baton), NEXT);
  if (next !== ENDED) return Number(next);
  release(baton);
  return undefined;
}

/** Passes it on: the next one goes on at `next`; undefined: that was the end. Has no effect on where, when it has been ended meanwhile. */
export function passBaton(baton: SharedArrayBuffer, from: number, next: number | undefined): void {
  const to = next === undefined ? ENDED : BigInt(next);
  Atomics.compareExchange(new BigInt64Array(baton), NEXT, BigInt(from), to);
  release(baton);
}

/** Nobody reads on: everyone who waits for the baton, or for a holder that has died, gets the end. */
export function endBaton(baton: SharedArrayBuffer): void {
  Atomics.store(new BigInt64Array(baton), NEXT, ENDED);
  release(baton);
}

function release(baton: SharedArrayBuffer): void {
  const locks = new Int32Array(baton);
  Atomics.store(locks, LOCK, 0);
  Atomics.notify(locks, LOCK);
}
