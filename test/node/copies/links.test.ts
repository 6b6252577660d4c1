// Links between two nodes over real streams: one channel for each protocol, shared, opened anew after a break, closed when the peer goes.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Stream } from '@libp2p/interface';
import { DezentError, isDezentError, type ErrorCode } from '../../../src/errors.ts';
import { openLinks, type LinkProtocol, type Links, type LinksNeeds } from '../../../src/node/copies/links.ts';
import { silentLog } from '../../../src/node/home/log.ts';
import type { HaveBatch } from '../../../src/protocol/exchange.ts';
import { signRelease, verifyReceipt } from '../../../src/protocol/receipt.ts';
import type { BlockId } from '../../../src/store/block.ts';
import { openPairs, type Pairs } from '../../protocol/stream-pair.ts';
import { ANN, blockOf, deviceOf, GROUP, keyOf, openHolder, type TestHolder } from './holder.ts';

const CALLER = deviceOf('ann-1');
const HOLDER = deviceOf('holder');
const isCode = (code: ErrorCode) => (error: unknown) => isDezentError(error, code);

let pairs: Pairs;
before(async () => {
  pairs = await openPairs();
});
after(() => pairs[Symbol.asyncDispose]());

interface Net {
  holder: TestHolder;
  caller: Links;
  server: Links;
  opened: LinkProtocol[];
  haves: HaveBatch[];
  /** Tells both that the other has gone. */
  disconnect(): void;
  unreachable: boolean;
}

type Serve = (stream: Stream, peerId: string) => void;

/** The caller's and the holder's links, joined by real streams as a swarm would. */
async function openNet(stack: AsyncDisposableStack): Promise<Net> {
  const holder = stack.use(await openHolder());
  const serving = new Map<LinkProtocol, Serve>();
  const listeners: ((peerId: string) => void)[] = [];
  const groupOf = (deviceId: string) => ({ groupIdBytes: GROUP, deviceId, ownerId: ANN });
  const swarmOf = (peerId: string, handle: LinksNeeds['swarm']['handle']): LinksNeeds['swarm'] => ({
    async stream(_to, protocol) {
      if (net.unreachable) throw new DezentError('UNREACHABLE', 'it is away');
      net.opened.push(protocol);
      const { caller, server } = await pairs.open();
      serving.get(protocol)?.(server, peerId);
      return caller;
    },
    handle,
    onDisconnected(listener) {
      listeners.push(listener);
      return () => listeners.splice(listeners.indexOf(listener), 1);
    },
  });
  const onHave = async (_peerId: string, batch: HaveBatch): Promise<void> => void net.haves.push(batch);
  const server = openLinks({
    swarm: swarmOf(HOLDER, (protocol, serve) => serving.set(protocol, serve)),
    group: groupOf(HOLDER),
    keeper: holder.keeper,
    onHave,
    log: silentLog,
  });
  const caller = openLinks({
    swarm: swarmOf(CALLER, () => undefined),
    group: groupOf(CALLER),
    keeper: holder.keeper,
    onHave,
    log: silentLog,
  });
  const net: Net = {
    holder,
    caller: stack.use(caller),
    server: stack.use(server),
    opened: [],
    haves: [],
    disconnect() {
      for (const listener of listeners) for (const peerId of [CALLER, HOLDER]) listener(peerId);
    },
    unreachable: false,
  };
  return net;
}

const [a, b] = [blockOf('a'), blockOf('b')];
const bytesOf = new Map([a, b].map(({ id, bytes }) => [id, bytes]));
const read = async (id: BlockId): Promise<Uint8Array> => bytesOf.get(id) ?? assert.fail('an unknown block');
const blocks = [a, b].map(({ id, length }) => ({ id, length }));

test('push, want, prove and release go over one channel each', async () => {
  await using stack = new AsyncDisposableStack();
  const net = await openNet(stack);
  const result = await net.caller.fs(HOLDER).push({ blocks, read });
  assert.ok('receipt' in result);
  assert.deepEqual(await net.caller.exchange(HOLDER).want(a.id), a.bytes);
  assert.deepEqual(await net.caller.exchange(HOLDER).want(b.id), b.bytes);
  assert.deepEqual(
    await net.caller.audit(HOLDER).prove({ ids: [a.id, b.id], read }),
    new Map([
      [a.id, 'proved'],
      [b.id, 'proved'],
    ]),
  );
  const { nonce } = verifyReceipt(GROUP, result.receipt);
  await net.caller.fs(HOLDER).finish({ nonce, holders: [] });
  const release = signRelease(GROUP, { device: CALLER, holder: HOLDER, nonces: [nonce], ids: [] }, keyOf('ann-1'));
  assert.equal(await net.caller.release(HOLDER).release(release), 1);
  await net.caller.exchange(HOLDER).have({ full: true, added: [a.id], removed: [] });
  assert.deepEqual(net.haves, [{ full: true, added: [a.id], removed: [] }]);
  assert.deepEqual(net.opened, ['fs', 'exchange', 'audit', 'release']);
});

test('users who come at once share one channel', async () => {
  await using stack = new AsyncDisposableStack();
  const net = await openNet(stack);
  await Promise.all(Array.from({ length: 20 }, () => net.caller.exchange(HOLDER).want(a.id)));
  assert.deepEqual(net.opened, ['exchange']);
});

test('after a broken connection the next call opens a new channel', async () => {
  await using stack = new AsyncDisposableStack();
  const net = await openNet(stack);
  const exchange = net.caller.exchange(HOLDER);
  assert.equal(await exchange.want(a.id), undefined);
  await pairs.breakConnection();
  await exchange.want(a.id).catch((error: unknown) => assert.ok(isDezentError(error, 'UNREACHABLE')));
  assert.equal(await exchange.want(a.id), undefined);
  assert.deepEqual(net.opened, ['exchange', 'exchange']);
});

test('a peer that cannot be reached is tried again at the next call', async () => {
  await using stack = new AsyncDisposableStack();
  const net = await openNet(stack);
  net.unreachable = true;
  await assert.rejects(net.caller.exchange(HOLDER).want(a.id), isCode('UNREACHABLE'));
  await assert.rejects(net.caller.fs(HOLDER).push({ blocks, read }), isCode('UNREACHABLE'));
  net.unreachable = false;
  assert.equal(await net.caller.exchange(HOLDER).want(a.id), undefined);
});

test('when the peer goes, its calls end', async () => {
  await using stack = new AsyncDisposableStack();
  const net = await openNet(stack);
  net.holder.store.get = () => new Promise(() => undefined);
  const waiting = net.caller.exchange(HOLDER).want(a.id);
  while (net.opened.length === 0) await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setImmediate(resolve));
  net.disconnect();
  await assert.rejects(waiting, isCode('UNREACHABLE'));
});

test('after stopping nothing is opened any more', async () => {
  await using stack = new AsyncDisposableStack();
  const net = await openNet(stack);
  await net.caller[Symbol.asyncDispose]();
  await assert.rejects(net.caller.exchange(HOLDER).want(a.id), isCode('CANCELLED'));
});
