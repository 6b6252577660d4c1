// The golden fixtures of signed records: what version 1 signed is read for ever, and what has no randomness in it is signed the same way.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { DezentError } from '../../src/errors.ts';
import { EMPTY_STATE, take } from '../../src/protocol/group-state.ts';
import { signHead, verifyHead } from '../../src/protocol/head.ts';
import { decodeInvite, encodeInvite, guestKeyOf, signClaim, verifyClaim } from '../../src/protocol/invite.ts';
import { signEntry, verifyEntry } from '../../src/protocol/member-list.ts';
import { openSecrets } from '../../src/protocol/owner-changes.ts';
import { ownerKeysOf } from '../../src/protocol/owner-keys.ts';
import { signOwnerRecord, verifyOwnerRecord, type SignedOwnerRecord } from '../../src/protocol/owner-record.ts';
import { signReceipt, signRelease, verifyReceipt, verifyRelease } from '../../src/protocol/receipt.ts';
import { decodeEnvelope, encodeEnvelope, sign, type Envelope } from '../../src/protocol/signature.ts';
import { HEAD, INVITE, makeRecords, RECEIPT, RECORDS, RELEASE, VAULT } from '../fixtures/make-records.ts';
import { deviceIdOf, deviceKeysOf, phraseOf } from '../suites/people.ts';

const read = async (name: string): Promise<Uint8Array> => new Uint8Array(await readFile(new URL(name, RECORDS)));
const names = [
  'entry-first',
  'entry-next',
  'owner-first',
  'owner-next',
  'head',
  'receipt',
  'release',
  'claim',
] as const;
const bytes = Object.fromEntries(
  await Promise.all(names.map(async (name) => [name, await read(`${name}.cbor`)] as const)),
) as Record<(typeof names)[number], Uint8Array>;
const groupId = await read('group-id.bin');
const invite = Buffer.from(await read('invite.txt')).toString();
const anna = ownerKeysOf(phraseOf('anna'));
const device = deviceKeysOf('anna1').device;
const envelopeOf = (name: (typeof names)[number]): Envelope => decodeEnvelope(bytes[name]);

test('envelopes are written as they were', () => {
  for (const name of names) assert.deepEqual(encodeEnvelope(envelopeOf(name)), bytes[name], name);
});

test('heads, receipts, releases, claims and invites are read and written as they were', () => {
  assert.deepEqual(verifyHead(groupId, envelopeOf('head')), HEAD);
  assert.deepEqual(encodeEnvelope(signHead(groupId, HEAD, device)), bytes.head);
  assert.deepEqual(verifyReceipt(groupId, envelopeOf('receipt')), RECEIPT);
  assert.deepEqual(encodeEnvelope(signReceipt(groupId, RECEIPT, deviceKeysOf('bert1').device)), bytes.receipt);
  assert.deepEqual(verifyRelease(groupId, envelopeOf('release'), RELEASE.holder), RELEASE);
  assert.deepEqual(encodeEnvelope(signRelease(groupId, RELEASE, device)), bytes.release);
  const { guest: _guest, ...claim } = verifyClaim(groupId, envelopeOf('claim'));
  assert.deepEqual(claim.vault, VAULT);
  assert.deepEqual(encodeEnvelope(signClaim(groupId, claim, guestKeyOf(INVITE.guestSeed))), bytes.claim);
  const { guest, ...said } = decodeInvite(invite);
  const { guestSeed, ...put } = INVITE;
  assert.deepEqual(said, put);
  assert.deepEqual(guest.publicKey, guestKeyOf(guestSeed).publicKey);
  assert.equal(encodeInvite(INVITE), invite);
});

test('the member list is read and written as it was', () => {
  const root = verifyEntry(groupId, envelopeOf('entry-first'));
  const next = verifyEntry(groupId, envelopeOf('entry-next'));
  assert.deepEqual([...next.vaults.values()], [VAULT]);
  assert.deepEqual([...root.owners.keys()], [anna.ownerId]);
  assert.deepEqual(signEntry(groupId, [root], next, { by: anna.ownerId, key: device }), next);
});

