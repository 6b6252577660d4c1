import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encode } from '@ipld/dag-cbor';
import * as fc from 'fast-check';
import { blockIdFromDigest, blockIdToBytes, MAX_BLOCK_BYTES } from '../../src/store/block.ts';
import {
  decodeExtents,
  decodeManifest,
  encodeExtents,
  encodeManifest,
  extentsOf,
  INLINE_MAX_BYTES,
  MANIFEST_MAX_BYTES,
  openContentHasher,
  PAGE_EXTENTS,
  type Extent,
  type Manifest,
  type Page,
} from '../../src/store/manifest.ts';
import { keyedHash } from '../../src/store/secrets.ts';
import { flipEach, readsOr, testBytes, TEST_KEYS, withCode } from '../suites/content.ts';

const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 });
const plainObject = { noNullPrototype: true } as const;
const place = { block: bytes32.map(blockIdFromDigest), offset: fc.nat({ max: MAX_BLOCK_BYTES }) };
const extent: fc.Arbitrary<Extent> = fc.record(
  { ...place, length: fc.nat({ max: MAX_BLOCK_BYTES }), key: bytes32 },
  plainObject,
);
const page: fc.Arbitrary<Page> = fc.record(
  {
    ...place,
    length: fc.nat({ max: MAX_BLOCK_BYTES }),
    size: fc.nat({ max: 2 ** 32 }),
  },
  plainObject,
);
const sum = (numbers: number[]): number => numbers.reduce((total, number) => total + number, 0);
const common = { contentHash: bytes32, average: fc.constantFrom(256 * 1024, 1024 * 1024) };
const manifests: fc.Arbitrary<Manifest> = fc.oneof(
  fc.record({ ...common, inline: fc.uint8Array({ maxLength: 500 }) }).map((m) => ({ ...m, size: m.inline.length })),
  fc
    .record({ ...common, extents: fc.array(extent, { maxLength: 8 }) })
    .map((m) => ({ ...m, size: sum(m.extents.map(({ length }) => length)) })),
  fc
    .record({ ...common, pages: fc.array(page, { maxLength: 8 }) })
    .map((m) => ({ ...m, size: sum(m.pages.map(({ size }) => size)) })),
);

/** An extent that follows from its number. */
const extentNumber = (number: number, length: number): Extent => ({
  block: blockIdFromDigest(testBytes(32, number)),
  offset: 0,
  length,
  key: Uint8Array.from(testBytes(32, number + 1e6)),
});

const isBad = withCode('BAD_MANIFEST');

test('decodeManifest is the inverse of encodeManifest', () => {
  fc.assert(fc.property(manifests, (manifest) => assert.deepEqual(decodeManifest(encodeManifest(manifest)), manifest)));
});

test('decodeExtents is the inverse of encodeExtents', () => {
  const list = fc.array(extent, { maxLength: 20 });
  fc.assert(fc.property(list, (extents) => assert.deepEqual(decodeExtents(encodeExtents(extents)), extents)));
});

test('a full page stays under 64 KiB, and one extent more is refused', () => {
  const largest = { offset: MAX_BLOCK_BYTES, length: MAX_BLOCK_BYTES };
  const extents = Array.from({ length: PAGE_EXTENTS }, (_, n) => ({ ...extentNumber(n, 1), ...largest }));
  assert.ok(encodeExtents(extents).length < 64 * 1024);
  assert.equal(decodeExtents(encodeExtents(extents)).length, PAGE_EXTENTS);
  assert.throws(() => decodeExtents(encodeExtents([...extents, extentNumber(0, 1)])), isBad);
});

test('the pages of a 16 TiB file fit a manifest', () => {
  const size = 1024 * 1024 * PAGE_EXTENTS;
  const { block } = extentNumber(1, 1);
  const pages = Array.from({ length: 2 ** 44 / size }, () => ({ block, offset: 0, length: 65_535, size }));
  const encoded = encodeManifest({ size: 2 ** 44, contentHash: testBytes(32, 1), average: 1024 * 1024, pages });
  assert.ok(encoded.length <= MANIFEST_MAX_BYTES, `${encoded.length}`);
  assert.equal(decodeManifest(encoded).size, 2 ** 44);
});

