// The keeper: what it answers, promises and deletes, also over restarts, after the loss of its records, and while sessions are open.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDezentError, type ErrorCode } from '../../../src/errors.ts';
import { signRelease, verifyReceipt } from '../../../src/protocol/receipt.ts';
import type { Envelope } from '../../../src/protocol/signature.ts';
import type { BlockId } from '../../../src/store/block.ts';
import {
  ANN,
  begin,
  blockOf,
  BOB,
  deviceOf,
  GROUP,
  keep,
  keyOf,
  openHolder,
  type TestBlock,
  type TestHolder,
} from './holder.ts';

const DAY_MS = 86_400_000;
const isCode = (code: ErrorCode) => (error: unknown) => isDezentError(error, code);
const nonceOf = (receipt: Envelope): Uint8Array => verifyReceipt(GROUP, receipt).nonce;

async function release(holder: TestHolder, name: string, receipts: Envelope[], ids: BlockId[] = []): Promise<number> {
  const release = { device: deviceOf(name), holder: deviceOf('holder'), nonces: receipts.map(nonceOf), ids };
  return holder.keeper.release(signRelease(GROUP, release, keyOf(name)));
}

async function sessionOf(
  holder: TestHolder,
  name: string,
  blocks: TestBlock[],
): Promise<Exclude<Awaited<ReturnType<typeof begin>>, string>> {
  const session = await begin(holder, name, blocks);
  return typeof session === 'string' ? assert.fail(session) : session;
}

async function refusalOf(holder: TestHolder, name: string, blocks: TestBlock[]): Promise<string> {
  const answer = await begin(holder, name, blocks);
  return typeof answer === 'string' ? answer : assert.fail('it was not refused');
}

const [a, b, c] = [blockOf('a'), blockOf('b', 200), blockOf('c', 300)];

test('a session keeps what is missing and signs for all of it', async () => {
  await using holder = await openHolder();
  const receipt = verifyReceipt(GROUP, await keep(holder, 'bob-1', [a, b]));
  assert.deepEqual([receipt.owner, receipt.device, receipt.holder], [BOB, deviceOf('bob-1'), deviceOf('holder')]);
  assert.deepEqual([receipt.count, receipt.bytes, receipt.issuedAt], [2, 300, holder.settings.now]);
  assert.deepEqual(await holder.keeper.get(a.id), a.bytes);
  assert.equal(holder.keeper.heldBytes(), 300);
  assert.equal((await holder.store.stat(a.id))?.length, 100);
  const second = await sessionOf(holder, 'ann-1', [a, b, c]);
  assert.deepEqual([...second.missing], [c.id]);
  second.end();
});

test('who may not push is told why', async () => {
  await using holder = await openHolder();
  const blocks = [{ id: a.id, length: 100 }];
  const [ann, bob] = [deviceOf('ann-1'), deviceOf('bob-1')];
  const reasonOf = async (request: Parameters<TestHolder['keeper']['begin']>[0]): Promise<string> => {
    const answer = await holder.keeper.begin(request);
    return 'refused' in answer ? answer.refused : assert.fail('it was not refused');
  };
  const stranger = deviceOf('stranger');
  assert.match(await reasonOf({ peerId: stranger, device: stranger, owner: ANN, blocks }), /not a member/);
  assert.match(await reasonOf({ peerId: ann, device: bob, owner: BOB, blocks }), /asks/);
  assert.match(await reasonOf({ peerId: ann, device: ann, owner: BOB, blocks }), /not a device of that owner/);
  holder.roles.set(ann, { role: 'guest', owner: ANN });
  assert.match(await reasonOf({ peerId: ann, device: ann, owner: ANN, blocks }), /not a member/);
  const many = Array.from({ length: 4097 }, (_, index) => ({ id: blockOf(`${index}`).id, length: 100 }));
  assert.match(await reasonOf({ peerId: bob, device: bob, owner: BOB, blocks: many }), /too many ids/);
  assert.match(
    await reasonOf({ peerId: bob, device: bob, owner: BOB, blocks: [{ id: a.id, length: 100 }] }).catch(() => 'kept'),
    /kept/,
  );
});

test('over quota is refused, open sessions counted, and what is here already costs nothing', async () => {
  await using holder = await openHolder();
  holder.settings.quotaBytes = 400;
  await keep(holder, 'bob-1', [a]);
  const open = await sessionOf(holder, 'bob-1', [a, b]);
  assert.match(await refusalOf(holder, 'ann-1', [c]), /over quota/);
  open.end();
  const again = await sessionOf(holder, 'ann-1', [c]);
  again.end();
  holder.settings.quotaBytes = 0;
  assert.ok(await keep(holder, 'ann-1', [a]));
});

test('the reserve of the disk is never used', async () => {
  await using holder = await openHolder(1000);
  holder.settings.reserveBytes = 850;
  assert.match(await refusalOf(holder, 'bob-1', [b]), /disk reserve/);
  assert.ok(await keep(holder, 'bob-1', [a]));
});

