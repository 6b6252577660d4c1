import assert from 'node:assert/strict';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { blockIdFromDigest, blockIdOf } from '../../src/store/block.ts';
import {
  decodeRecordHeader,
  encodePackHeader,
  encodeRecordHeader,
  isPackHeader,
  newPackId,
  PACK_HEADER_BYTES,
  packName,
  packOfName,
  recordBytes,
  type Place,
  type RecordHead,
} from '../../src/store/pack-file.ts';
import { scanPack, type Found } from '../../src/store/pack-scan.ts';

const FIXTURE: string = join(import.meta.dirname, '../fixtures/pack-1.hex');
const PACK = '0011223344556677';

const anyPlace: fc.Arbitrary<Place> = fc
  .tuple(fc.uint8Array({ minLength: 8, maxLength: 8 }), fc.nat(2 ** 26))
  .map(([pack, offset]) => ({ pack: Buffer.from(pack).toString('hex'), offset }));
const anyId = fc.uint8Array({ minLength: 32, maxLength: 32 }).map(blockIdFromDigest);
const anyHead: fc.Arbitrary<RecordHead> = fc.oneof(
  fc
    .tuple(anyId, fc.uint8Array({ minLength: 32, maxLength: 32 }), fc.nat(4 * 1024 * 1024))
    .map(([id, owner, length]) => ({ kind: 'block' as const, id, owner, length })),
  fc.tuple(anyId, anyPlace).map(([id, target]) => ({ kind: 'tombstone' as const, id, target })),
);

/** Three records as a pack: a block, an empty block, a tombstone of the first. */
function fixturePack(): Uint8Array {
  const bytes = Buffer.from('the bytes of a block');
  const heads: [RecordHead, Uint8Array][] = [
    [{ kind: 'block', id: blockIdOf(bytes), owner: new Uint8Array(32).fill(9), length: bytes.length }, bytes],
    [{ kind: 'block', id: blockIdOf(new Uint8Array()), owner: new Uint8Array(32), length: 0 }, new Uint8Array()],
    [{ kind: 'tombstone', id: blockIdOf(bytes), target: { pack: PACK, offset: PACK_HEADER_BYTES } }, new Uint8Array()],
  ];
  const pieces: Uint8Array[] = [encodePackHeader(PACK)];
  let offset = PACK_HEADER_BYTES;
  for (const [head, body] of heads) {
    pieces.push(encodeRecordHeader({ pack: PACK, offset }, head), body);
    offset += recordBytes(head);
  }
  return Buffer.concat(pieces);
}

async function scan(bytes: Uint8Array): Promise<Found[]> {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-pack-'));
  const path = join(dir, packName(PACK));
  await writeFile(path, bytes);
  const file = await open(path, 'r');
  const found = await Array.fromAsync(scanPack({ pack: PACK, file, from: 0, size: bytes.length }));
  await file.close();
  await rm(dir, { recursive: true });
  return found;
}

test('a record header reads back as it was written, at its place and nowhere else', () => {
  fc.assert(
    fc.property(anyPlace, anyHead, fc.nat(76), (place, head, at) => {
      const header = encodeRecordHeader(place, head);
      assert.deepEqual(decodeRecordHeader(place, header), head);
      assert.equal(decodeRecordHeader({ ...place, offset: place.offset + 1 }, header), undefined);
      assert.equal(decodeRecordHeader(place, header.subarray(0, 79)), undefined);
      header[at] = header[at]! ^ 4;
      assert.equal(decodeRecordHeader(place, header), undefined);
    }),
  );
});

test('pack names and headers belong to one pack', () => {
  const [one, other] = [newPackId(), newPackId()];
  assert.equal(packOfName(packName(one)), one);
  assert.equal(packOfName(`${one}.pack.tmp`), undefined);
  assert.ok(isPackHeader(one, encodePackHeader(one)));
  assert.ok(!isPackHeader(other, encodePackHeader(one)));
});

test('version 1 of the format is what the fixture holds', async () => {
  const fixture = Buffer.from((await readFile(FIXTURE, 'utf8')).replaceAll(/\s/g, ''), 'hex');
  assert.deepEqual(fixturePack(), fixture);
  const found = await scan(fixture);
  assert.deepEqual(
    found.map((one) => (one.kind === 'record' ? [one.offset, one.head.kind] : [one.offset, 'gap'])),
    [
      [20, 'block'],
      [120, 'block'],
      [200, 'tombstone'],
    ],
  );
});

test('a scan steps over damage to the next block that is proven, and trusts no tombstone behind it', async () => {
  const pack = fixturePack();
  pack[25] = pack[25]! ^ 1;
  const found = await scan(pack);
  assert.deepEqual(found[0], { kind: 'gap', offset: 20, end: 120, torn: false });
  assert.deepEqual(
    found.slice(1).map((one) => one.kind === 'record' && [one.offset, one.head.kind, one.sure]),
    [
      [120, 'block', false],
      [200, 'tombstone', false],
    ],
  );
});

test('an unfinished append is a torn end, other bytes at the end are not', async () => {
  const pack = fixturePack();
  const ends: [Uint8Array, boolean][] = [
    [pack.subarray(20, 50), true], // half a header
    [
      encodeRecordHeader(
        { pack: PACK, offset: pack.length },
        { kind: 'block', id: blockIdOf(pack), owner: new Uint8Array(32), length: 9 },
      ),
      true,
    ],
    [new Uint8Array(500), true], // space that was never written
    [new Uint8Array(500).fill(3), false],
  ];
  for (const [end, torn] of ends) {
    const found = await scan(Buffer.concat([pack, end]));
    assert.deepEqual(found.at(-1), { kind: 'gap', offset: pack.length, end: pack.length + end.length, torn });
  }
});
