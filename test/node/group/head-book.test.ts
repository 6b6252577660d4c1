import assert from 'node:assert/strict';
import { test } from 'node:test';
import { signHead } from '../../../src/protocol/head.ts';
import { encodeEnvelope, type Envelope } from '../../../src/protocol/signature.ts';
import { blockIdFromDigest } from '../../../src/store/block.ts';
import { groupOf, meet, type TestGroup } from '../../suites/group-of.ts';
import { deviceIdOf, deviceKeysOf, NOTHING, seedOf } from '../../suites/people.ts';

const refused = { code: 'BAD_RECORD' };
const incarnationOf = (name: string): Uint8Array => seedOf(name).slice(0, 8);

function headOf(
  all: TestGroup,
  name: string,
  seq: number,
  { incarnation = 'one', segment = 'segment' } = {},
): Envelope {
  const head = { device: deviceIdOf(name), incarnation: incarnationOf(incarnation), seq, seen: [] };
  const segments = [{ id: blockIdFromDigest(seedOf(segment)), seq: 1 }];
  return signHead(all.groupId, { ...head, segments }, deviceKeysOf(name).device);
}

test('a head is kept over a restart and replaced by later ones only', async () => {
  await using all = await groupOf();
  const { anna } = all;
  await anna.group.putHead(headOf(all, 'anna', 5));
  await anna.group.putHead(headOf(all, 'anna', 5));
  for (const restarted of [false, true]) {
    if (restarted) await all.restart(anna);
    assert.equal(anna.group.headOf(deviceIdOf('anna'), incarnationOf('one'))?.seq, 5);
    await assert.rejects(anna.group.putHead(headOf(all, 'anna', 4)), refused);
    await assert.rejects(anna.group.putHead(headOf(all, 'anna', 5, { segment: 'other' })), refused);
  }
  await anna.group.putHead(headOf(all, 'anna', 6));
  assert.deepEqual(
    anna.group.heads().map(({ seq }) => seq),
    [6],
  );
});

test('each incarnation has a head of its own', async () => {
  await using all = await groupOf();
  const { group } = all.anna;
  await group.putHead(headOf(all, 'anna', 5));
  await group.putHead(headOf(all, 'anna', 1, { incarnation: 'two' }));
  assert.deepEqual(
    group
      .heads()
      .map(({ seq }) => seq)
      .sort((a, b) => a - b),
    [1, 5],
  );
  assert.equal(group.headOf(deviceIdOf('anna'), incarnationOf('three')), undefined);
  for (let index = 0; index < 62; index++)
    await group.putHead(headOf(all, 'anna', 1, { incarnation: `more ${index}` }));
  await assert.rejects(group.putHead(headOf(all, 'anna', 1, { incarnation: 'too many' })), refused);
});

test('heads travel with the records; older and unknown ones are left out without harm', async () => {
  await using all = await groupOf();
  const bert = await all.join('bert');
  await bert.group.putHead(headOf(all, 'bert', 2));
  await meet(all.anna, bert);
  assert.deepEqual(all.anna.group.heads(), bert.group.heads());
  const heads = [headOf(all, 'bert', 1), headOf(all, 'stranger', 1), headOf(all, 'bert', 3)].map(encodeEnvelope);
  const { changed, refused: left } = await all.anna.group.merge({ ...NOTHING, heads }, 'x');
  assert.deepEqual([changed, left.length, all.anna.group.heads()[0]?.seq], [true, 2, 3]);
  await assert.rejects(all.anna.group.putHead(headOf(all, 'stranger', 1)), refused);
});

test('of two heads of one seq in a bundle the first stands', async () => {
  await using all = await groupOf();
  const heads = [headOf(all, 'anna', 1), headOf(all, 'anna', 1, { segment: 'other' })].map(encodeEnvelope);
  const result = await all.anna.group.merge({ ...NOTHING, heads }, 'x');
  assert.match(result.refused[0] ?? '', /two different heads/);
  assert.equal(all.anna.group.heads().length, 1);
});

test('the log of a revoked device ends where it was revoked', async () => {
  await using all = await groupOf();
  const { anna } = all;
  const bert = await all.join('bert');
  const lost = await all.pair(anna, 'lost');
  await meet(anna, lost);
  await anna.group.putHead(headOf(all, 'lost', 3));
  await anna.group.revoke(deviceIdOf('lost'));
  await assert.rejects(anna.group.putHead(headOf(all, 'lost', 4)), refused);
  await assert.rejects(anna.group.putHead(headOf(all, 'lost', 1, { incarnation: 'two' })), refused);
  assert.deepEqual(
    anna.group.heads().map(({ seq }) => seq),
    [3],
  );
  // Somebody who had the later head already goes back to the frozen one.
  await bert.group.merge(lost.group.records(), 'lost');
  await bert.group.putHead(headOf(all, 'lost', 4));
  await meet(anna, bert);
  assert.deepEqual(
    bert.group.heads().map(({ seq }) => seq),
    [3],
  );
  await all.restart(bert);
  assert.deepEqual(
    bert.group.heads().map(({ seq }) => seq),
    [3],
  );
});
