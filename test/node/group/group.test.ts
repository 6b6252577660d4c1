import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { inspect } from 'node:util';
import * as fc from 'fast-check';
import { foundGroup, nextDevice, ownerForInvite } from '../../../src/node/group/found-group.ts';
import type { GroupRecords } from '../../../src/protocol/group-records.ts';
import { decodeEnvelope, encodeEnvelope, hashOf, idText } from '../../../src/protocol/signature.ts';
import { claimOf, groupOf, meet, TTL_MS, type TestMember } from '../../suites/group-of.ts';
import { deviceIdOf, homeOf, newDeviceOf, NOTHING, phraseOf, seedOf } from '../../suites/people.ts';

const namesOf = ({ group }: TestMember): string[] =>
  group
    .members()
    .map(({ name }) => name)
    .sort();
const refused = { code: 'BAD_RECORD' };

test('a founded group has one member, which is its admin, and survives a restart', async () => {
  await using all = await groupOf();
  const { anna } = all;
  const check = (): void => {
    assert.deepEqual(anna.group.roleOf(deviceIdOf('anna')), {
      role: 'member',
      owner: anna.group.ownerId,
      name: 'anna',
      machine: anna.group.members()[0]?.machine,
      admin: true,
    });
    assert.equal(anna.group.roleOf(deviceIdOf('nobody')), undefined);
    assert.deepEqual([anna.group.secrets().split.length, anna.group.secrets().epochs.length], [32, 1]);
    assert.deepEqual([anna.group.groupId, anna.group.deviceId], [idText(all.groupId), deviceIdOf('anna')]);
  };
  check();
  const { split } = anna.group.secrets();
  const records = anna.group.records();
  await all.restart(anna);
  check();
  assert.deepEqual(anna.group.secrets().split, split);
  assert.deepEqual(anna.group.records(), records);
  assert.deepEqual(anna.group.damaged, []);
});

test('records are forwarded as they were received', async () => {
  await using all = await groupOf();
  const bert = await all.join('bert');
  const [{ entries, owners }, theirs] = [all.anna.group.records(), bert.group.records()];
  assert.deepEqual(theirs.entries, entries);
  assert.deepEqual(new Set(theirs.owners.map(hexOf)), new Set(owners.map(hexOf)));
});

const nameOf = (bytes: Uint8Array): string => hexOf(hashOf(bytes)).slice(0, 8);
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

test('members learn from each other whom a third has let in', async () => {
  await using all = await groupOf();
  const bert = await all.join('bert');
  const carl = await all.join('carl');
  assert.deepEqual(namesOf(bert), ['anna', 'bert']);
  await meet(bert, carl);
  assert.deepEqual(namesOf(bert), ['anna', 'bert', 'carl']);
  assert.deepEqual(bert.group.members(), carl.group.members());
});

test('an entry waits for the owner record that bears it out, and the other way round', async () => {
  await using all = await groupOf();
  const bert = await all.join('bert');
  const dora = await all.join('dora');
  const { entries, owners, heads } = dora.group.records();
  for (const first of [
    { entries, owners: [], heads },
    { entries: [], owners, heads },
  ]) {
    await using home = await homeOf('carl');
    const carl = await home.open({ groupId: all.groupId, ownerId: bert.group.ownerId });
    await carl.merge(first, 'x');
    await carl.merge({ entries, owners, heads }, 'x');
    assert.deepEqual(carl.members(), dora.group.members());
  }
});

test('a record of an owner who is not on the list is left out, one whose entry comes along is kept', async () => {
  await using all = await groupOf();
  const { anna } = all;
  const stranger = await ownerForInvite(all.groupId, newDeviceOf('stranger'));
  const result = await anna.group.merge(stranger.records, 'stranger');
  assert.deepEqual([result.changed, result.refused.length], [false, 1]);
  assert.match(result.refused[0] ?? '', /not on the member list/);
  assert.equal(anna.group.roleOf(deviceIdOf('stranger')), undefined);
  const bert = await all.join('bert');
  assert.equal(bert.group.roleOf(deviceIdOf('bert'))?.role, 'member');
});