test('equal content gives equal bytes, whatever the order of the fields', () => {
  const manifest: Manifest = { size: 3, contentHash: testBytes(32, 1), average: 1, inline: Buffer.from('abc') };
  const turned: Manifest = { inline: Buffer.from('abc'), average: 1, contentHash: testBytes(32, 1), size: 3 };
  assert.deepEqual(encodeManifest(manifest), encodeManifest(turned));
});

const fields = { v: 1, size: 3, hash: testBytes(32, 1), average: 262_144 };
const encodedExtent: unknown[] = [blockIdToBytes(extentNumber(1, 3).block), 0, 3, testBytes(32, 2)];

/** An encoded extent with one of its fields replaced. */
const extentWith = (index: number, value: unknown): unknown[] => encodedExtent.with(index, value);

test('what is no manifest is BAD_MANIFEST', () => {
  const inline = Buffer.from('abc');
  const cases: Record<string, unknown> = {
    null: null,
    list: [],
    text: 'x',
    'no version': { ...fields, v: null, inline },
    'version 0': { ...fields, v: 0, inline },
    'version text': { ...fields, v: '1', inline },
    'no content': fields,
    'two contents': { ...fields, inline, extents: [encodedExtent] },
    'a field more': { ...fields, inline, name: 'x' },
    'another size': { ...fields, size: 4, inline },
    'negative size': { ...fields, size: -3, inline },
    'fractional size': { ...fields, size: 3.5, inline },
    'huge size': { ...fields, size: 2 ** 60, inline },
    'short hash': { ...fields, hash: testBytes(31, 1), inline },
    'text hash': { ...fields, hash: 'x', inline },
    'negative average': { ...fields, average: -1, inline },
    'inline text': { ...fields, inline: 'abc' },
    'inline too large': { ...fields, size: INLINE_MAX_BYTES + 1, inline: Buffer.alloc(INLINE_MAX_BYTES + 1) },
    'extents no list': { ...fields, extents: 'abc' },
    'extent no list': { ...fields, extents: [{ 0: 1 }] },
    'extent of three': { ...fields, extents: [encodedExtent.slice(0, 3)] },
    'no block': { ...fields, extents: [extentWith(0, Buffer.alloc(36))] },
    'block text': { ...fields, extents: [extentWith(0, extentNumber(1, 3).block)] },
    'negative offset': { ...fields, extents: [extentWith(1, -1)] },
    'offset beyond a block': { ...fields, extents: [extentWith(1, MAX_BLOCK_BYTES + 1)] },
    'length beyond a block': { ...fields, size: MAX_BLOCK_BYTES + 1, extents: [extentWith(2, MAX_BLOCK_BYTES + 1)] },
    'short key': { ...fields, extents: [extentWith(3, testBytes(16, 1))] },
    'page with a key': { ...fields, pages: [encodedExtent] },
    'page of negative size': { ...fields, pages: [extentWith(3, -3)] },
    'too many extents': { ...fields, size: 513 * 3, extents: Array.from({ length: 513 }, () => encodedExtent) },
  };
  for (const [name, value] of Object.entries(cases)) {
    assert.throws(() => decodeManifest(encode(value)), isBad, name);
  }
  assert.equal(decodeManifest(encode({ ...fields, extents: [encodedExtent] })).size, 3);
});

test('a newer version is NEWER_VERSION, whatever else it holds', () => {
  assert.throws(() => decodeManifest(encode({ v: 2, anything: [] })), withCode('NEWER_VERSION'));
});