test('owner records are read, opened and written as they were', async () => {
  const records = [
    verifyOwnerRecord(groupId, envelopeOf('owner-first')),
    verifyOwnerRecord(groupId, envelopeOf('owner-next')),
  ];
  const entries = [verifyEntry(groupId, envelopeOf('entry-first')), verifyEntry(groupId, envelopeOf('entry-next'))];
  const { state, refused } = take(EMPTY_STATE, entries, records);
  assert.equal(refused.length, 1);
  const view = state.owners.get(anna.ownerId);
  assert.ok(view);
  assert.deepEqual([...view.devices.keys()].sort(), [deviceIdOf('anna1'), deviceIdOf('anna2')].sort());
  const opened = await openSecrets(groupId, view, anna.recovery);
  for (const name of ['anna1', 'anna2'])
    assert.deepEqual(await openSecrets(groupId, view, deviceKeysOf(name).box), opened);
  for (const record of records)
    assert.deepEqual(signOwnerRecord(groupId, plain(record), anna.signing).envelope, record.envelope);
});

function plain({
  envelope: _envelope,
  hash: _hash,
  signedBy: _signedBy,
  ...record
}: SignedOwnerRecord): Omit<SignedOwnerRecord, 'envelope' | 'hash' | 'signedBy'> {
  return record;
}

test('the maker makes all of them', async () => {
  assert.deepEqual(
    Object.keys(await makeRecords()).sort(),
    [...names.map((name) => `${name}.cbor`), 'group-id.bin', 'invite.txt'].sort(),
  );
});

const decoders: Record<(typeof names)[number], (envelope: Envelope) => unknown> = {
  'entry-first': (envelope) => verifyEntry(groupId, envelope),
  'entry-next': (envelope) => verifyEntry(groupId, envelope),
  'owner-first': (envelope) => verifyOwnerRecord(groupId, envelope),
  'owner-next': (envelope) => verifyOwnerRecord(groupId, envelope),
  head: (envelope) => verifyHead(groupId, envelope),
  receipt: (envelope) => verifyReceipt(groupId, envelope),
  release: (envelope) => verifyRelease(groupId, envelope, RELEASE.holder),
  claim: (envelope) => verifyClaim(groupId, envelope),
};
const kinds: Record<(typeof names)[number], string> = {
  'entry-first': 'member-list',
  'entry-next': 'member-list',
  'owner-first': 'owner-record',
  'owner-next': 'owner-record',
  head: 'head',
  receipt: 'receipt',
  release: 'release',
  claim: 'claim',
};

interface Mutation {
  at: number;
  remove: number;
  insert: Uint8Array;
}
const mutation: fc.Arbitrary<Mutation> = fc.record({
  at: fc.nat(),
  remove: fc.nat(3),
  insert: fc.uint8Array({ maxLength: 3 }),
});

function mutate(original: Uint8Array, { at, remove, insert }: Mutation): Uint8Array {
  const start = at % original.length;
  return new Uint8Array(Buffer.concat([original.subarray(0, start), insert, original.subarray(start + remove)]));
}

function onlyDezentErrors(work: () => unknown): void {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof DezentError, String(error));
    assert.ok(['BAD_RECORD', 'NEWER_VERSION', 'INVITE'].includes(error.code), error.code);
  }
}

for (const name of names) {
  test(`10,000 mutations of ${name} are refused cleanly`, () => {
    const { payload } = envelopeOf(name);
    fc.assert(
      fc.property(mutation, fc.nat(9), (change, dice) => {
        // Signed again, so that what is behind the signature is reached too.
        const mutant = dice === 0 ? sign(kinds[name], groupId, mutate(payload, change), device) : undefined;
        onlyDezentErrors(() => decoders[name](mutant ?? decodeEnvelope(mutate(bytes[name], change))));
      }),
      { numRuns: 10_000 },
    );
  });
}

test('10,000 mutations of an invite are refused cleanly', () => {
  const letters = fc.string({ unit: fc.constantFrom(...'abcdefghijklmnopqrstuvwxyz234567-'.split('')), maxLength: 3 });
  fc.assert(
    fc.property(fc.nat(invite.length), fc.nat(3), letters, (at, remove, insert) => {
      onlyDezentErrors(() => decodeInvite(invite.slice(0, at) + insert + invite.slice(at + remove)));
    }),
    { numRuns: 10_000 },
  );
});
