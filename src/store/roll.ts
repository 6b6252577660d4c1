// The inner loop of split: rolls the gear hash over bytes until it falls below a limit. In WebAssembly, three times as fast as the same loop in
// JavaScript, copying included (3.1 and 1.0 GB/s, bench/split.bench.ts); in JavaScript where a runtime has no WebAssembly. Both cut alike.
import { ROLL_MODULE } from './wasm/roll-module.ts';

export interface Roller {
  /** The hash so far; whoever begins a chunk sets it to 0. */
  hash: number;
  /** Takes piece[from, to) into the hash; the index behind the first byte that brings it below `limit` (0: none), or -1: all was taken in. */
  roll(piece: Uint8Array, from: number, to: number, limit: number): number;
}

/** The layout that wasm/roll.as names. */
const HASH_WORD = 256;
const WINDOW_AT = 2048;

interface RollExports {
  memory: { readonly buffer: ArrayBuffer };
  roll(from: number, to: number, limit: number): number;
}
/** What of it is used here: TypeScript's own types of it come with those of browsers only. */
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object) => { exports: RollExports };
};

/** One instance per thread: a call is synchronous and brings gear and hash along, so files being split at the same time share it. */
let shared:
  | { roll: RollExports['roll']; words: Uint32Array; bytes: Uint8Array; gear: Uint32Array | undefined }
  | undefined;

function instance(): NonNullable<typeof shared> {
  if (shared === undefined) {
    const module = new WebAssembly.Module(Buffer.from(ROLL_MODULE, 'base64'));
    const { memory, roll } = new WebAssembly.Instance(module).exports;
    shared = { roll, words: new Uint32Array(memory.buffer), bytes: new Uint8Array(memory.buffer), gear: undefined };
  }
  return shared;
}

export function openWasmRoller(gear: Uint32Array): Roller {
  const wasm = instance();
  const windowBytes = wasm.bytes.length - WINDOW_AT;
  const roller: Roller = {
    hash: 0,
    roll(piece, from, to, limit) {
      if (wasm.gear !== gear) wasm.words.set(gear);
      wasm.gear = gear;
      wasm.words[HASH_WORD] = roller.hash;
      let end = -1;
      for (let at = from; at < to && end === -1; at += windowBytes) {
        const window = piece.subarray(at, Math.min(to, at + windowBytes));
        wasm.bytes.set(window, WINDOW_AT);
        const found = wasm.roll(WINDOW_AT, WINDOW_AT + window.length, limit);
        if (found !== 0) end = at + found - WINDOW_AT;
      }
      roller.hash = wasm.words[HASH_WORD];
      return end;
    },
  };
  return roller;
}

export function openScriptRoller(gear: Uint32Array): Roller {
  const roller: Roller = {
    hash: 0,
    roll(piece, from, to, limit) {
      let { hash } = roller;
      for (let index = from; index < to; index += 1) {
        hash = ((hash << 1) + (gear[piece[index] as number] as number)) >>> 0;
        if (hash < limit) {
          roller.hash = hash;
          return index + 1;
        }
      }
      roller.hash = hash;
      return -1;
    },
  };
  return roller;
}

/** The faster one that this runtime has. `node --jitless` has no WebAssembly. */
export const openRoller: (gear: Uint32Array) => Roller =
  typeof WebAssembly === 'object' ? openWasmRoller : openScriptRoller;
