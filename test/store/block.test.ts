import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { CID } from 'multiformats/cid';
import {
  blockIdFromBytes,
  blockIdFromDigest,
  blockIdOf,
  blockIdToBytes,
  BLOCK_ID_BYTES,
  checkBlock,
  MAX_BLOCK_BYTES,
  parseBlockId,
} from '../../src/store/block.ts';
import { flipEach, testBytes, withCode } from '../suites/content.ts';

const digest = fc.uint8Array({ minLength: 32, maxLength: 32 });

test('text, bytes and digest of an id lead to each other, as multiformats reads them', () => {
  fc.assert(
    fc.property(digest, (bytes) => {
      const id = blockIdFromDigest(bytes);
      assert.equal(id.length, 59);
      assert.equal(parseBlockId(id), id);
      assert.equal(blockIdFromBytes(blockIdToBytes(id)), id);
      const cid = CID.parse(id);
      assert.deepEqual([cid.version, cid.code, cid.multihash.code], [1, 0x55, 0x1e]);
      assert.deepEqual(Buffer.from(cid.multihash.digest), Buffer.from(bytes));
    }),
  );
});

test('the blake3 of nothing is the one everybody knows', () => {
  const known = 'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262';
  assert.equal(blockIdOf(new Uint8Array()), blockIdFromDigest(Buffer.from(known, 'hex')));
});

test('bytes that are no id are refused', () => {
  const bytes = blockIdToBytes(blockIdOf(Buffer.from('x')));
  for (let at = 0; at < 4; at += 1) {
    const altered = bytes.slice();
    altered[at] = (altered[at] as number) ^ 1;
    assert.throws(() => blockIdFromBytes(altered), withCode('BAD_BLOCK'));
  }
  for (const length of [0, BLOCK_ID_BYTES - 1, BLOCK_ID_BYTES + 1]) {
    assert.throws(() => blockIdFromBytes(Buffer.concat([bytes, bytes]).subarray(0, length)), withCode('BAD_BLOCK'));
  }
});

test('text that is no id, or not the one spelling of one, is refused', () => {
  const id = blockIdOf(Buffer.from('x'));
  for (const text of ['', 'b', id.slice(0, -1), `${id}a`, id.toUpperCase(), ` ${id}`, `${id}\n`, `z${id.slice(1)}`]) {
    assert.throws(() => parseBlockId(text), withCode('BAD_BLOCK'));
  }
});

test('a character of an id changed gives another id or is refused, never a second text for one id', () => {
  const id = blockIdOf(Buffer.from('x'));
  const alphabet = 'abcdefghijklmnopqrstuvwxyz234567';
  for (let at = 0; at < id.length; at += 1) {
    for (const character of alphabet) {
      const text = id.slice(0, at) + character + id.slice(at + 1);
      let parsed;
      try {
        parsed = parseBlockId(text);
      } catch (error) {
        withCode('BAD_BLOCK')(error);
        continue;
      }
      assert.equal(blockIdFromBytes(blockIdToBytes(parsed)), text);
    }
  }
});

test('a block is checked against its id and the largest size', () => {
  const bytes = testBytes(1000, 1);
  const id = blockIdOf(bytes);
  checkBlock(id, bytes);
  flipEach(bytes, (altered) => assert.throws(() => checkBlock(id, altered), withCode('BAD_BLOCK')), 97);
  assert.throws(() => checkBlock(id, bytes.subarray(1)), withCode('BAD_BLOCK'));
  const large = Buffer.alloc(MAX_BLOCK_BYTES);
  checkBlock(blockIdOf(large), large);
  const tooLarge = Buffer.alloc(MAX_BLOCK_BYTES + 1);
  assert.throws(() => checkBlock(blockIdOf(tooLarge), tooLarge), withCode('BAD_BLOCK'));
});