test('a bundle with anything forged in it changes nothing', async () => {
  await using all = await groupOf();
  const bert = await all.join('bert');
  const carl = await all.join('carl');
  const good = carl.group.records();
  const forge = (bytes: Uint8Array): Uint8Array => {
    const { payload, signer, signature } = decodeEnvelope(bytes);
    return encodeEnvelope({ payload, signer, signature: signature.with(5, (signature[5] ?? 0) ^ 1) });
  };
  const newEntry = good.entries.at(-1) ?? new Uint8Array();
  const newOwner =
    good.owners.find((bytes) => !bert.group.records().owners.some((held) => hexOf(held) === hexOf(bytes))) ??
    new Uint8Array();
  const other = await foundGroup(newDeviceOf('other'));
  const bad: GroupRecords[] = [
    { ...good, entries: [...good.entries.slice(0, -1), forge(newEntry)] },
    { ...good, owners: [forge(newOwner)] },
    { ...good, owners: [...good.owners, new Uint8Array(100)] },
    { ...good, heads: [newEntry] },
    { ...good, entries: [...good.entries, ...other.records.entries] },
    { ...good, owners: [...good.owners, ...other.records.owners] },
    { ...good, entries: Array.from({ length: 2000 }, () => newEntry) },
  ];
  for (const [index, bundle] of bad.entries())
    await assert.rejects(bert.group.merge(bundle, 'x'), refused, `bundle ${index}`);
  assert.deepEqual(namesOf(bert), ['anna', 'bert']);
  await all.restart(bert);
  assert.deepEqual(namesOf(bert), ['anna', 'bert']);
});

test('an older owner record is refused, also after a restart', async () => {
  await using all = await groupOf();
  const { anna } = all;
  const before = anna.group.records();
  await anna.group.merge((await all.pair(anna, 'anna2')).group.records(), 'anna2');
  assert.deepEqual(namesOf(anna), ['anna', 'anna2']);
  for (const restarted of [false, true]) {
    if (restarted) await all.restart(anna);
    const result = await anna.group.merge({ ...NOTHING, owners: before.owners }, 'x');
    assert.equal(result.changed, false);
    assert.match(result.refused[0] ?? '', /newer one is held/);
    assert.deepEqual(namesOf(anna), ['anna', 'anna2']);
  }
});

test('a next device by phrase is a member everywhere and opens every secret', async () => {
  await using all = await groupOf();
  const bert = await all.join('bert');
  const laptop = await all.pair(bert, 'bert-laptop', { from: all.anna });
  await meet(laptop, all.anna);
  await meet(all.anna, bert);
  assert.deepEqual(namesOf(bert), ['anna', 'bert', 'bert-laptop']);
  assert.deepEqual(laptop.group.secrets(), bert.group.secrets());
  assert.deepEqual(bert.group.roleOf(deviceIdOf('bert-laptop')), {
    ...bert.group.roleOf(deviceIdOf('bert')),
    name: 'bert-laptop',
    machine: laptop.group.members().find(({ name }) => name === 'bert-laptop')?.machine,
    admin: false,
  });
});

test('a next device needs the right phrase and the right group', async () => {
  await using all = await groupOf();
  const recovered = { groupId: all.groupId, records: all.anna.group.records() };
  await assert.rejects(nextDevice(phraseOf('nobody'), recovered, newDeviceOf('x')), { code: 'NOT_FOUND' });
  await assert.rejects(nextDevice(`${phraseOf('anna')} zoo`, recovered, newDeviceOf('x')), { code: 'BAD_PHRASE' });
  await assert.rejects(
    nextDevice(phraseOf('anna'), { ...recovered, groupId: seedOf('other') }, newDeviceOf('x')),
    refused,
  );
});

test('a revoked device is no member at once, gets no new secret, and cannot come back', async () => {
  await using all = await groupOf();
  const { anna } = all;
  const lost = await all.pair(anna, 'lost', { admin: true });
  await meet(anna, lost);
  const before = lost.group.records();
  await assert.rejects(anna.group.revoke(deviceIdOf('anna')), { code: 'NOT_ALLOWED' });
  await assert.rejects(anna.group.revoke(deviceIdOf('nobody')), { code: 'NOT_FOUND' });
  await anna.group.revoke(deviceIdOf('lost'));
  assert.equal(anna.group.roleOf(deviceIdOf('lost')), undefined);
  assert.equal(anna.group.secrets().epochs.length, 2);
  assert.equal((await anna.group.merge(before, 'lost')).changed, false);
  await lost.group.merge(anna.group.records(), 'anna');
  assert.throws(() => lost.group.secrets(), { code: 'KEYS' });
  await assert.rejects(
    nextDevice(anna.phrase, { groupId: all.groupId, records: anna.group.records() }, newDeviceOf('lost')),
    { code: 'NOT_ALLOWED' },
  );
});