test('a block of another length than the one here is refused', async () => {
  await using holder = await openHolder();
  await keep(holder, 'bob-1', [a]);
  assert.match(await refusalOf(holder, 'bob-1', [{ ...a, length: 99 }]), /has 100 bytes/);
});

test('what a broken session has kept is not asked for again', async () => {
  await using holder = await openHolder();
  const broken = await sessionOf(holder, 'bob-1', [a, b, c]);
  await broken.keep([a]);
  broken.end();
  await holder.reopen();
  const next = await sessionOf(holder, 'bob-1', [a, b, c]);
  assert.deepEqual(next.missing, new Set([b.id, c.id]));
  next.end();
  assert.equal(holder.keeper.covers(a.id), false);
  assert.deepEqual(await holder.keeper.collect(), { blocks: 0, bytes: 0 });
});

test('a receipt stands until the device that asked releases it, over restarts', async () => {
  await using holder = await openHolder();
  const receipt = await keep(holder, 'bob-1', [a, b]);
  await holder.reopen();
  assert.equal(holder.keeper.covers(a.id), true);
  await assert.rejects(release(holder, 'ann-1', [receipt]), isCode('NOT_ALLOWED'));
  assert.equal(await release(holder, 'bob-1', [receipt]), 1);
  assert.equal(holder.keeper.covers(a.id), false);
  await holder.reopen();
  assert.deepEqual(await holder.keeper.collect(), { blocks: 2, bytes: 300 });
  assert.equal(await holder.keeper.get(a.id), undefined);
  assert.equal(holder.keeper.heldBytes(), 0);
});

test('the heir of a revoked device may release its receipts', async () => {
  await using holder = await openHolder();
  const receipt = await keep(holder, 'ann-1', [a]);
  await assert.rejects(release(holder, 'bob-1', [receipt]), isCode('NOT_ALLOWED'));
  assert.equal(await release(holder, 'ann-2', [receipt]), 1);
  assert.equal(holder.keeper.covers(a.id), false);
});

test('a forged or foreign release does nothing', async () => {
  await using holder = await openHolder();
  const receipt = await keep(holder, 'bob-1', [a]);
  const terms = { device: deviceOf('bob-1'), nonces: [nonceOf(receipt)], ids: [] };
  const other = signRelease(GROUP, { ...terms, holder: deviceOf('somebody') }, keyOf('bob-1'));
  await assert.rejects(holder.keeper.release(other), isCode('BAD_RECORD'));
  const good = signRelease(GROUP, { ...terms, holder: deviceOf('holder') }, keyOf('bob-1'));
  await assert.rejects(holder.keeper.release({ ...good, signer: keyOf('ann-1').publicKey }), isCode('BAD_RECORD'));
  const unknown = signRelease(
    GROUP,
    { ...terms, nonces: [new Uint8Array(16)], holder: deviceOf('holder') },
    keyOf('bob-1'),
  );
  assert.equal(await holder.keeper.release(unknown), 0);
  assert.equal(holder.keeper.covers(a.id), true);
});

test('a replayed release cannot touch a newer receipt', async () => {
  await using holder = await openHolder();
  const first = await keep(holder, 'bob-1', [a]);
  await release(holder, 'bob-1', [first]);
  await keep(holder, 'bob-1', [a]);
  assert.equal(await release(holder, 'bob-1', [first]), 1);
  assert.equal(await release(holder, 'bob-1', [first], [a.id]), 1);
  assert.equal(holder.keeper.covers(a.id), true);
  assert.deepEqual(await holder.keeper.collect(), { blocks: 0, bytes: 0 });
});

test('a release of some blocks leaves the others covered', async () => {
  await using holder = await openHolder();
  const receipt = await keep(holder, 'bob-1', [a, b, c]);
  assert.equal(await release(holder, 'bob-1', [receipt], [a.id]), 0);
  assert.deepEqual(
    [a, b, c].map(({ id }) => holder.keeper.covers(id)),
    [false, true, true],
  );
  assert.deepEqual(await holder.keeper.collect(), { blocks: 1, bytes: 100 });
  assert.equal(await release(holder, 'bob-1', [receipt], [b.id, c.id]), 1);
  assert.deepEqual(await holder.keeper.collect(), { blocks: 2, bytes: 500 });
});

test('a block that two receipts cover stays until both are released', async () => {
  await using holder = await openHolder();
  const bob = await keep(holder, 'bob-1', [a]);
  const ann = await keep(holder, 'ann-1', [a]);
  await release(holder, 'bob-1', [bob]);
  assert.deepEqual(await holder.keeper.collect(), { blocks: 0, bytes: 0 });
  await release(holder, 'ann-1', [ann]);
  assert.equal((await holder.keeper.collect()).blocks, 1);
});

