import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { foundOwnerRecord, needsMending, nextOwnerRecord, openSecrets } from '../../src/protocol/owner-changes.ts';
import { ownerKeysOf } from '../../src/protocol/owner-keys.ts';
import {
  signFixed,
  signOwnerRecord,
  verifyOwnerRecord,
  type OwnerRecord,
  type SignedOwnerRecord,
} from '../../src/protocol/owner-record.ts';
import { judgeOwner } from '../../src/protocol/owner-view.ts';
import { decodeEnvelope, encodeEnvelope, sign } from '../../src/protocol/signature.ts';
import { deviceIdOf, deviceKeysOf, listedDevice, phraseOf, seedOf } from '../suites/people.ts';

const group = seedOf('group');
const keys = ownerKeysOf(phraseOf('anna'));
const { ownerId } = keys;
const refused = { code: 'BAD_RECORD' };
const listed = (name: string): ReturnType<typeof listedDevice> => listedDevice(group, ownerId, name);
const first = await foundOwnerRecord(group, keys, listed('a'));
const opened = await openSecrets(group, judgeOwner([first]), keys.recovery);
const revocation = (name: string): { peerId: string; by: null; heads: [] } => ({
  peerId: deviceIdOf(name),
  by: null,
  heads: [],
});

/** What was signed, for making variants. */
function plain({
  owner,
  seq,
  prev,
  fixed,
  fixedEnvelope,
  devices,
  revoked,
  guests,
  split,
  epochs,
}: SignedOwnerRecord): OwnerRecord {
  return { owner, seq, prev, fixed, fixedEnvelope, devices, revoked, guests, split, epochs };
}

async function after(
  records: SignedOwnerRecord[],
  change: Parameters<typeof nextOwnerRecord>[1],
  by: string,
): Promise<SignedOwnerRecord> {
  const view = judgeOwner(records);
  const secrets = await openSecrets(group, view, keys.recovery);
  const signer = by === 'phrase' ? { phrase: keys } : { admin: deviceKeysOf(by).device };
  return nextOwnerRecord({ groupId: group, view, opened: secrets }, change, signer);
}

async function withAdmins(...names: string[]): Promise<SignedOwnerRecord> {
  const view = judgeOwner([first]);
  const newAdmins = names.map(deviceIdOf);
  return nextOwnerRecord({ groupId: group, view, opened }, { add: names.map(listed) }, { phrase: keys, newAdmins });
}

test('a founded record lists one admin device and opens for it and for the phrase', async () => {
  const record = verifyOwnerRecord(group, decodeEnvelope(encodeEnvelope(first.envelope)));
  const view = judgeOwner([record]);
  assert.deepEqual([...view.devices.keys()], [deviceIdOf('a')]);
  assert.deepEqual([...view.admins], [deviceIdOf('a')]);
  const byDevice = await openSecrets(group, view, deviceKeysOf('a').box);
  assert.deepEqual(byDevice, opened);
  assert.deepEqual([byDevice.split.length, byDevice.epochs.length, byDevice.epochs[0]?.secret.length], [32, 1, 32]);
  await assert.rejects(openSecrets(group, view, deviceKeysOf('b').box), { code: 'KEYS' });
  await assert.rejects(openSecrets(group, view, ownerKeysOf(phraseOf('bert')).recovery), { code: 'KEYS' });
});

test('secrets cannot be moved to another owner or group', async () => {
  const elsewhere = { ...judgeOwner([first]), owner: ownerKeysOf(phraseOf('bert')).ownerId };
  await assert.rejects(openSecrets(group, elsewhere, keys.recovery), { code: 'KEYS' });
  await assert.rejects(openSecrets(seedOf('other'), judgeOwner([first]), keys.recovery), { code: 'KEYS' });
});

test('a record of another group is refused', () => {
  assert.throws(() => verifyOwnerRecord(seedOf('other'), first.envelope), refused);
});

test('only the phrase and its admin devices sign', async () => {
  assert.equal((await after([first], { newEpoch: true }, 'a')).signedBy, deviceIdOf('a'));
  const withB = await after([first], { add: [listed('b')] }, 'phrase');
  assert.throws(() => signOwnerRecord(group, plain(withB), deviceKeysOf('b').device), refused);
  assert.throws(() => signOwnerRecord(group, plain(withB), deviceKeysOf('stranger').device), refused);
  assert.throws(() => signOwnerRecord(group, plain(withB), ownerKeysOf(phraseOf('bert')).signing), refused);
});

