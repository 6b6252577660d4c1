// The inner loop of split.ts in AssemblyScript, built into roll-module.ts by test/tools/build-roll.ts. Sixteen steps are written
// out: a loop of one step each is 1.5 times as slow. Layout of the memory (two pages, never grown):
//      0  gear table, 256 little-endian u32
//   1024  the hash, u32: in and out
//   2048  the window of bytes
const HASH_AT: usize = 1024;

/** Rolls over the bytes [from, to) of the memory; gives the address behind the first byte that brings the hash below `limit`, or 0. */
export function roll(from: usize, to: usize, limit: u32): usize {
  let hash = load<u32>(HASH_AT);
  let at = from;
  const unrolledTo = to - ((to - from) & 15);
  while (at < unrolledTo) {
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 0) << 2);
    if (hash < limit) return end(hash, at + 1);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 1) << 2);
    if (hash < limit) return end(hash, at + 2);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 2) << 2);
    if (hash < limit) return end(hash, at + 3);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 3) << 2);
    if (hash < limit) return end(hash, at + 4);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 4) << 2);
    if (hash < limit) return end(hash, at + 5);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 5) << 2);
    if (hash < limit) return end(hash, at + 6);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 6) << 2);
    if (hash < limit) return end(hash, at + 7);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 7) << 2);
    if (hash < limit) return end(hash, at + 8);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 8) << 2);
    if (hash < limit) return end(hash, at + 9);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 9) << 2);
    if (hash < limit) return end(hash, at + 10);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 10) << 2);
    if (hash < limit) return end(hash, at + 11);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 11) << 2);
    if (hash < limit) return end(hash, at + 12);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 12) << 2);
    if (hash < limit) return end(hash, at + 13);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 13) << 2);
    if (hash < limit) return end(hash, at + 14);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 14) << 2);
    if (hash < limit) return end(hash, at + 15);
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at, 15) << 2);
    if (hash < limit) return end(hash, at + 16);
    at += 16;
  }
  while (at < to) {
    hash = (hash << 1) + load<u32>(<usize>load<u8>(at) << 2);
    at += 1;
    if (hash < limit) return end(hash, at);
  }
  store<u32>(HASH_AT, hash);
  return 0;
}

@inline
function end(hash: u32, at: usize): usize {
  store<u32>(HASH_AT, hash);
  return at;
}