test('own blocks and pinned ones are not collected', async () => {
  await using holder = await openHolder();
  await release(holder, 'bob-1', [await keep(holder, 'bob-1', [a, b])]);
  holder.own.add(a.id);
  const unpin = holder.keeper.pin([b.id]);
  assert.equal(holder.keeper.covers(b.id), true);
  assert.deepEqual(await holder.keeper.collect(), { blocks: 0, bytes: 0 });
  unpin();
  unpin();
  holder.own.clear();
  assert.equal((await holder.keeper.collect()).blocks, 2);
});

test('what a session counts on is not collected under it', async () => {
  await using holder = await openHolder();
  await release(holder, 'bob-1', [await keep(holder, 'bob-1', [a, b])]);
  const collecting = holder.keeper.collect();
  const session = await sessionOf(holder, 'ann-1', [a, b]);
  await collecting;
  for (const { id } of [a, b]) assert.equal(await holder.store.has(id), !session.missing.has(id));
  await session.keep([a, b].filter(({ id }) => session.missing.has(id)));
  await holder.keeper.collect();
  assert.ok('payload' in (await session.sign()));
  session.end();
  assert.equal((await holder.keeper.collect()).blocks, 0);
});

test('own blocks are evicted only while nobody has a receipt for them', async () => {
  await using holder = await openHolder();
  await holder.store.putMany([a, b]);
  await keep(holder, 'ann-2', [a]);
  assert.deepEqual(await holder.keeper.evict([a.id, b.id]), [b.id]);
  assert.equal(await holder.store.has(a.id), true);
});

test('blocks not checked for 30 days are re-hashed before they are signed for', async () => {
  await using holder = await openHolder();
  const reads: BlockId[] = [];
  const get = holder.store.get;
  holder.store.get = (id, options) => {
    reads.push(id);
    return get(id, options);
  };
  await keep(holder, 'bob-1', [a]);
  holder.settings.now += 28 * DAY_MS;
  await keep(holder, 'ann-1', [a]);
  assert.equal(reads.length, 0);
  holder.settings.now += 2 * DAY_MS;
  await keep(holder, 'ann-1', [a]);
  assert.equal(reads.length, 1);
  holder.settings.now += DAY_MS;
  await keep(holder, 'ann-1', [a]);
  assert.equal(reads.length, 1);
});

test('a block that is damaged when it is re-hashed is asked for again', async () => {
  await using holder = await openHolder();
  await keep(holder, 'bob-1', [a, b]);
  holder.settings.now += 30 * DAY_MS;
  const get = holder.store.get;
  holder.store.get = async (id, options) => (id === a.id ? new Uint8Array(100) : get(id, options));
  const session = await sessionOf(holder, 'ann-1', [a, b]);
  assert.deepEqual(session.missing, new Set([a.id]));
  await session.keep([a]);
  assert.ok('payload' in (await session.sign()));
  session.end();
});

test('a block that could not be read is no missing one', async () => {
  await using holder = await openHolder();
  await keep(holder, 'bob-1', [a]);
  holder.settings.now += 30 * DAY_MS;
  holder.store.get = () => Promise.reject(new Error('EIO'));
  await assert.rejects(begin(holder, 'ann-1', [a]), /EIO/);
  assert.equal(await holder.store.has(a.id), true);
});

test('nothing is signed for when a block is gone in the meantime', async () => {
  await using holder = await openHolder();
  const session = await sessionOf(holder, 'bob-1', [a]);
  await session.keep([a]);
  await holder.store.delete(a.id);
  const answer = await session.sign();
  assert.ok('refused' in answer && /not here any more/.test(answer.refused));
  session.end();
});

test('after the loss of its records everything that was here stays', async () => {
  await using holder = await openHolder();
  const lost = await keep(holder, 'bob-1', [a]);
  await holder.loseState();
  assert.equal(holder.keeper.covers(a.id), true);
  assert.equal(await release(holder, 'bob-1', [lost]), 0);
  const next = await keep(holder, 'ann-1', [a, b]);
  await release(holder, 'ann-1', [next]);
  assert.equal((await holder.keeper.collect()).blocks, 1);
  assert.deepEqual([await holder.store.has(a.id), await holder.store.has(b.id)], [true, false]);
  assert.deepEqual(await holder.keeper.evict([a.id]), []);
});

test('finish is kept for the device of the receipt alone', async () => {
  await using holder = await openHolder();
  const receipt = await keep(holder, 'bob-1', [a]);
  await holder.keeper.finish(deviceOf('bob-1'), nonceOf(receipt), [deviceOf('ann-1')]);
  await holder.keeper.finish(deviceOf('ann-1'), nonceOf(receipt), []);
  await holder.keeper.finish(deviceOf('ann-1'), new Uint8Array(16), []);
  assert.equal(await release(holder, 'bob-1', [receipt]), 1);
});
