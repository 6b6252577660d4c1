// Proofs and releases over real streams: held, absent, wrong and "could not tell" are told apart.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { DezentError, isDezentError, type ErrorCode } from '../../src/errors.ts';
import { AUDIT_FRAMES, proveBlocks, serveAudit } from '../../src/protocol/audit.ts';
import { openChannel } from '../../src/protocol/channel.ts';
import type { Channel } from '../../src/protocol/channel.ts';
import { encodeBody, encodeFrame } from '../../src/protocol/frame.ts';
import { RELEASE_FRAMES, sendRelease, serveRelease } from '../../src/protocol/release.ts';
import type { Envelope } from '../../src/protocol/signature.ts';
import { blockIdOf, blockIdToBytes, type BlockId } from '../../src/store/block.ts';
import { openPairs, type Pairs } from './stream-pair.ts';

let pairs: Pairs;
before(async () => {
  pairs = await openPairs();
});
after(() => pairs[Symbol.asyncDispose]());

const isCode = (code: ErrorCode) => (error: unknown) => isDezentError(error, code);

async function auditOf(
  get: (id: BlockId) => Promise<Uint8Array | undefined>,
): Promise<{ channel: Channel; server: Channel }> {
  const { caller, server } = await pairs.open();
  return { channel: openChannel(caller, { frames: AUDIT_FRAMES }), server: serveAudit(server, { get }) };
}

test('a holder proves what it has, whatever the size, in parts and as a whole', async () => {
  const blocks = new Map(
    [1, 16_384, 16_385, 1_000_000, 4 * 1024 * 1024].map((length) => {
      const bytes = new Uint8Array(randomBytes(length));
      return [blockIdOf(bytes), bytes] as const;
    }),
  );
  const { channel } = await auditOf(async (id) => blocks.get(id));
  for (const whole of [false, true]) {
    const verdicts = await proveBlocks(channel, { ids: [...blocks.keys()], read: async (id) => blocks.get(id), whole });
    assert.deepEqual(
      [...verdicts],
      [...blocks.keys()].map((id) => [id, 'proved']),
    );
  }
  await channel.close();
});

test('absent, wrong, could not tell, and not here to compare are four answers', async () => {
  const [absent, wrong, ill, elsewhere] = [1, 2, 3, 4].map((value) => new Uint8Array(100).fill(value));
  assert.ok(absent && wrong && ill && elsewhere);
  const bytesOf = new Map([absent, wrong, ill].map((bytes) => [blockIdOf(bytes), bytes]));
  const { channel } = await auditOf(async (id) => {
    if (id === blockIdOf(ill)) throw new DezentError('IO', 'the disk is ill');
    return id === blockIdOf(wrong) ? new Uint8Array(100) : undefined;
  });
  const verdicts = await proveBlocks(channel, {
    ids: [absent, wrong, ill, elsewhere].map(blockIdOf),
    read: async (id) => bytesOf.get(id),
  });
  assert.equal(verdicts.get(blockIdOf(absent)), 'absent');
  assert.equal(verdicts.get(blockIdOf(wrong)), 'wrong');
  assert.equal(verdicts.get(blockIdOf(ill)), 'unknown');
  assert.equal(verdicts.get(blockIdOf(elsewhere)), 'unknown');
  await channel.close();
});

test('more blocks than one call takes', async () => {
  const bytes = Array.from({ length: 600 }, (_, index) => new Uint8Array(50).fill(index).fill(index >> 8, 25));
  const blocks = new Map(bytes.map((block) => [blockIdOf(block), block]));
  const { channel } = await auditOf(async (id) => blocks.get(id));
  const verdicts = await proveBlocks(channel, { ids: [...blocks.keys()], read: async (id) => blocks.get(id) });
  assert.equal([...verdicts.values()].filter((verdict) => verdict === 'proved').length, blocks.size);
  await channel.close();
});

test('an old answer proves nothing: the nonce is new each time', async () => {
  const bytes = new Uint8Array(100).fill(1);
  const id = blockIdOf(bytes);
  const { caller, server } = await pairs.open();
  const recorded = encodeBody({ proofs: new Uint8Array(randomBytes(16)), states: Uint8Array.of(0) });
  server.addEventListener('message', () => server.send(Buffer.concat(encodeFrame(17, 1, [recorded], true))), {
    once: true,
  });
  const channel = openChannel(caller, { frames: AUDIT_FRAMES });
  assert.equal((await proveBlocks(channel, { ids: [id], read: async () => bytes })).get(id), 'wrong');
  channel.abort(new DezentError('CANCELLED', 'enough'));
});

test('answers of another number or state break the protocol', async () => {
  const bytes = new Uint8Array(100).fill(1);
  for (const answer of [
    { proofs: new Uint8Array(32), states: new Uint8Array(2) },
    { proofs: new Uint8Array(16), states: Uint8Array.of(9) },
    { proofs: new Uint8Array(0), states: new Uint8Array(0) },
  ]) {
    const { caller, server } = await pairs.open();
    server.addEventListener(
      'message',
      () => server.send(Buffer.concat(encodeFrame(17, 1, [encodeBody(answer)], true))),
      { once: true },
    );
    const channel = openChannel(caller, { frames: AUDIT_FRAMES });
    await assert.rejects(
      proveBlocks(channel, { ids: [blockIdOf(bytes)], read: async () => bytes }),
      isCode('BAD_FRAME'),
    );
    channel.abort(new DezentError('CANCELLED', 'enough'));
  }
});

test('hostile audits: too many items, ranges beyond a block, a short nonce', async () => {
  const id = blockIdToBytes(blockIdOf(new Uint8Array(1)));
  const nonce = new Uint8Array(32);
  for (const body of [
    { nonce, items: Array.from({ length: 257 }, () => [id, [0, 1]]) },
    { nonce, items: [[id, [0, 4 * 1024 * 1024, 0, 1]]] },
    { nonce, items: [[id, [0, 1, 2]]] },
    { nonce, items: [[id, [0, -1]]] },
    { nonce, items: [] },
    { nonce: nonce.subarray(1), items: [[id, [0, 1]]] },
  ]) {
    const { caller, server } = await pairs.open();
    const channel = serveAudit(server, { get: () => assert.fail('nothing is read for it') });
    caller.send(Buffer.concat(encodeFrame(16, 1, [encodeBody(body)], true)));
    assert.equal((await channel.closed)?.code, 'BAD_FRAME');
  }
});

test('a release arrives as it was signed, and its answer comes back', async () => {
  const { caller, server } = await pairs.open();
  const envelope: Envelope = {
    payload: new Uint8Array(5).fill(1),
    signer: new Uint8Array(32),
    signature: new Uint8Array(64),
  };
  const got: Envelope[] = [];
  serveRelease(server, {
    async release(given) {
      got.push(given);
      if (got.length > 1) throw new DezentError('NOT_ALLOWED', 'not yours');
      return 3;
    },
  });
  const channel = openChannel(caller, { frames: RELEASE_FRAMES });
  assert.equal(await sendRelease(channel, envelope), 3);
  assert.deepEqual(got, [envelope]);
  await assert.rejects(sendRelease(channel, envelope), isCode('PEER_REFUSED'));
  await channel.close();
});
