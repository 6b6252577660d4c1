import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encode } from '@ipld/dag-cbor';
import * as fc from 'fast-check';
import { blockIdFromDigest, MAX_BLOCK_BYTES } from '../../src/store/block.ts';
import {
  compareVersions,
  decodeEntry,
  encodeEntry,
  openSegment,
  sealSegment,
  SEGMENT_MAX_ENTRIES,
  type CatalogEntry,
  type Segment,
} from '../../src/store/catalog.ts';
import { compress } from '../../src/store/compress.ts';
import { KIND_CATALOG, KIND_MANIFEST, sealNamed } from '../../src/store/seal.ts';
import { flipEach, OTHER_KEYS, readsOr, testBytes, TEST_KEYS, withCode } from '../suites/content.ts';

const bytesOf = (length: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ minLength: length, maxLength: length });
const plainObject = { noNullPrototype: true } as const;
const count = fc.nat({ max: MAX_BLOCK_BYTES });
const wellFormed = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 60 });
const device = fc.string({ unit: fc.constantFrom('1', '2', 'D', 'K', 'o', 'W'), minLength: 1, maxLength: 52 });
/** As what is read from strangers comes: no prototype, so no key means anything but itself. */
const bare = <T>(map: Record<string, T>): Record<string, T> =>
  Object.assign(Object.create(null) as Record<string, T>, map);
const oddKey = fc.constantFrom('constructor', 'prototype', 'toString', 'hasOwnProperty');
const versions = fc.dictionary(fc.oneof(device, oddKey), fc.nat(), { maxKeys: 4 }).map(bare);
const entries: fc.Arbitrary<CatalogEntry> = fc.record(
  {
    fileId: bytesOf(16),
    path: wellFormed,
    kind: fc.constantFrom('file', 'folder', 'link'),
    root: fc.record({ block: bytesOf(32).map(blockIdFromDigest), offset: count, length: count }, plainObject),
    sizeBytes: fc.maxSafeNat(),
    mode: fc.nat({ max: 0o7777 }),
    mtimeUs: fc.maxSafeInteger(),
    birthtimeUs: fc.maxSafeInteger(),
    link: wellFormed,
    xattrs: fc.dictionary(fc.oneof(wellFormed, oddKey), fc.uint8Array({ maxLength: 50 }), { maxKeys: 3 }).map(bare),
    deletedUs: fc.maxSafeInteger(),
    versions,
  },
  { noNullPrototype: true, requiredKeys: ['fileId', 'path', 'kind', 'sizeBytes', 'mode', 'mtimeUs', 'versions'] },
);
const segments: fc.Arbitrary<Segment> = fc.record(
  {
    device,
    incarnation: bytesOf(8),
    seq: fc.maxSafeNat(),
    entries: fc.array(entries, { maxLength: 6 }),
  },
  plainObject,
);

const ENTRY: CatalogEntry = {
  fileId: testBytes(16, 1),
  path: 'photos/sea – 1.jpg',
  kind: 'file',
  root: { block: blockIdFromDigest(testBytes(32, 2)), offset: 5, length: 100 },
  sizeBytes: 123_456,
  mode: 0o644,
  mtimeUs: 1_700_000_000_123_456,
  versions: { '12D3KooWa': 1 },
};
const SEGMENT: Segment = { device: '12D3KooWa', incarnation: testBytes(8, 3), seq: 7, entries: [ENTRY] };

test('decodeEntry is the inverse of encodeEntry', () => {
  fc.assert(fc.property(entries, (entry) => assert.deepEqual(decodeEntry(encodeEntry(entry)), entry)));
});

test('openSegment is the inverse of sealSegment', async () => {
  await fc.assert(
    fc.asyncProperty(segments, async (segment) => {
      const { bytes } = await sealSegment(segment, TEST_KEYS);
      assert.deepEqual(openSegment(bytes, TEST_KEYS), segment);
    }),
  );
});

test('equal segments are equal blocks; names do not show in them', async () => {
  const sealed = await sealSegment(SEGMENT, TEST_KEYS);
  assert.deepEqual(await sealSegment(structuredClone(SEGMENT), TEST_KEYS), sealed);
  assert.equal(sealed.bytes.indexOf('photos'), -1);
});

test('every changed byte of a segment block is noticed', async () => {
  const { bytes } = await sealSegment(SEGMENT, TEST_KEYS);
  flipEach(bytes, (altered, at) => {
    assert.throws(
      () => openSegment(altered, TEST_KEYS),
      withCode(at === 0 ? 'NEWER_VERSION' : 'BAD_BLOCK', 'BAD_BLOCK'),
    );
  });
  assert.throws(() => openSegment(bytes, OTHER_KEYS), withCode('BAD_BLOCK'));
  const manifest = sealNamed(KIND_MANIFEST, await compress(testBytes(100, 1)), TEST_KEYS.current);
  assert.throws(() => openSegment(manifest.bytes, TEST_KEYS), withCode('BAD_BLOCK'));
});

/** A segment block, well sealed, that holds any value. */
const sealedValue = async (value: unknown): Promise<Uint8Array> =>
  sealNamed(KIND_CATALOG, await compress(encode(value)), TEST_KEYS.current).bytes;

