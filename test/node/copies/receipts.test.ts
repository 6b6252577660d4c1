// Receipts on the side of the owner: what counts as kept, over restarts; and letting go, until every holder has been told.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isDezentError, type ErrorCode } from '../../../src/errors.ts';
import { openReceipts, type Receipts } from '../../../src/node/copies/receipts.ts';
import { openState, type StateDb } from '../../../src/node/home/state.ts';
import {
  digestOfIds,
  newReceiptNonce,
  signReceipt,
  verifyReceipt,
  verifyRelease,
  type Release,
} from '../../../src/protocol/receipt.ts';
import type { Envelope } from '../../../src/protocol/signature.ts';
import type { BlockId } from '../../../src/store/block.ts';
import { ANN, blockOf, BOB, deviceOf, GROUP, keyOf } from './holder.ts';

const isCode = (code: ErrorCode) => (error: unknown) => isDezentError(error, code);
const [a, b, c] = [blockOf('a').id, blockOf('b').id, blockOf('c').id];
const ME = deviceOf('ann-1');

interface Owner extends AsyncDisposable {
  receipts: Receipts;
  members: { peerId: string; owner: string | null; machine: string }[];
  clock: { now: number };
  reopen(): Promise<void>;
}

async function openOwner(): Promise<Owner> {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-receipts-'));
  const members = [
    { peerId: ME, owner: ANN, machine: 'm1' },
    { peerId: deviceOf('ann-2'), owner: ANN, machine: 'm2' },
    { peerId: deviceOf('bob-1'), owner: BOB, machine: 'm3' },
    { peerId: deviceOf('bob-2'), owner: BOB, machine: 'm4' },
  ];
  const clock = { now: 1000 };
  const open = (db: StateDb): Promise<Receipts> =>
    openReceipts({
      db,
      group: { groupIdBytes: GROUP, deviceId: ME, members: () => members },
      deviceKey: keyOf('ann-1'),
      now: () => clock.now,
    });
  let db = await openState(dir);
  const owner: Owner = {
    receipts: await open(db),
    members,
    clock,
    async reopen() {
      await db.close();
      db = await openState(dir);
      owner.receipts = await open(db);
    },
    async [Symbol.asyncDispose]() {
      await db.close();
      await rm(dir, { recursive: true });
    },
  };
  return owner;
}

function receiptOf(holder: string, ids: BlockId[], changes: { device?: string; nonce?: Uint8Array } = {}): Envelope {
  const terms = {
    owner: ANN,
    device: ME,
    holder: deviceOf(holder),
    nonce: newReceiptNonce(),
    ids: digestOfIds(ids),
    count: ids.length,
    bytes: 9,
    issuedAt: 5,
  };
  return signReceipt(GROUP, { ...terms, ...changes }, keyOf(holder));
}

const peersOf = (receipts: Receipts, id: BlockId): string[] =>
  receipts
    .holdersOf(id)
    .map(({ peerId }) => peerId)
    .sort();

async function released(receipts: Receipts, holder: string): Promise<Release[]> {
  const releases: Release[] = [];
  await receipts.deliverReleases(deviceOf(holder), async (envelope) => {
    releases.push(verifyRelease(GROUP, envelope, deviceOf(holder)));
  });
  return releases;
}

test('holders are known by their receipts, over restarts', async () => {
  await using owner = await openOwner();
  const receipt = receiptOf('bob-1', [a, b]);
  await owner.receipts.add(receipt, [a, b]);
  await owner.receipts.add(receipt, [b, a]);
  await owner.receipts.add(receiptOf('ann-2', [b]), [b]);
  await owner.reopen();
  assert.deepEqual(peersOf(owner.receipts, a), [deviceOf('bob-1')]);
  assert.deepEqual(peersOf(owner.receipts, b), [deviceOf('bob-1'), deviceOf('ann-2')].sort());
  assert.deepEqual(peersOf(owner.receipts, c), []);
  const [holding] = owner.receipts.holdersOf(a);
  assert.deepEqual(holding, {
    peerId: deviceOf('bob-1'),
    nonce: verifyReceipt(GROUP, receipt).nonce,
    issuedAt: 5,
    provedAt: 1000,
  });
  assert.deepEqual(owner.receipts.missingFrom(deviceOf('ann-2'), [a, b, c]), [a, c]);
});

test('a receipt that is not for this device and these blocks is refused', async () => {
  await using owner = await openOwner();
  const { receipts } = owner;
  await assert.rejects(receipts.add(receiptOf('bob-1', [a], { device: deviceOf('ann-2') }), [a]), isCode('BAD_RECORD'));
  await assert.rejects(receipts.add(receiptOf('bob-1', [a]), [b]), isCode('BAD_RECORD'));
  await assert.rejects(receipts.add(receiptOf('bob-1', [a]), [a, b]), isCode('BAD_RECORD'));
  const forged = { ...receiptOf('bob-1', [a]), signature: new Uint8Array(64) };
  await assert.rejects(receipts.add(forged, [a]), isCode('BAD_RECORD'));
  assert.deepEqual(peersOf(receipts, a), []);
});

