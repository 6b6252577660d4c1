// Push sessions over real streams: what is sent, kept, refused and receipted; what a break leaves behind; and servers and callers that lie.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import type { Stream } from '@libp2p/interface';
import { DezentError, isDezentError, type ErrorCode } from '../../src/errors.ts';
import { openChannel, type Channel } from '../../src/protocol/channel.ts';
import { encodeFrame } from '../../src/protocol/frame.ts';
import { DATA, encodeCheckHash, encodeInit, INIT, CHECK_HASH } from '../../src/protocol/fs-frames.ts';
import {
  FS_FRAMES,
  openFsServer,
  pushBlocks,
  sendFinish,
  type Push,
  type PushResult,
} from '../../src/protocol/fs-session.ts';
import { digestOfIds } from '../../src/protocol/receipt.ts';
import { idText } from '../../src/protocol/signature.ts';
import { blockIdOf, blockIdToBytes, type BlockId } from '../../src/store/block.ts';
import { DEVICE, GROUP, HOLDER, testKeeper, type TestKeeper } from './fs-keeper.ts';
import { openPairs, type Pairs } from './stream-pair.ts';

const OWNER = idText(new Uint8Array(32).fill(3));

let pairs: Pairs;
before(async () => {
  pairs = await openPairs();
});
after(() => pairs[Symbol.asyncDispose]());

const isCode = (code: ErrorCode) => (error: unknown) => isDezentError(error, code);

function makeBlocks(count: number, bytes: number): Map<BlockId, Uint8Array> {
  const blocks = Array.from({ length: count }, () => new Uint8Array(randomBytes(bytes)));
  return new Map(blocks.map((block) => [blockIdOf(block), block]));
}

interface Setup {
  channel: Channel;
  server: Channel;
  keeper: TestKeeper;
}

async function connect(keeper: TestKeeper = testKeeper()): Promise<Setup> {
  const { caller, server } = await pairs.open();
  return {
    channel: openChannel(caller, { frames: FS_FRAMES }),
    server: openFsServer(keeper).serve(server, DEVICE),
    keeper,
  };
}

function push(
  channel: Channel,
  blocks: ReadonlyMap<BlockId, Uint8Array>,
  changes: Partial<Push> = {},
): Promise<PushResult> {
  return pushBlocks(channel, {
    group: GROUP,
    owner: OWNER,
    device: DEVICE,
    holder: HOLDER,
    blocks: [...blocks].map(([id, { length }]) => ({ id, length })),
    async read(id) {
      return blocks.get(id) ?? assert.fail('an unknown block was read');
    },
    ...changes,
  });
}

test('all blocks arrive, are kept in batches, and the receipt covers them', async () => {
  const { channel, keeper } = await connect();
  const blocks = makeBlocks(40, 512 * 1024);
  const progress: number[] = [];
  const result = await push(channel, blocks, { onProgress: (bytes) => progress.push(bytes) });
  assert.ok('receipt' in result);
  assert.equal(result.sentBytes, 40 * 512 * 1024);
  assert.equal(progress.at(-1), result.sentBytes);
  assert.deepEqual(result.content.ids, digestOfIds(blocks.keys()));
  assert.deepEqual(keeper.batches, [16, 16, 8]);
  for (const [id, bytes] of blocks) assert.deepEqual(await keeper.store.get(id), bytes);
  assert.equal(keeper.open, 0);
  await channel.close();
});

test('what is there already is not sent, and still receipted', async () => {
  const { channel, keeper } = await connect();
  const blocks = makeBlocks(9, 1000);
  const [first] = blocks;
  assert.ok(first);
  await keeper.store.put(...first);
  const result = await push(channel, blocks);
  assert.ok('receipt' in result);
  assert.equal(result.sentBytes, 8000);
  const again = await push(channel, blocks, { read: () => assert.fail('nothing is missing') });
  assert.ok('receipt' in again);
  assert.equal(again.sentBytes, 0);
  await channel.close();
});

test('4,096 small blocks in one session, several sessions at a time', async () => {
  const { channel, keeper } = await connect();
  const lists = Array.from({ length: 3 }, () => makeBlocks(4096, 64));
  const results = await Promise.all(lists.map((blocks) => push(channel, blocks)));
  assert.ok(results.every((result) => 'receipt' in result));
  assert.equal((await keeper.store.space()).usedBytes, 3 * 4096 * 64);
  await channel.close();
});

