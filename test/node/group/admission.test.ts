import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nextDevice, ownerForInvite, vaultForInvite, type Founded } from '../../../src/node/group/found-group.ts';
import { decodeInvite, signClaim, type Claim } from '../../../src/protocol/invite.ts';
import { ownerKeysOf } from '../../../src/protocol/owner-keys.ts';
import { encodeEnvelope, type SigningKey } from '../../../src/protocol/signature.ts';
import { claimOf, groupOf, meet, TTL_MS, type TestGroup } from '../../suites/group-of.ts';
import { deviceIdOf, deviceKeysOf, newDeviceOf, NOTHING, phraseOf } from '../../suites/people.ts';

const INVITE = { code: 'INVITE' };
const BAD = { code: 'BAD_RECORD' };
const joiner = (all: TestGroup, name: string): Promise<Founded> =>
  ownerForInvite(all.groupId, newDeviceOf(name), phraseOf(name));
const invite = (all: TestGroup, options: { uses?: number; vault?: boolean } = {}): Promise<string> =>
  all.anna.group.createInvite({ vault: false, uses: 1, ttlMs: TTL_MS, addrs: ['/ip4/10.0.0.1/tcp/8080'], ...options });

const shown = new Map<string, Founded>();

/** Asks with the same record each time, as a joiner does who asks again. */
async function join(all: TestGroup, code: string, name: string): Promise<'admitted'> {
  const key = `${all.anna.group.groupId} ${name}`;
  const founded = shown.get(key) ?? (await joiner(all, name));
  shown.set(key, founded);
  const { records } = founded;
  return all.anna.group.join({ device: deviceIdOf(name), claim: claimOf(code, deviceIdOf(name)), records });
}

test('an invite works once, and again for whom it let in', async () => {
  await using all = await groupOf();
  const code = await invite(all);
  assert.equal(await join(all, code, 'bert'), 'admitted');
  assert.equal(all.anna.group.roleOf(deviceIdOf('bert'))?.role, 'member');
  const { entries } = all.anna.group.records();
  assert.equal(await join(all, code, 'bert'), 'admitted');
  assert.equal(all.anna.group.records().entries.length, entries.length);
  await assert.rejects(join(all, code, 'carl'), INVITE);
  assert.equal(all.anna.group.roleOf(deviceIdOf('carl')), undefined);
});

test('what was used stays used after a restart, and who asked may ask again', async () => {
  await using all = await groupOf();
  const code = await invite(all);
  await join(all, code, 'bert');
  await all.restart(all.anna);
  await assert.rejects(join(all, code, 'carl'), INVITE);
  assert.equal(await join(all, code, 'bert'), 'admitted');
});

test('an invite of several uses lets in as many', async () => {
  await using all = await groupOf();
  const code = await invite(all, { uses: 2 });
  await Promise.all([join(all, code, 'bert'), join(all, code, 'carl')]);
  await assert.rejects(join(all, code, 'dora'), INVITE);
  assert.equal(all.anna.group.members().length, 3);
});

test('two who use the same invite at the same time: one is let in', async () => {
  await using all = await groupOf();
  const code = await invite(all);
  const results = await Promise.allSettled([join(all, code, 'bert'), join(all, code, 'carl')]);
  assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  assert.equal(all.anna.group.members().length, 2);
});

test('an invite expires, but not for whom it let in', async () => {
  await using all = await groupOf();
  const [used, unused] = [await invite(all), await invite(all)];
  await join(all, used, 'bert');
  all.clock.now += TTL_MS;
  await assert.rejects(join(all, unused, 'carl'), /expired/);
  assert.equal(await join(all, used, 'bert'), 'admitted');
  assert.throws(() => all.anna.group.guestOf(claimOf(unused, deviceIdOf('carl')), deviceIdOf('carl')), INVITE);
});