test('whom a device let in stays in when it is revoked', async () => {
  await using all = await groupOf();
  const { anna } = all;
  const bert = await all.join('bert');
  const second = await all.pair(anna, 'anna2', { admin: true });
  await meet(second, bert);
  await second.group.revoke(deviceIdOf('anna'));
  await meet(second, bert);
  assert.deepEqual(namesOf(second), ['anna2', 'bert']);
  assert.deepEqual(namesOf(bert), ['anna2', 'bert']);
});

test('two devices that let people in at the same time: both are in, and the fork is merged', async () => {
  await using all = await groupOf();
  const { anna } = all;
  const second = await all.pair(anna, 'anna2', { admin: true });
  await meet(anna, second);
  const bert = await all.join('bert');
  const entriesBefore = anna.group.records().entries.length;
  const carl = await joinAt(all.groupId, second, 'carl');
  await meet(anna, second);
  assert.deepEqual(namesOf(anna), ['anna', 'anna2', 'bert', 'carl']);
  assert.deepEqual(anna.group.members(), second.group.members());
  // One entry for carl and at most one merge by each: merges of merges would go on for ever.
  assert.ok(anna.group.records().entries.length <= entriesBefore + 3);
  await meet(anna, bert);
  assert.deepEqual(bert.group.members(), anna.group.members());
  assert.equal(carl, deviceIdOf('carl'));
});

async function joinAt(groupId: Uint8Array, inviter: TestMember, name: string): Promise<string> {
  const { records } = await ownerForInvite(groupId, newDeviceOf(name), phraseOf(name));
  const invite = await inviter.group.createInvite({ vault: false, uses: 1, ttlMs: TTL_MS, addrs: [] });
  await inviter.group.join({ device: deviceIdOf(name), claim: claimOf(invite, deviceIdOf(name)), records });
  return deviceIdOf(name);
}

test('a removed owner is out, with all devices; only those who may can remove', async () => {
  await using all = await groupOf();
  const bert = await all.join('bert');
  const carl = await all.join('carl');
  await assert.rejects(bert.group.removeOwner(carl.group.ownerId), { code: 'NOT_ALLOWED' });
  await all.anna.group.removeOwner(bert.group.ownerId);
  assert.deepEqual(namesOf(all.anna), ['anna', 'carl']);
  await meet(all.anna, carl);
  assert.equal(carl.group.roleOf(deviceIdOf('bert')), undefined);
  await assert.rejects(all.anna.group.removeOwner(all.anna.group.ownerId), { code: 'NOT_ALLOWED' });
});

test('an owner marked admin may sign too', async () => {
  await using all = await groupOf();
  const bert = await all.join('bert');
  await all.anna.group.makeAdmin(bert.group.ownerId);
  await meet(all.anna, bert);
  await joinAt(all.groupId, bert, 'carl');
  await meet(bert, all.anna);
  assert.deepEqual(namesOf(all.anna), ['anna', 'bert', 'carl']);
});

test('a fork of an owner record is mended by an admin device, so that all devices open all epochs', async () => {
  await using all = await groupOf();
  const { anna } = all;
  const lost = await all.pair(anna, 'lost');
  await meet(anna, lost);
  const old = anna.group.records();
  await anna.group.revoke(deviceIdOf('lost'));
  // The phrase pairs another device with records from before the revocation.
  const next = await nextDevice(anna.phrase, { groupId: all.groupId, records: old }, newDeviceOf('anna2'));
  await using home = await homeOf('anna2');
  const second = await home.open({ groupId: all.groupId, ownerId: anna.group.ownerId });
  await second.merge(next.records, 'init');
  assert.equal(second.secrets().epochs.length, 1);
  await anna.group.merge(second.records(), 'anna2');
  await second.merge(anna.group.records(), 'anna');
  assert.deepEqual(second.secrets(), anna.group.secrets());
  assert.ok(second.secrets().epochs.length >= 2);
  assert.equal(second.roleOf(deviceIdOf('lost')), undefined);
  assert.equal(second.records().owners.length, 1);
});