test('a refusal says why', async () => {
  const keeper = testKeeper();
  keeper.refuse = { refused: 'over quota' };
  const { channel } = await connect(keeper);
  assert.deepEqual(await push(channel, makeBlocks(1, 10)), { refused: 'over quota' });
  await channel.close();
});

test('a full disk at the holder is a refusal, and the channel goes on', async () => {
  const keeper = testKeeper();
  keeper.beforeKeep = () => Promise.reject(new DezentError('DISK_FULL', 'no room left'));
  const { channel } = await connect(keeper);
  const result = await push(channel, makeBlocks(40, 512 * 1024));
  assert.ok('refused' in result && /no room left/.test(result.refused));
  delete keeper.beforeKeep;
  assert.ok('receipt' in (await push(channel, makeBlocks(2, 10))));
  assert.equal(keeper.open, 0);
  await channel.close();
});

test('a session that breaks goes on without what has arrived', async () => {
  const keeper = testKeeper();
  const { channel, server } = await connect(keeper);
  const blocks = makeBlocks(30, 1024 * 1024);
  let reads = 0;
  const broken = push(channel, blocks, {
    async read(id) {
      if (++reads === 25) await pairs.breakConnection();
      return blocks.get(id) ?? new Uint8Array();
    },
  });
  await assert.rejects(broken, isCode('UNREACHABLE'));
  await server.closed;
  while (keeper.open > 0) await new Promise((resolve) => setImmediate(resolve));
  const kept = (await keeper.store.space()).usedBytes;
  assert.ok(kept >= 8 * 1024 * 1024, `${kept} bytes were kept`);
  const next = await connect(keeper);
  const result = await push(next.channel, blocks);
  assert.ok('receipt' in result);
  assert.equal(result.sentBytes, 30 * 1024 * 1024 - kept);
  await next.channel.close();
});

test('a block that cannot be read ends the push with that error, and what came before stays', async () => {
  const { channel, keeper } = await connect();
  const blocks = makeBlocks(12, 1000);
  let reads = 0;
  const failing = push(channel, blocks, {
    async read(id) {
      if (++reads === 12) throw new DezentError('IO', 'the disk is ill');
      return blocks.get(id) ?? new Uint8Array();
    },
  });
  await assert.rejects(failing, isCode('IO'));
  while (keeper.open > 0) await new Promise((resolve) => setImmediate(resolve));
  const result = await push(channel, blocks);
  assert.ok('receipt' in result && result.sentBytes < 12_000);
  await channel.close();
});

test('a cancel in the middle ends the session at the holder', async () => {
  const { channel, keeper } = await connect();
  const blocks = makeBlocks(20, 1024 * 1024);
  const stop = new AbortController();
  const cancelled = push(channel, blocks, { signal: stop.signal, onProgress: () => stop.abort() });
  await assert.rejects(cancelled, isCode('CANCELLED'));
  while (keeper.open > 0) await new Promise((resolve) => setImmediate(resolve));
  assert.ok('receipt' in (await push(channel, blocks)));
  await channel.close();
});

test('a block of another length than announced is not sent', async () => {
  const { channel } = await connect();
  const blocks = makeBlocks(1, 100);
  await assert.rejects(push(channel, blocks, { read: async () => new Uint8Array(99) }), isCode('BAD_BLOCK'));
  await channel.close();
});

test('wrong bytes under an id are refused and not kept', async () => {
  const { channel, keeper } = await connect();
  const blocks = makeBlocks(1, 100);
  const result = await push(channel, blocks, { read: async () => new Uint8Array(100) });
  assert.ok('refused' in result && /BAD_BLOCK/.test(result.refused));
  assert.equal((await keeper.store.space()).usedBytes, 0);
  await channel.close();
});

test('a receipt for something else is no receipt', async () => {
  for (const lie of [
    { count: 2 },
    { bytes: 1 },
    { device: HOLDER },
    { owner: idText(GROUP) },
    { ids: new Uint8Array(32) },
  ]) {
    const keeper = testKeeper();
    keeper.lie = lie;
    const { channel } = await connect(keeper);
    await assert.rejects(push(channel, makeBlocks(1, 10)), isCode('BAD_RECORD'), JSON.stringify(lie));
    await channel.close();
  }
  const { channel } = await connect();
  await assert.rejects(push(channel, makeBlocks(1, 10), { holder: DEVICE }), isCode('BAD_RECORD'));
  await channel.close();
});