test('who was removed needs a new invite, and comes back as who it was', async () => {
  await using all = await groupOf();
  const code = await invite(all);
  const { ownerId, records } = await joiner(all, 'bert');
  const device = deviceIdOf('bert');
  const ask = (text: string): Promise<'admitted'> =>
    all.anna.group.join({ device, claim: claimOf(text, device), records });
  await ask(code);
  await all.anna.group.removeOwner(ownerId);
  await assert.rejects(ask(code), INVITE);
  assert.equal(await ask(await invite(all)), 'admitted');
  assert.equal(all.anna.group.roleOf(device)?.owner, ownerId);
});

test('who may not invite is told who can', async () => {
  await using all = await groupOf();
  const bert = await all.join('bert');
  const laptop = await all.pair(all.anna, 'laptop');
  for (const { group } of [bert, laptop])
    await assert.rejects(
      group.createInvite({ vault: false, uses: 1, ttlMs: TTL_MS, addrs: [] }),
      (error: Error & { code?: string }) => {
        assert.equal(error.code, 'NOT_ALLOWED');
        assert.ok(error.message.includes(`anna (${deviceIdOf('anna')})`), error.message);
        assert.equal(error.message.includes('laptop'), false);
        return true;
      },
    );
});

test('a device that was cut off while joining may come again as a new owner, until its owner has moved on', async () => {
  await using all = await groupOf();
  const { group } = all.anna;
  const code = await invite(all);
  const device = deviceIdOf('bert');
  const first = await joiner(all, 'bert');
  const claim = claimOf(code, device);
  await group.join({ device, claim, records: first.records });
  const second = await ownerForInvite(all.groupId, newDeviceOf('bert'), phraseOf('second'));
  assert.equal(await group.join({ device, claim, records: second.records }), 'admitted');
  assert.equal(group.roleOf(device)?.owner, second.ownerId);
  assert.equal(group.members().length, 2);
  const next = await nextDevice(
    second.phrase,
    { groupId: all.groupId, records: group.records() },
    newDeviceOf('bert2'),
  );
  await group.merge(next.records, 'bert2');
  const third = await ownerForInvite(all.groupId, newDeviceOf('bert'), phraseOf('third'));
  await assert.rejects(group.join({ device, claim, records: third.records }), INVITE);
  assert.equal(group.members().length, 3);
});

test('uses and times out of range are refused', async () => {
  await using all = await groupOf();
  for (const wrong of [
    { uses: 0 },
    { uses: 1.5 },
    { uses: 1e9 },
    { ttlMs: 0 },
    { ttlMs: -1 },
    { ttlMs: Number.NaN },
    { ttlMs: 1e15 },
  ])
    await assert.rejects(all.anna.group.createInvite({ vault: false, uses: 1, ttlMs: 1000, addrs: [], ...wrong }), {
      code: 'USAGE',
    });
});

test('an unknown key, another device’s claim or one made to another inviter opens nothing', async () => {
  await using all = await groupOf();
  const bert = await all.join('bert');
  const code = await invite(all);
  const { group } = all.anna;
  const { records } = await joiner(all, 'carl');
  const carl = deviceIdOf('carl');
  const made = (claim: Partial<Claim>, key: SigningKey = decodeInvite(code).guest): Uint8Array =>
    encodeEnvelope(signClaim(all.groupId, { right: 'join', device: carl, to: group.deviceId, ...claim }, key));
  await assert.rejects(group.join({ device: carl, claim: made({}, deviceKeysOf('carl').device), records }), INVITE);
  await assert.rejects(group.join({ device: deviceIdOf('thief'), claim: made({}), records }), BAD);
  await assert.rejects(group.join({ device: carl, claim: made({ to: bert.group.deviceId }), records }), BAD);
  await assert.rejects(group.join({ device: carl, claim: made({ right: 'recover' }), records }), BAD);
  await assert.rejects(bert.group.join({ device: carl, claim: made({ to: bert.group.deviceId }), records }), INVITE);
  await assert.rejects(group.join({ device: carl, claim: new Uint8Array(10), records }), BAD);
  assert.equal(await group.join({ device: carl, claim: made({}), records }), 'admitted');
});

