// How fast content is split: the roller in WebAssembly and in JavaScript, the whole of split on pieces as a file stream gives them, and
// memcpy as the limit that copying sets. One JSON line each; medians of alternated runs.
//   node bench/split.bench.ts
import { createCipheriv } from 'node:crypto';
import { openScriptRoller, openWasmRoller } from '../src/store/roll.ts';
import { openCutter, split, SPLIT_LARGE, type Cutter } from '../src/store/split.ts';
import { contentKeysOf } from '../src/store/secrets.ts';

const RUNS = 7;
const TOTAL_BYTES: number = 256 * 1024 * 1024;
const PIECE_BYTES: number = 64 * 1024;

const data: Buffer = createCipheriv('aes-256-ctr', Buffer.alloc(32), Buffer.alloc(16)).update(
  Buffer.alloc(TOTAL_BYTES),
);
const { gear } = contentKeysOf({
  split: Buffer.alloc(32, 1),
  epochs: [{ id: Buffer.alloc(8), secret: Buffer.alloc(32) }],
});

function* pieces(): Generator<Uint8Array> {
  for (let at = 0; at < data.length; at += PIECE_BYTES) yield data.subarray(at, at + PIECE_BYTES);
}

async function* asFileStream(): AsyncGenerator<Uint8Array> {
  yield* pieces();
}

function cutAll(cutter: Cutter): void {
  for (const piece of pieces()) {
    for (let at = 0; at < piece.length;) at += cutter.cut(piece, at) ?? piece.length;
  }
}

const contenders: Record<string, () => void | Promise<void>> = {
  memcpy: () => {
    const window = new Uint8Array(PIECE_BYTES);
    for (const piece of pieces()) window.set(piece);
  },
  'cut, WebAssembly': () => cutAll(openCutter(gear, SPLIT_LARGE, openWasmRoller)),
  'cut, JavaScript': () => cutAll(openCutter(gear, SPLIT_LARGE, openScriptRoller)),
  'split, chunks copied together': async () => {
    for await (const chunk of split(gear, SPLIT_LARGE)(asFileStream())) void chunk;
  },
};

const rates = new Map<string, number[]>(Object.keys(contenders).map((name) => [name, []]));
for (let run = 0; run < RUNS; run += 1) {
  for (const [name, contender] of Object.entries(contenders)) {
    const startedNs = process.hrtime.bigint();
    await contender();
    rates.get(name)?.push(TOTAL_BYTES / Number(process.hrtime.bigint() - startedNs));
  }
}
for (const [name, all] of rates) {
  const median = all.toSorted((a, b) => a - b)[RUNS >> 1] ?? 0;
  console.log(
    JSON.stringify({ bench: 'split', name, gbPerS: Number(median.toFixed(2)), bytes: TOTAL_BYTES, runs: RUNS }),
  );
}
