// A set of hashes that all threads share: 64 bits of each, open addressing, in one SharedArrayBuffer. It forgets nothing and may be wrong
// in both directions for a moment, so it is a hint: whoever finds a hash in it asks the index, and seals where that does not know.
//
// Word 0 counts the entries; words 1 … capacity hold a fingerprint each, 0 is free.

/** Beyond this share of its words searches get long: the owner of the set makes a larger one. */
const FULL_SHARE = 1 / 2;
/** 512 KiB at first: 32,000 chunks, 8 to 32 GB of content. */
const FIRST_CAPACITY: number = 64 * 1024;
const WORD_BYTES = 8;

export interface SharedSet {
  /** For other threads: see {@link joinSharedSet}. */
  readonly memory: SharedArrayBuffer;
  /** Adds the hash; true when it was not there. Of several threads at once one gets true. */
  add(hash: Uint8Array): boolean;
  has(hash: Uint8Array): boolean;
  /** True when a larger one should take its place. */
  isFull(): boolean;
}

export function openSharedSet(capacity: number = FIRST_CAPACITY): SharedSet {
  return joinSharedSet(new SharedArrayBuffer((capacity + 1) * WORD_BYTES));
}

/** A set with twice the room and the same entries (but for those that somebody adds meanwhile). */
export function enlargedSet(set: SharedSet): SharedSet {
  const words = new BigInt64Array(set.memory);
  const larger = openSharedSet((words.length - 1) * 2);
  const bytes = new Uint8Array(WORD_BYTES);
  const view = new DataView(bytes.buffer);
  for (let at = 1; at < words.length; at += 1) {
    const word = words[at] as bigint;
    if (word === 0n) continue;
    view.setBigInt64(0, word);
    larger.add(bytes);
  }
  return larger;
}

/** The set that lives in this memory. */
export function joinSharedSet(memory: SharedArrayBuffer): SharedSet {
  const words = new BigInt64Array(memory);
  const capacity = words.length - 1;

  /** The word that holds the fingerprint, or the free one where it belongs; -1 when all are taken. */
  function place(fingerprint: bigint): number {
    let at = Number(BigInt.asUintN(32, fingerprint)) % capacity;
    for (let tries = 0; tries < capacity; tries += 1) {
      const word = Atomics.load(words, at + 1);
      if (word === fingerprint || word === 0n) return at + 1;
      at = (at + 1) % capacity;
    }
    return -1;
  }

  function add(hash: Uint8Array): boolean {
    const fingerprint = fingerprintOf(hash);
    for (;;) {
      const at = place(fingerprint);
      if (at === -1) return true;
      const before = Atomics.compareExchange(words, at, 0n, fingerprint);
      if (before === fingerprint) return false;
      if (before !== 0n) continue;
      Atomics.add(words, 0, 1n);
      return true;
    }
  }

  return {
    memory,
    add,
    has(hash) {
      const fingerprint = fingerprintOf(hash);
      const at = place(fingerprint);
      return at !== -1 && Atomics.load(words, at) === fingerprint;
    },
    isFull: () => Number(Atomics.load(words, 0)) > capacity * FULL_SHARE,
  };
}

/** The first 8 bytes; hashes are keyed, so nobody can choose them. */
function fingerprintOf(hash: Uint8Array): bigint {
  const word = new DataView(hash.buffer, hash.byteOffset, WORD_BYTES).getBigInt64(0);
  return word === 0n ? 1n : word;
}