test('an admin device cannot make admins, nor change the recovery keys', () => {
  const { device } = deviceKeysOf('a');
  const admins = [deviceIdOf('a'), deviceIdOf('b')];
  const forged = signFixed(group, { ...first.fixed, admins }, device);
  assert.throws(() => signOwnerRecord(group, { ...plain(first), fixedEnvelope: forged }, device), refused);
  const unsigned = encodeEnvelope({ ...decodeEnvelope(first.fixedEnvelope), payload: decodeEnvelope(forged).payload });
  assert.throws(() => signOwnerRecord(group, { ...plain(first), fixedEnvelope: unsigned }, device), refused);
});

test('a device is listed with its own consent only', () => {
  const stolen = { ...listedDevice(group, ownerKeysOf(phraseOf('bert')).ownerId, 'b') };
  assert.throws(
    () => signOwnerRecord(group, { ...plain(first), devices: [listed('a'), stolen] }, keys.signing),
    refused,
  );
  const otherBox = { ...listed('b'), x25519: deviceKeysOf('c').box.publicKey };
  assert.throws(
    () => signOwnerRecord(group, { ...plain(first), devices: [listed('a'), otherBox] }, keys.signing),
    refused,
  );
});

test('records that contradict themselves are refused', () => {
  const wrong: Partial<OwnerRecord>[] = [
    { devices: [listed('a'), listed('a')] },
    { revoked: [revocation('a')] },
    { devices: [listed('b')], revoked: [revocation('c'), revocation('c')] },
    { epochs: [] },
    { epochs: [...first.epochs, ...first.epochs] },
    { seq: 0 },
    { devices: [{ ...listed('a'), name: 'a\u001b[2J' }] },
  ];
  for (const change of wrong)
    assert.throws(
      () => signOwnerRecord(group, { ...plain(first), ...change }, keys.signing),
      refused,
      JSON.stringify(change),
    );
  assert.throws(
    () =>
      signOwnerRecord(group, { ...plain(first), devices: [], revoked: [revocation('a')] }, deviceKeysOf('a').device),
    refused,
  );
});

test('a payload signed for another purpose is no record', () => {
  assert.throws(() => verifyOwnerRecord(group, sign('head', group, first.envelope.payload, keys.signing)), refused);
});

test('a next device by phrase gets every epoch, and is no admin', async () => {
  const second = await after([first], { newEpoch: true }, 'a');
  const third = await after([first, second], { add: [listed('b')] }, 'phrase');
  const view = judgeOwner([first, second, third]);
  assert.deepEqual(view.records, [third]);
  const secrets = await openSecrets(group, view, deviceKeysOf('b').box);
  assert.equal(secrets.epochs.length, 2);
  assert.deepEqual(secrets, await openSecrets(group, view, deviceKeysOf('a').box));
  assert.deepEqual([...view.admins], [deviceIdOf('a')]);
});

test('revoking takes the device off, keeps all epochs, and shuts it out of the new one', async () => {
  const withB = await after([first], { add: [listed('b')] }, 'phrase');
  const next = await after([withB], { revoke: [revocation('b')] }, 'a');
  const view = judgeOwner([withB, next]);
  assert.deepEqual([...view.devices.keys()], [deviceIdOf('a')]);
  const secrets = await openSecrets(group, view, deviceKeysOf('a').box);
  assert.equal(secrets.epochs.length, 2);
  assert.deepEqual(secrets.epochs[0], opened.epochs[0]);
  await assert.rejects(openSecrets(group, view, deviceKeysOf('b').box), { code: 'KEYS' });
});

test('an older record changes nothing', async () => {
  const second = await after([first], { add: [listed('b')] }, 'phrase');
  for (const order of [
    [first, second],
    [second, first],
  ])
    assert.deepEqual(judgeOwner(order).records, [second]);
});

test('the phrase beats an admin device whatever its seq', async () => {
  const byPhrase = await after([first], { add: [listed('b')] }, 'phrase');
  const far = signOwnerRecord(group, { ...plain(first), seq: 2 ** 40 }, deviceKeysOf('a').device);
  const view = judgeOwner([far, byPhrase]);
  assert.equal(view.latest, byPhrase);
  assert.deepEqual(view.records, [byPhrase]);
});

