import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { appendFileSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { crc32, inflateSync } from 'node:zlib';
import { bmpImage, pngImage } from '../../src/cli/demo-images.ts';
import { describe, differences, writeSample } from '../../src/cli/demo-sample.ts';
import { diskUsage } from '../../src/cli/disk-usage.ts';
import { newDir } from './cli-process.ts';

test('the sample is on disk as it is described, and a change is noticed', async (t) => {
  const folder = newDir(t, 'sample');
  const sample = await writeSample(folder, new AbortController().signal);
  assert.ok(sample.length >= 20);
  assert.equal(Math.max(...sample.map(({ sizeBytes }) => sizeBytes)), 200 * 2 ** 20);
  assert.ok(sample.some(({ sizeBytes }) => sizeBytes === 0));
  assert.ok(sample.some(({ mode }) => mode === 0o755));
  const notes = sample.find(({ path }) => path === 'notes.txt');
  assert.ok(notes !== undefined);
  assert.equal(
    notes.sha256,
    createHash('sha256')
      .update(readFileSync(join(folder, 'notes.txt')))
      .digest('hex'),
  );
  assert.deepEqual(differences(notes, await describe(folder, 'notes.txt')), []);
  appendFileSync(join(folder, 'notes.txt'), 'x');
  assert.deepEqual(
    differences(notes, await describe(folder, 'notes.txt')).map((part) => part.split(' ')[0]),
    ['size', 'content', 'time'],
  );
  assert.ok((await diskUsage(folder)) >= 200 * 2 ** 20);
  assert.equal(await diskUsage(join(folder, 'none')), 0);
  assert.equal(statSync(join(folder, 'notes.txt')).mode & 0o777, 0o644);
});

test('the images are valid: chunks, checksums, sizes', () => {
  const png = Buffer.from(pngImage(64, 48));
  assert.deepEqual([...png.subarray(0, 8)], [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  const types: string[] = [];
  for (let at = 8; at < png.length;) {
    const length = png.readUInt32BE(at);
    const named = png.subarray(at + 4, at + 8 + length);
    assert.equal(png.readUInt32BE(at + 8 + length), crc32(named));
    types.push(named.subarray(0, 4).toString('latin1'));
    if (types.at(-1) === 'IDAT') assert.equal(inflateSync(named.subarray(4)).length, (64 * 3 + 1) * 48);
    at += length + 12;
  }
  assert.deepEqual(types, ['IHDR', 'IDAT', 'IEND']);
  const bmp = Buffer.from(bmpImage(33, 10));
  assert.equal(bmp.readUInt32LE(2), bmp.length);
  assert.equal(bmp.length, 54 + 100 * 10);
});