test('copies are those of the block that has the fewest', async () => {
  await using owner = await openOwner();
  const { receipts } = owner;
  assert.deepEqual(receipts.copiesOf([]), { copies: 0, holders: [], scarce: [] });
  await receipts.add(receiptOf('bob-1', [a, b]), [a, b]);
  await receipts.add(receiptOf('bob-2', [a]), [a]);
  await receipts.add(receiptOf('ann-2', [a]), [a]);
  assert.deepEqual(receipts.copiesOf([a, b]), { copies: 1, holders: [deviceOf('bob-1')], scarce: [b] });
  assert.equal(receipts.copiesOf([a]).copies, 2);
  assert.equal(receipts.copiesOf([a, c]).copies, 0);
  owner.members.splice(1, 1);
  assert.equal(receipts.copiesOf([a]).copies, 1);
  assert.equal(receipts.countDistinct([deviceOf('bob-1'), deviceOf('bob-2')]), 1);
});

test('a proof counts for the blocks it was for', async () => {
  await using owner = await openOwner();
  await owner.receipts.add(receiptOf('bob-1', [a, b]), [a, b]);
  await owner.receipts.proved(deviceOf('bob-1'), [a, c], 5000);
  await owner.receipts.proved(deviceOf('ann-2'), [b], 6000);
  await owner.reopen();
  assert.equal(owner.receipts.holdersOf(a)[0]?.provedAt, 5000);
  assert.equal(owner.receipts.holdersOf(b)[0]?.provedAt, 1000);
  await owner.receipts.proved(deviceOf('bob-1'), [a], 4000);
  assert.equal(owner.receipts.holdersOf(a)[0]?.provedAt, 5000);
});

test('a holder that was dropped counts no more, is told, and may be asked again', async () => {
  await using owner = await openOwner();
  const receipt = receiptOf('bob-1', [a, b]);
  await owner.receipts.add(receipt, [a, b]);
  await owner.receipts.add(receiptOf('ann-2', [a]), [a]);
  await owner.receipts.drop(deviceOf('bob-1'), [a]);
  assert.deepEqual(peersOf(owner.receipts, a), [deviceOf('ann-2')]);
  assert.deepEqual(peersOf(owner.receipts, b), [deviceOf('bob-1')]);
  await owner.receipts.add(receiptOf('bob-1', [a]), [a]);
  assert.equal(peersOf(owner.receipts, a).length, 2);
  const [release] = await released(owner.receipts, 'bob-1');
  assert.deepEqual(release?.ids, [a]);
  assert.deepEqual(release?.nonces, [verifyReceipt(GROUP, receipt).nonce]);
});

test('what is released counts nowhere at once, and every holder is told, once, over restarts', async () => {
  await using owner = await openOwner();
  const [whole, part] = [receiptOf('bob-1', [a]), receiptOf('ann-2', [a, b])];
  await owner.receipts.add(whole, [a]);
  await owner.receipts.add(part, [a, b]);
  await owner.receipts.release([a, c]);
  assert.deepEqual(peersOf(owner.receipts, a), []);
  assert.deepEqual(peersOf(owner.receipts, b), [deviceOf('ann-2')]);
  await owner.reopen();
  const failing = owner.receipts.deliverReleases(deviceOf('bob-1'), () => Promise.reject(new Error('away')));
  await assert.rejects(failing, /away/);
  assert.deepEqual(await released(owner.receipts, 'bob-1'), [
    { device: ME, holder: deviceOf('bob-1'), nonces: [verifyReceipt(GROUP, whole).nonce], ids: [] },
  ]);
  assert.deepEqual(
    (await released(owner.receipts, 'ann-2')).map(({ ids }) => ids),
    [[a]],
  );
  assert.deepEqual(await released(owner.receipts, 'bob-1'), []);
  await owner.receipts.release([b]);
  assert.deepEqual(
    (await released(owner.receipts, 'ann-2')).map(({ ids, nonces }) => [ids, nonces]),
    [[[], [verifyReceipt(GROUP, part).nonce]]],
  );
});

test('a receipt that was let go does not come back', async () => {
  await using owner = await openOwner();
  const receipt = receiptOf('bob-1', [a]);
  await owner.receipts.add(receipt, [a]);
  await owner.receipts.release([a]);
  await assert.rejects(owner.receipts.add(receipt, [a]), isCode('BAD_RECORD'));
  assert.deepEqual(peersOf(owner.receipts, a), []);
});

test('many whole receipts go in few releases', async () => {
  await using owner = await openOwner();
  const ids = Array.from({ length: 300 }, (_, index) => blockOf(`many ${index}`).id);
  for (const id of ids) await owner.receipts.add(receiptOf('bob-1', [id]), [id]);
  await owner.receipts.release(ids);
  assert.deepEqual(
    (await released(owner.receipts, 'bob-1')).map(({ nonces }) => nonces.length),
    [256, 44],
  );
});

test('the head that a peer has acknowledged only grows, over restarts', async () => {
  await using owner = await openOwner();
  assert.equal(owner.receipts.ackedHead(ME), 0);
  await owner.receipts.headAcked(ME, 7);
  await owner.receipts.headAcked(ME, 5);
  await owner.reopen();
  assert.equal(owner.receipts.ackedHead(ME), 7);
});