test('finish names the other holders, and is a call of its own', async () => {
  const { channel, keeper } = await connect();
  const nonce = new Uint8Array(16).fill(5);
  await sendFinish(channel, { nonce, holders: [DEVICE, HOLDER] });
  assert.deepEqual(keeper.finished, [{ nonce, holders: [DEVICE, HOLDER] }]);
  await channel.close();
});

// ── callers that break the rules ────────────────────────────────────────────────────────────────────────────────────────────────────────

async function attack(
  bodies: [type: number, body: Uint8Array, last?: boolean][],
  idleMs = 60_000,
): Promise<{ server: Channel; peer: Stream; keeper: TestKeeper }> {
  const keeper = testKeeper();
  const { caller, server } = await pairs.open();
  const channel = openFsServer(keeper, { idleMs }).serve(server, DEVICE);
  for (const [type, body, last = false] of bodies) caller.send(Buffer.concat(encodeFrame(type, 1, [body], last)));
  return { server: channel, peer: caller, keeper };
}

const block = new Uint8Array(100).fill(1);
const id = blockIdOf(block);
const init = encodeInit({ owner: OWNER, device: DEVICE, blocks: [{ id, length: 100 }] });
const data = (bytes: Uint8Array, of = bytes): Uint8Array => Buffer.concat([blockIdToBytes(blockIdOf(of)), bytes]);

for (const [what, bodies] of [
  [
    'a block nobody asked for',
    [
      [INIT, init],
      [DATA, data(new Uint8Array(9))],
    ],
  ],
  [
    'the same block twice',
    [
      [INIT, init],
      [DATA, data(block)],
      [DATA, data(block)],
    ],
  ],
  [
    'a block of another length',
    [
      [INIT, init],
      [DATA, data(block.subarray(1), block)],
    ],
  ],
  [
    'a data frame without bytes',
    [
      [INIT, init],
      [DATA, blockIdToBytes(id)],
    ],
  ],
  ['data before init', [[DATA, data(block)]]],
  [
    'init twice',
    [
      [INIT, init],
      [INIT, init],
    ],
  ],
  [
    'an end without check hash',
    [
      [INIT, init],
      [DATA, data(block), true],
    ],
  ],
  [
    'an id twice in init',
    [
      [
        INIT,
        encodeInit({
          owner: OWNER,
          device: DEVICE,
          blocks: [
            { id, length: 100 },
            { id, length: 100 },
          ],
        }),
      ],
    ],
  ],
  ['an init of no blocks', [[INIT, encodeInit({ owner: OWNER, device: DEVICE, blocks: [] })]]],
  [
    'a block of 5 MiB in init',
    [[INIT, encodeInit({ owner: OWNER, device: DEVICE, blocks: [{ id, length: 5 * 1024 * 1024 }] })]],
  ],
  ['an init that is no DAG-CBOR', [[INIT, new Uint8Array(100).fill(0x81)]]],
] as [string, [number, Uint8Array, boolean?][]][]) {
  test(`hostile: ${what}`, async () => {
    const { server, keeper } = await attack(bodies);
    assert.equal((await server.closed)?.code, 'BAD_FRAME');
    assert.equal(keeper.open, 0);
  });
}

test('hostile: a caller that goes silent in the middle gives its place up', async () => {
  const { peer, keeper } = await attack([[INIT, init]], 10);
  const answers: Uint8Array[] = [];
  peer.addEventListener('message', (event) => answers.push(event.data.subarray()));
  while (!Buffer.concat(answers).includes('TIMEOUT')) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(keeper.open, 0);
});

test('a check hash that differs, or comes too early, gets no receipt', async () => {
  for (const frames of [
    [
      [INIT, init],
      [DATA, data(block)],
      [CHECK_HASH, encodeCheckHash(new Uint8Array(8)), true],
    ],
    [
      [INIT, init],
      [CHECK_HASH, encodeCheckHash(Uint8Array.from([0x2d, 0x06, 0x80, 0x05, 0x38, 0xd3, 0x94, 0xc2])), true],
    ],
  ] as [number, Uint8Array, boolean?][][]) {
    const { peer } = await attack(frames);
    const answers: Uint8Array[] = [];
    peer.addEventListener('message', (event) => answers.push(event.data.subarray()));
    while (!Buffer.concat(answers).includes('refused')) await new Promise((resolve) => setImmediate(resolve));
  }
});