/** Several records of a group with forks of list and owner records, as single bundles. */
async function forkedBundles(
  all: Awaited<ReturnType<typeof groupOf>>,
): Promise<{ bundles: GroupRecords[]; ownerId: string }> {
  const { anna } = all;
  const second = await all.pair(anna, 'anna2', { admin: true });
  await meet(anna, second);
  const bert = await all.join('bert');
  await anna.group.makeAdmin(bert.group.ownerId);
  await meet(anna, bert);
  await joinAt(all.groupId, second, 'carl');
  await joinAt(all.groupId, bert, 'dora');
  await anna.group.removeOwner(bert.group.ownerId);
  await second.group.revoke(deviceIdOf('anna'));
  const laptop = await all.pair(bert, 'bert2');
  const sources = [anna, second, bert, laptop].map(({ group }) => group.records());
  const bundles = sources.flatMap(({ entries, owners }) => [
    ...entries.map((entry) => ({ ...NOTHING, entries: [entry] })),
    ...owners.map((owner) => ({ ...NOTHING, owners: [owner] })),
  ]);
  return { bundles: [...bundles, ...sources], ownerId: bert.group.ownerId };
}

test('the same records in every order say the same', async () => {
  await using all = await groupOf();
  const { bundles, ownerId } = await forkedBundles(all);
  const outcome = async (order: readonly GroupRecords[]): Promise<unknown> => {
    await using home = await homeOf('observer');
    const group = await home.open({ groupId: all.groupId, ownerId });
    for (let changed = true; changed;) {
      changed = false;
      for (const bundle of order) changed = (await group.merge(bundle, 'x')).changed || changed;
    }
    return {
      members: group.members(),
      owners: new Set(group.records().owners.map(nameOf)),
      entries: new Set(group.records().entries.map(nameOf)),
    };
  };
  const expected = await outcome(bundles);
  await fc.assert(
    fc.asyncProperty(fc.shuffledSubarray([...bundles.keys()], { minLength: bundles.length }), async (order) => {
      assert.deepEqual(await outcome(order.map((index) => bundles[index] ?? NOTHING)), expected);
    }),
    { numRuns: 12 },
  );
});

test('a damaged record is named, set aside, and comes back from a peer', async () => {
  await using all = await groupOf();
  const bert = await all.join('bert');
  await bert.home.damage('owner-records', bert.group.ownerId);
  await all.restart(bert);
  assert.equal(bert.group.damaged.length, 1);
  assert.throws(() => bert.group.secrets(), { code: 'KEYS' });
  await bert.group.merge(all.anna.group.records(), 'anna');
  assert.equal(bert.group.secrets().epochs.length, 1);
  await all.restart(bert);
  assert.deepEqual(bert.group.damaged, []);
});

test('listeners hear of changes, and no more once they have stopped', async () => {
  await using all = await groupOf();
  const heard: string[] = [];
  const stop = all.anna.group.onChange((what) => heard.push(what));
  await all.join('bert');
  assert.deepEqual(heard, ['members']);
  stop();
  await all.join('carl');
  assert.deepEqual(heard, ['members']);
});

test('a group shows no secret when printed or encoded', async () => {
  await using all = await groupOf();
  const { group, home } = all.anna;
  const { split, epochs } = group.secrets();
  const shown = [group, group.secrets(), group.members(), home.keys.box]
    .map((one) => inspect(one, { depth: Infinity }) + JSON.stringify(one))
    .join('\n');
  for (const secret of [split, ...epochs.map((epoch) => epoch.secret)]) {
    const some = [...secret.subarray(randomInt(8), 16)];
    for (const form of [hexOf(secret), Buffer.from(secret).toString('base64'), some.join(','), some.join(', ')])
      assert.equal(shown.includes(form), false);
  }
});

test('a member of another group learns nothing and changes nothing', async () => {
  await using all = await groupOf();
  const other = await foundGroup(newDeviceOf('other'));
  await assert.rejects(all.anna.group.merge(other.records, 'other'), refused);
  await using home = await homeOf('x');
  const empty = await home.open({ groupId: all.groupId, ownerId: '' });
  assert.throws(() => empty.secrets(), { code: 'NOT_ALLOWED' });
  assert.deepEqual(empty.records(), NOTHING);
});
