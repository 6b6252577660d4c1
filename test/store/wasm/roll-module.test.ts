import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ROLL_MODULE } from '../../../src/store/wasm/roll-module.ts';
import { buildRoll } from '../../tools/build-roll.ts';

test('the committed module is what its source builds into, byte for byte', async () => {
  assert.equal(Buffer.from(await buildRoll()).toString('base64'), ROLL_MODULE);
});
