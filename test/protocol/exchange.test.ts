// Exchange over real streams: blocks on request, absent ones, liars, and news of what a peer has.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { DezentError, isDezentError, type ErrorCode } from '../../src/errors.ts';
import { openChannel, type Channel } from '../../src/protocol/channel.ts';
import {
  EXCHANGE_FRAMES,
  openExchange,
  serveExchange,
  type Exchange,
  type ExchangeServer,
  type HaveBatch,
} from '../../src/protocol/exchange.ts';
import { encodeBody, encodeFrame } from '../../src/protocol/frame.ts';
import { blockIdFromDigest, blockIdOf, blockIdToBytes, type BlockId } from '../../src/store/block.ts';
import { openPairs, type Pairs } from './stream-pair.ts';

let pairs: Pairs;
before(async () => {
  pairs = await openPairs();
});
after(() => pairs[Symbol.asyncDispose]());

const isCode = (code: ErrorCode) => (error: unknown) => isDezentError(error, code);

async function connect(
  needs: Partial<ExchangeServer>,
): Promise<{ exchange: Exchange; channel: Channel; server: Channel }> {
  const { caller, server } = await pairs.open();
  const channel = openChannel(caller, { frames: EXCHANGE_FRAMES });
  return {
    channel,
    exchange: openExchange(async () => channel),
    server: serveExchange(server, 'peer', { get: async () => undefined, onHave: async () => undefined, ...needs }),
  };
}

const someIds = (count: number): BlockId[] => Array.from({ length: count }, () => blockIdFromDigest(randomBytes(32)));

test('blocks of all sizes come as they are, many at a time; absent ones as absent', async () => {
  const blocks = new Map(
    [1, 100, 70_000, 4 * 1024 * 1024].flatMap((length) => {
      const bytes = new Uint8Array(randomBytes(length));
      return [[blockIdOf(bytes), bytes] as const];
    }),
  );
  const { exchange, channel } = await connect({ get: async (id) => blocks.get(id) });
  const got = await Promise.all([...blocks.keys()].map((id) => exchange.want(id)));
  assert.deepEqual(got, [...blocks.values()]);
  assert.equal(await exchange.want(blockIdOf(new Uint8Array(3))), undefined);
  await channel.close();
});

test('two thousand wants at once, a few blocks at a time in the memory of the server', async () => {
  const bytes = new Uint8Array(500).fill(4);
  let reading = 0;
  let most = 0;
  const { exchange, channel } = await connect({
    async get() {
      most = Math.max(most, ++reading);
      await new Promise((resolve) => setImmediate(resolve));
      reading--;
      return bytes;
    },
  });
  const id = blockIdOf(bytes);
  const got = await Promise.all(Array.from({ length: 2000 }, () => exchange.want(id)));
  assert.ok(got.every((block) => block?.length === 500));
  assert.ok(most <= 16, `${most} blocks were read at once`);
  await channel.close();
});

test('could not tell is neither absent nor a lie', async () => {
  const faults: DezentError[] = [];
  const { exchange, channel } = await connect({
    get: () => Promise.reject(new DezentError('BAD_BLOCK', 'damaged here')),
    onFault: (fault) => faults.push(fault),
  });
  await assert.rejects(exchange.want(blockIdOf(new Uint8Array(1))), isCode('PEER_REFUSED'));
  assert.equal(faults.length, 1);
  await channel.close();
});

test('wrong bytes are a lie', async () => {
  const { exchange, channel } = await connect({ get: async () => new Uint8Array(5) });
  await assert.rejects(exchange.want(blockIdOf(new Uint8Array(6))), isCode('BAD_BLOCK'));
  await channel.close();
});

test('another block than asked for, also as absent, is a lie', async () => {
  const other = new Uint8Array(5);
  const id = blockIdToBytes(blockIdOf(other));
  for (const [type, body] of [
    [17, Buffer.concat([id, other])],
    [18, id],
  ] as const) {
    const { caller, server } = await pairs.open();
    server.addEventListener('message', () => server.send(Buffer.concat(encodeFrame(type, 1, [body], true))), {
      once: true,
    });
    const channel = openChannel(caller, { frames: EXCHANGE_FRAMES });
    await assert.rejects(openExchange(async () => channel).want(blockIdOf(new Uint8Array(6))), isCode('BAD_BLOCK'));
    channel.abort(new DezentError('CANCELLED', 'enough'));
  }
});

test('an answer of another kind breaks the protocol', async () => {
  const { caller, server } = await pairs.open();
  server.addEventListener('message', () => server.send(Buffer.concat(encodeFrame(20, 1, [new Uint8Array(1)], true))), {
    once: true,
  });
  const channel = openChannel(caller, { frames: EXCHANGE_FRAMES });
  await assert.rejects(openExchange(async () => channel).want(blockIdOf(new Uint8Array(6))), isCode('BAD_FRAME'));
  channel.abort(new DezentError('CANCELLED', 'enough'));
});

test('a want ends with its signal, and the others go on', async () => {
  const bytes = new Uint8Array(5);
  const { exchange, channel } = await connect({
    get: (id) => (id === blockIdOf(bytes) ? Promise.resolve(bytes) : new Promise(() => undefined)),
  });
  await assert.rejects(
    exchange.want(blockIdOf(new Uint8Array(6)), { signal: AbortSignal.timeout(5) }),
    isCode('TIMEOUT'),
  );
  assert.deepEqual(await exchange.want(blockIdOf(bytes)), bytes);
  channel.abort(new DezentError('CANCELLED', 'enough'));
});

test('a have of any length arrives whole and in order before it is answered', async () => {
  const batches: HaveBatch[] = [];
  const { exchange, channel } = await connect({
    async onHave(peerId, batch) {
      assert.equal(peerId, 'peer');
      await new Promise((resolve) => setImmediate(resolve));
      batches.push(batch);
    },
  });
  const added = someIds(20_000);
  const removed = someIds(3);
  await exchange.have({ full: true, added, removed });
  assert.deepEqual(
    batches.map(({ full }) => full),
    [true, false, false],
  );
  assert.deepEqual(
    batches.flatMap((batch) => batch.added),
    added,
  );
  assert.deepEqual(
    batches.flatMap((batch) => batch.removed),
    removed,
  );
  batches.length = 0;
  await exchange.have({ full: true, added: [], removed: [] });
  assert.deepEqual(batches, [{ full: true, added: [], removed: [] }]);
  await channel.close();
});

test('hostile callers: a want of another size, a have that is none, something else', async () => {
  for (const [type, body] of [
    [16, new Uint8Array(35)],
    [19, encodeBody({ full: true, added: new Uint8Array(35), removed: new Uint8Array() })],
    [19, encodeBody({ full: 1 })],
    [18, new Uint8Array(36)],
  ] as const) {
    const { caller, server } = await pairs.open();
    const faults: DezentError[] = [];
    const channel = serveExchange(server, 'peer', {
      get: async () => undefined,
      onHave: async () => undefined,
      onFault: (fault) => {
        faults.push(fault);
        channel.abort(fault);
      },
    });
    caller.send(Buffer.concat(encodeFrame(type, 1, [body], true)));
    assert.match((await channel.closed)?.code ?? '', /^BAD_(FRAME|BLOCK)$/);
    assert.equal(faults.length, 1);
  }
});