test('a revoked admin cannot come back, however high its seq', async () => {
  const base = await withAdmins('b');
  const revoked = await after([base], { revoke: [revocation('a')] }, 'b');
  const thief = signOwnerRecord(
    group,
    { ...plain(base), seq: 2 ** 40, devices: [...base.devices, listed('evil')] },
    deviceKeysOf('a').device,
  );
  for (const order of [
    [base, revoked, thief],
    [thief, base, revoked],
    [thief, revoked, base],
  ]) {
    const view = judgeOwner(order);
    assert.equal(view.latest, revoked);
    assert.deepEqual([...view.devices.keys()], [deviceIdOf('b')]);
    assert.deepEqual([...view.admins], [deviceIdOf('b')]);
  }
});

test('an epoch of a revoked device is kept but never current', async () => {
  const base = await withAdmins('b');
  const revoked = await after([base], { revoke: [revocation('a')] }, 'b');
  const thief = await after([base], { newEpoch: true }, 'a');
  const view = judgeOwner([base, revoked, thief]);
  assert.equal(view.epochs.length, 3);
  assert.deepEqual(view.epochs.at(-1)?.id, revoked.epochs.at(-1)?.id);
});

test('nobody can spoil what is sealed to the phrase', async () => {
  const spoilt = first.epochs.map((epoch) => ({ ...epoch, recovery: new Uint8Array(80) }));
  const thief = signOwnerRecord(group, { ...plain(first), seq: 9, epochs: spoilt }, deviceKeysOf('a').device);
  const view = judgeOwner([first, thief]);
  assert.deepEqual((await openSecrets(group, view, keys.recovery)).epochs[0], opened.epochs[0]);
});

/** Branches from one base: by the phrase, by two admins, one of whom revokes the other, and a merge. */
async function forked(): Promise<SignedOwnerRecord[]> {
  const base = await withAdmins('b', 'c');
  const addsD = await after([base], { add: [listed('d')] }, 'phrase');
  const epochByA = await after([base], { newEpoch: true }, 'a');
  const revokesA = await after([base], { revoke: [revocation('a')] }, 'b');
  const addsE = await after([revokesA], { add: [listed('e')] }, 'c');
  const revokesB = await after([epochByA], { revoke: [revocation('b')] }, 'a');
  return [first, base, addsD, epochByA, revokesA, addsE, revokesB];
}

test('forks say the same in every order, also one record at a time', async () => {
  const records = await forked();
  const expected = judgeOwner(records);
  assert.deepEqual([...expected.revoked.keys()].sort(), [deviceIdOf('a'), deviceIdOf('b')].sort());
  assert.deepEqual([...expected.devices.keys()].sort(), ['c', 'd', 'e'].map(deviceIdOf).sort());
  fc.assert(
    fc.property(fc.shuffledSubarray(records, { minLength: records.length }), (order) => {
      let held: SignedOwnerRecord[] = [];
      for (const record of order) held = judgeOwner([...held.filter((one) => one !== record), record]).records;
      const view = judgeOwner(held);
      assert.deepEqual(new Set(view.records), new Set(expected.records));
      assert.equal(view.latest, expected.latest);
      assert.deepEqual(view.devices, expected.devices);
      assert.deepEqual([...view.revoked.keys()].sort(), [...expected.revoked.keys()].sort());
      assert.deepEqual(
        view.epochs.map(({ id }) => id),
        expected.epochs.map(({ id }) => id),
      );
    }),
  );
});

test('an admin merges a fork into one record that every device can open', async () => {
  const records = await forked();
  const view = judgeOwner(records);
  const byD = await openSecrets(group, view, deviceKeysOf('d').box);
  assert.ok(byD.epochs.length < view.epochs.length);
  assert.equal(needsMending(view, await openSecrets(group, view, deviceKeysOf('c').box)), true);
  const merged = await after(records, {}, 'phrase');
  const whole = judgeOwner([...records, merged]);
  assert.deepEqual(whole.records, [merged]);
  for (const name of ['c', 'd', 'e']) {
    const secrets = await openSecrets(group, whole, deviceKeysOf(name).box);
    assert.equal(secrets.epochs.length, view.epochs.length, name);
    assert.equal(needsMending(whole, secrets), false);
  }
});