test('a joiner must show a record of its own that lists it', async () => {
  await using all = await groupOf();
  const code = await invite(all);
  const [carl, dora] = [await joiner(all, 'carl'), await joiner(all, 'dora')];
  const device = deviceIdOf('carl');
  const claim = claimOf(code, device);
  for (const records of [
    NOTHING,
    dora.records,
    { ...NOTHING, owners: [...carl.records.owners, ...dora.records.owners] },
  ])
    await assert.rejects(all.anna.group.join({ device, claim, records }), BAD);
  assert.equal(await all.anna.group.join({ device, claim, records: carl.records }), 'admitted');
});

test('an owner who is in the group cannot be founded a second time', async () => {
  await using all = await groupOf();
  const bert = await all.join('bert');
  const again = await ownerForInvite(all.groupId, newDeviceOf('bert2'), bert.phrase);
  const claim = claimOf(await invite(all), deviceIdOf('bert2'));
  await assert.rejects(all.anna.group.join({ device: deviceIdOf('bert2'), claim, records: again.records }), {
    code: 'NOT_ALLOWED',
  });
  assert.deepEqual(
    all.anna.group
      .members()
      .map(({ name }) => name)
      .sort(),
    ['anna', 'bert'],
  );
  assert.equal((await bert.group.merge(again.records, 'x')).changed, false);
});

test('a vault joins with a vault invite, holds no secret, and can be taken off', async () => {
  await using all = await groupOf();
  const vault = await vaultForInvite(all.groupId, newDeviceOf('nas'));
  const device = deviceIdOf('nas');
  const code = await invite(all, { vault: true });
  const { guest, peerId, vault: forVault } = decodeInvite(code);
  assert.equal(forVault, true);
  const claim = encodeEnvelope(signClaim(all.groupId, { right: 'join', device, to: peerId, vault }, guest));
  assert.deepEqual(all.anna.group.guestOf(claim, device), { right: 'join', vault });
  await assert.rejects(join(all, code, 'bert'), INVITE);
  await assert.rejects(
    all.anna.group.join({ device, claim: vaultClaim(all, await invite(all), vault), records: NOTHING }),
    INVITE,
  );
  assert.equal(await all.anna.group.join({ device, claim, records: NOTHING }), 'admitted');
  assert.equal(await all.anna.group.join({ device, claim, records: NOTHING }), 'admitted');
  assert.deepEqual(all.anna.group.roleOf(device), { role: 'vault', owner: null, name: 'nas', machine: vault.machine });
  await all.anna.group.revoke(device);
  assert.equal(all.anna.group.roleOf(device), undefined);
});

function vaultClaim(all: TestGroup, code: string, vault: Awaited<ReturnType<typeof vaultForInvite>>): Uint8Array {
  const { guest, peerId } = decodeInvite(code);
  return encodeEnvelope(signClaim(all.groupId, { right: 'join', device: vault.peerId, to: peerId, vault }, guest));
}

test('the phrase opens the way to recover at any member, and a wrong one does not', async () => {
  await using all = await groupOf();
  const bert = await all.join('bert');
  await meet(all.anna, bert);
  const ask = (phrase: string): unknown => {
    const device = deviceIdOf('new');
    const { recoveryGuest } = ownerKeysOf(phrase);
    const claim = signClaim(all.groupId, { right: 'recover', device, to: bert.group.deviceId }, recoveryGuest);
    return bert.group.guestOf(encodeEnvelope(claim), device);
  };
  assert.deepEqual(ask(all.anna.phrase), { right: 'recover', owner: all.anna.group.ownerId });
  assert.throws(() => ask(phraseOf('nobody')), INVITE);
  await all.anna.group.removeOwner(bert.group.ownerId);
  await meet(all.anna, bert);
  assert.throws(() => ask(bert.phrase), INVITE);
});