test('bytes that are not canonical DAG-CBOR are BAD_MANIFEST', () => {
  const good = Buffer.from(encode({ ...fields, inline: Buffer.from('abc') }));
  for (let length = 0; length < good.length; length += 1) {
    assert.throws(() => decodeManifest(good.subarray(0, length)), isBad);
  }
  assert.throws(() => decodeManifest(Buffer.concat([good, Buffer.of(0)])), isBad);
  // A map of indefinite length, a key twice, nesting without end, a length that no memory has.
  assert.throws(() => decodeManifest(Buffer.from('bfff', 'hex')), isBad);
  assert.throws(() => decodeManifest(Buffer.from('a2617601617601', 'hex')), isBad);
  assert.throws(() => decodeManifest(Buffer.alloc(1_000_000, 0x81)), isBad);
  assert.throws(() => decodeManifest(Buffer.from('5b00ffffffffffffff', 'hex')), isBad);
  assert.throws(() => decodeManifest(Buffer.from('9b00ffffffffffffff', 'hex')), isBad);
  assert.throws(() => decodeManifest(Buffer.alloc(MANIFEST_MAX_BYTES + 1, 0x80)), isBad);
});

test('a manifest with a byte changed is refused or consistent, never another error', () => {
  const extents = [extentNumber(1, 1000), extentNumber(2, 2000)];
  const inputs: Manifest[] = [
    { size: 3000, contentHash: testBytes(32, 1), average: 262_144, extents },
    { size: 300, contentHash: testBytes(32, 1), average: 262_144, inline: testBytes(300, 2) },
  ];
  for (const manifest of inputs) {
    flipEach(encodeManifest(manifest), (altered) => {
      readsOr(['BAD_MANIFEST', 'NEWER_VERSION'], () =>
        assert.deepEqual(Buffer.from(encodeManifest(decodeManifest(altered))), altered),
      );
    });
  }
  flipEach(encodeExtents(extents), (altered) => readsOr(['BAD_MANIFEST'], () => decodeExtents(altered)));
});

test('any bytes at all are read or refused', () => {
  const any = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.jsonValue().map((value) => encode(value)),
  );
  fc.assert(fc.property(any, (bytes) => void readsOr(['BAD_MANIFEST', 'NEWER_VERSION'], () => decodeManifest(bytes))));
  fc.assert(fc.property(any, (bytes) => void readsOr(['BAD_MANIFEST'], () => decodeExtents(bytes))));
});

test('extentsOf gives all extents in order and loads one page at a time', async () => {
  const lists = [3, PAGE_EXTENTS, 1].map((count, p) =>
    Array.from({ length: count }, (_, n) => extentNumber(p * 1000 + n, 7)),
  );
  const encoded = lists.map(encodeExtents);
  const pages = lists.map((list, p) => ({
    block: extentNumber(p, 1).block,
    offset: 0,
    length: 1,
    size: list.length * 7,
  }));
  const base = { contentHash: testBytes(32, 1), average: 1 };
  const loaded: number[] = [];
  const load = async (wanted: Page): Promise<Uint8Array> => {
    const index = pages.findIndex(({ block }) => block === wanted.block);
    loaded.push(index);
    return encoded[index] as Uint8Array;
  };
  const manifest: Manifest = { ...base, size: sum(pages.map(({ size }) => size)), pages };
  const walk = extentsOf(manifest, load);
  await walk.next();
  assert.deepEqual(loaded, [0]);
  const rest = await Array.fromAsync(walk);
  assert.deepEqual([lists[0]?.[0], ...rest], lists.flat());
  assert.deepEqual(loaded, [0, 1, 2]);
  assert.deepEqual(await Array.fromAsync(extentsOf({ ...base, size: 0, inline: Buffer.alloc(0) }, load)), []);
  const lying: Manifest = { ...base, size: 22, pages: [{ ...(pages[0] as Page), size: 22 }] };
  await assert.rejects(Array.fromAsync(extentsOf(lying, load)), isBad);
});

test('contentHash depends on bytes, lengths and order', () => {
  const digest = (...parts: string[]): string => {
    const hasher = openContentHasher(TEST_KEYS.contentHash);
    for (const part of parts) hasher.add(part.length, keyedHash(TEST_KEYS.plainHash, Buffer.from(part)));
    return Buffer.from(hasher.digest()).toString('hex');
  };
  assert.equal(digest('ab', 'c'), digest('ab', 'c'));
  assert.equal(new Set([digest(), digest('ab', 'c'), digest('c', 'ab'), digest('a', 'bc'), digest('abc')]).size, 5);
});