const encodedEntry = {
  fileId: testBytes(16, 1),
  path: 'a',
  kind: 'file',
  size: 1,
  mode: 0o644,
  mtime: 1,
  versions: { a: 1 },
};
const encodedSegment = { v: 1, device: 'd', incarnation: testBytes(8, 3), seq: 1, entries: [encodedEntry] };

test('segments that break the schema are BAD_RECORD', async () => {
  assert.equal(openSegment(await sealedValue(encodedSegment), TEST_KEYS).entries.length, 1);
  const cases: Record<string, unknown> = {
    null: null,
    list: [],
    'version 0': { ...encodedSegment, v: 0 },
    'no version': { ...encodedSegment, v: null },
    'a field more': { ...encodedSegment, more: 1 },
    'short incarnation': { ...encodedSegment, incarnation: testBytes(7, 1) },
    'negative seq': { ...encodedSegment, seq: -1 },
    'long device': { ...encodedSegment, device: 'd'.repeat(129) },
    'too many entries': {
      ...encodedSegment,
      entries: Array.from({ length: SEGMENT_MAX_ENTRIES + 1 }, () => encodedEntry),
    },
  };
  for (const [name, value] of Object.entries(cases)) {
    const sealed = await sealedValue(value);
    assert.throws(() => openSegment(sealed, TEST_KEYS), withCode('BAD_RECORD'), name);
  }
  const newer = await sealedValue({ v: 2, other: true });
  assert.throws(() => openSegment(newer, TEST_KEYS), withCode('NEWER_VERSION'));
  const noCbor = sealNamed(KIND_CATALOG, await compress(Buffer.alloc(10, 0xff)), TEST_KEYS.current);
  assert.throws(() => openSegment(noCbor.bytes, TEST_KEYS), withCode('BAD_RECORD'));
});

test('entries that break the schema are BAD_RECORD', () => {
  const broken: Record<string, unknown> = {
    'short fileId': { fileId: testBytes(15, 1) },
    'no path': { path: '' },
    'long path': { path: 'é'.repeat(2049) },
    'kind unknown': { kind: 'socket' },
    'root of two': { root: [Buffer.alloc(36), 1] },
    'root beyond a block': { root: [Buffer.alloc(36), 0, MAX_BLOCK_BYTES + 1] },
    'negative size': { size: -1 },
    'fractional size': { size: 0.5 },
    'wide mode': { mode: 0o10000 },
    'huge mtime': { mtime: 2 ** 60 },
    'text mtime': { mtime: '1' },
    'long link': { link: 'x'.repeat(4097) },
    'too many xattrs': { xattrs: Object.fromEntries(Array.from({ length: 65 }, (_, n) => [`x${n}`, Buffer.alloc(1)])) },
    'large xattr': { xattrs: { x: Buffer.alloc(65_537) } },
    'negative version': { versions: { a: -1 } },
    'versions list': { versions: [1] },
    'a field more': { more: 1 },
  };
  for (const [name, field] of Object.entries(broken)) {
    const bytes = encode({ ...encodedEntry, ...(field as object) });
    assert.throws(() => decodeEntry(bytes), withCode('BAD_RECORD'), name);
  }
});

test('a root that names no block is BAD_RECORD', () => {
  assert.throws(() => decodeEntry(encode({ ...encodedEntry, root: [Buffer.alloc(36), 0, 1] })), withCode('BAD_RECORD'));
});

test('a map key __proto__ changes no prototype', () => {
  // {"versions": {"__proto__": 1}} by hand: JavaScript objects cannot say it.
  const bytes = Buffer.from(encode({ ...encodedEntry, versions: { '0123456!!': 1 } }));
  const at = bytes.indexOf('0123456!!');
  bytes.write('__proto__', at);
  const { versions: read } = decodeEntry(bytes);
  assert.equal(Object.getPrototypeOf(read), null);
  assert.deepEqual(Object.entries(read), [['__proto__', 1]]);
  assert.equal(compareVersions(read, {}), 'newer');
  assert.equal(compareVersions({}, read), 'older');
});

test('an entry with a byte changed, or any bytes, is read or refused, never another error', () => {
  flipEach(encodeEntry(ENTRY), (altered) => readsOr(['BAD_RECORD', 'NEWER_VERSION'], () => decodeEntry(altered)));
  const any = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.jsonValue().map((value) => encode(value)),
  );
  fc.assert(fc.property(any, (bytes) => void readsOr(['BAD_RECORD', 'NEWER_VERSION'], () => decodeEntry(bytes))));
});

test('version vectors: equal, newer, older, concurrent, and turned around', () => {
  assert.equal(compareVersions({}, {}), 'equal');
  assert.equal(compareVersions({ a: 1, b: 0 }, { a: 1 }), 'equal');
  assert.equal(compareVersions({ a: 2 }, { a: 1 }), 'newer');
  assert.equal(compareVersions({ a: 1 }, { a: 1, b: 1 }), 'older');
  assert.equal(compareVersions({ a: 1 }, { b: 1 }), 'concurrent');
  const turned = { equal: 'equal', newer: 'older', older: 'newer', concurrent: 'concurrent' } as const;
  const few = fc.dictionary(fc.constantFrom('a', 'b', 'c'), fc.nat({ max: 3 }));
  fc.assert(fc.property(few, few, (a, b) => assert.equal(compareVersions(a, b), turned[compareVersions(b, a)])));
});
