import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { openRoller, openScriptRoller, openWasmRoller, type Roller } from '../../src/store/roll.ts';
import { openCutter, SPLIT_LARGE, SPLIT_SMALL, type SplitSizes } from '../../src/store/split.ts';
import { OTHER_KEYS, testBytes, TEST_KEYS } from '../suites/content.ts';

const { gear } = TEST_KEYS;
const TINY: SplitSizes = { minBytes: 64, averageBytes: 256, maxBytes: 1024 };

test('both rollers find the same ends and keep the same hash, call after call', () => {
  const calls = fc.array(fc.record({ length: fc.nat({ max: 5000 }), bits: fc.constantFrom(0, 18, 22, 24) }), {
    maxLength: 30,
  });
  fc.assert(
    fc.property(fc.nat(), calls, (seed, all) => {
      const piece = testBytes(150_000, seed);
      const wasm = openWasmRoller(gear);
      const script = openScriptRoller(gear);
      let at = 0;
      for (const { length, bits } of all) {
        const to = Math.min(piece.length, at + length);
        const limit = bits === 0 ? 0 : 2 ** bits;
        const end = wasm.roll(piece, at, to, limit);
        assert.equal(end, script.roll(piece, at, to, limit));
        assert.equal(wasm.hash, script.hash);
        at = end === -1 ? to : end;
      }
    }),
  );
});

test('an end is found wherever it lies in the window, and behind it', () => {
  const piece = testBytes(700_000, 3);
  const wasm = openWasmRoller(gear);
  const script = openScriptRoller(gear);
  for (let at = 0; at < piece.length;) {
    const end = wasm.roll(piece, at, piece.length, 2 ** 14);
    assert.equal(end, script.roll(piece, at, piece.length, 2 ** 14));
    assert.equal(wasm.hash, script.hash);
    at = end === -1 ? piece.length : end;
  }
});

function cutsOf(bytes: Uint8Array, sizes: SplitSizes, open: (gear: Uint32Array) => Roller): number[] {
  const cutter = openCutter(gear, sizes, open);
  const cuts: number[] = [];
  for (let at = 0; at < bytes.length;) {
    const taken = cutter.cut(bytes, at) ?? bytes.length - at;
    cuts.push(taken);
    at += taken;
  }
  return cuts;
}

test('cuts are the same with both rollers, for any bytes', () => {
  const runs = fc.array(fc.tuple(fc.nat({ max: 255 }), fc.boolean(), fc.nat({ max: 8000 })), { maxLength: 12 });
  fc.assert(
    fc.property(runs, (all) => {
      const parts = all.map(([value, random, length]) =>
        random ? testBytes(length, value) : Buffer.alloc(length, value),
      );
      const bytes = Buffer.concat(parts);
      assert.deepEqual(cutsOf(bytes, TINY, openWasmRoller), cutsOf(bytes, TINY, openScriptRoller));
    }),
  );
  for (const sizes of [SPLIT_SMALL, SPLIT_LARGE]) {
    const bytes = testBytes(24 * 1024 * 1024, 4);
    assert.deepEqual(cutsOf(bytes, sizes, openWasmRoller), cutsOf(bytes, sizes, openScriptRoller));
  }
});

test('files of two owners split in turns do not disturb each other', () => {
  const piece = testBytes(200_000, 5);
  const [own, other] = [openWasmRoller(gear), openWasmRoller(OTHER_KEYS.gear)];
  const [ownScript, otherScript] = [openScriptRoller(gear), openScriptRoller(OTHER_KEYS.gear)];
  for (let at = 0; at + 1000 <= piece.length; at += 1000) {
    assert.equal(own.roll(piece, at, at + 1000, 2 ** 20), ownScript.roll(piece, at, at + 1000, 2 ** 20));
    assert.equal(other.roll(piece, at, at + 1000, 2 ** 20), otherScript.roll(piece, at, at + 1000, 2 ** 20));
    assert.deepEqual([own.hash, other.hash], [ownScript.hash, otherScript.hash]);
  }
});

test('WebAssembly is what this runtime uses', () => {
  assert.equal(openRoller, openWasmRoller);
});
