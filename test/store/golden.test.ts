// The golden fixtures of every released format version: what was written once is written the same way, and can be read for ever.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { blockIdOf, parseBlockId } from '../../src/store/block.ts';
import { decodeEntry, openSegment } from '../../src/store/catalog.ts';
import { expand } from '../../src/store/compress.ts';
import { decodeExtents, decodeManifest } from '../../src/store/manifest.ts';
import { KIND_CATALOG, KIND_MANIFEST, sealData, sealNamed, unsealData, unsealNamed } from '../../src/store/seal.ts';
import { openRoot } from '../../src/store/solid.ts';
import { decodeStub } from '../../src/store/stub.ts';
import {
  ENTRIES,
  FIXTURES,
  makeFixtures,
  MANIFESTS,
  OWN,
  PAGE,
  RAW_PLAIN,
  SEGMENT,
  STUB,
  ZSTD_PLAIN,
} from '../fixtures/make.ts';
import { TEST_KEYS } from '../suites/content.ts';

const fixture = (name: string): Promise<Buffer> => readFile(new URL(name, FIXTURES));

interface Values {
  dataBlock: string;
  dataKey: string;
  manifestRoots: string[];
  segmentBlock: string;
  [name: string]: unknown;
}

const values = async (): Promise<Values> => JSON.parse((await fixture('values.json')).toString()) as Values;

/** Their bytes hold zstd's output, which another zstd may choose differently; their frames are compared below. */
const WITH_ZSTD = new Set(['frame-zstd.bin', 'manifest-block.bin', 'segment-block.bin', 'values.json']);

test('what version 1 wrote is written the same way today', async () => {
  for (const [name, bytes] of await makeFixtures()) {
    if (!WITH_ZSTD.has(name)) assert.deepEqual(Buffer.from(bytes), await fixture(name), name);
  }
});

test('keys, gear table, hashes and cut points are those of version 1', async () => {
  const made = JSON.parse(Buffer.from((await makeFixtures()).get('values.json') as Uint8Array).toString()) as Values;
  const kept = await values();
  const { manifestRoots: _, segmentBlock: __, ...exact } = kept;
  for (const [name, value] of Object.entries(exact)) assert.deepEqual(made[name], value, name);
});

test('frames of version 1 expand', async () => {
  assert.deepEqual(Buffer.from(expand(await fixture('frame-raw.bin'))), RAW_PLAIN);
  const packed = await fixture('frame-zstd.bin');
  assert.equal(packed[0], 1);
  assert.deepEqual(Buffer.from(expand(packed)), ZSTD_PLAIN);
});

test('the data block of version 1 opens with its key and is sealed the same way', async () => {
  const { dataBlock, dataKey } = await values();
  const bytes = await fixture('data-block.bin');
  assert.equal(blockIdOf(bytes), dataBlock);
  const frame = unsealData(bytes, Buffer.from(dataKey, 'hex'));
  assert.deepEqual(Buffer.from(expand(frame)), RAW_PLAIN);
  assert.deepEqual(sealData(frame, TEST_KEYS.current), { id: dataBlock, bytes, key: Buffer.from(dataKey, 'hex') });
});

test('manifests of version 1 are read', async () => {
  for (const form of ['inline', 'extents', 'pages'] as const) {
    assert.deepEqual(decodeManifest(await fixture(`manifest-${form}.cbor`)), MANIFESTS[form]);
  }
  assert.deepEqual(decodeExtents(await fixture('page.cbor')), PAGE);
});

test('the manifest block of version 1 opens by its roots and is sealed the same way', async () => {
  const bytes = await fixture('manifest-block.bin');
  const { manifestRoots } = await values();
  for (const [index, form] of (['inline', 'extents', 'pages'] as const).entries()) {
    const [block = '', offset, length] = (manifestRoots[index] ?? '').split(' ');
    assert.equal(blockIdOf(bytes), block);
    const root = { block: parseBlockId(block), offset: Number(offset), length: Number(length) };
    assert.deepEqual(decodeManifest(openRoot(root, bytes, TEST_KEYS)), MANIFESTS[form]);
  }
  const frame = unsealNamed(KIND_MANIFEST, bytes, TEST_KEYS);
  assert.deepEqual(sealNamed(KIND_MANIFEST, frame, TEST_KEYS.current).bytes, bytes);
});

test('the segment block of version 1 opens and is sealed the same way', async () => {
  const bytes = await fixture('segment-block.bin');
  assert.equal(blockIdOf(bytes), (await values()).segmentBlock);
  assert.deepEqual(openSegment(bytes, TEST_KEYS), SEGMENT);
  const frame = unsealNamed(KIND_CATALOG, bytes, TEST_KEYS);
  assert.deepEqual(sealNamed(KIND_CATALOG, frame, TEST_KEYS.current).bytes, bytes);
});

test('entries and the stub of version 1 are read', async () => {
  assert.deepEqual(decodeEntry(await fixture('entry-file.cbor')), ENTRIES[0]);
  assert.deepEqual(decodeEntry(await fixture('entry-link.cbor')), ENTRIES[1]);
  assert.deepEqual(decodeStub(await fixture('stub.f'), TEST_KEYS, OWN), STUB);
});
