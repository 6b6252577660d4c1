// Channels over real libp2p streams: calls in good order, many at a time, cancelled, cut off; and peers that break the rules on purpose.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Stream } from '@libp2p/interface';
import { DezentError, isDezentError, type ErrorCode } from '../../src/errors.ts';
import { ALIVE, CANCEL, CREDIT, encodeCredit, END } from '../../src/protocol/call.ts';
import { openChannel, type Call, type Channel, type ChannelOptions } from '../../src/protocol/channel.ts';
import { encodeBody, encodeFrame } from '../../src/protocol/frame.ts';
import { openPairs, type Pairs } from './stream-pair.ts';

const ASK = 16;
const BLOB = 17;
const MIB = 1024 * 1024;
const frames = {
  [ASK]: { name: 'ask', maxBytes: MIB },
  [BLOB]: { name: 'blob', maxBytes: 4 * MIB, bulk: true },
} as const;

let pairs: Pairs;
before(async () => {
  pairs = await openPairs();
});
after(() => pairs[Symbol.asyncDispose]());

const isCode = (code: ErrorCode) => (error: unknown) => isDezentError(error, code);

/** Gives every frame back as it came, and ends when the caller ends. */
async function echo(call: Call): Promise<void> {
  for await (const frame of call.frames) await call.send(frame.type, frame.body);
}

interface Joined {
  client: Channel;
  server: Channel;
}

async function join(onCall: (call: Call) => Promise<void>, options: Partial<ChannelOptions> = {}): Promise<Joined> {
  const { caller, server } = await pairs.open();
  return {
    client: openChannel(caller, { frames, ...options }),
    server: openChannel(server, { frames, ...options, onCall }),
  };
}

/** A channel that serves, and the bare stream of a peer that does as it likes. */
async function attack(
  onCall: (call: Call) => Promise<void>,
  options: Partial<ChannelOptions> = {},
): Promise<{ peer: Stream; server: Channel }> {
  const { caller, server } = await pairs.open();
  return { peer: caller, server: openChannel(server, { frames, ...options, onCall }) };
}

const one = Uint8Array.of(0);
const raw = (type: number, id: number, body: Uint8Array, last = false): Uint8Array =>
  Buffer.concat(encodeFrame(type, id, [body], last));

test('a call is answered, frame by frame, and ends on both sides', async () => {
  const { client, server } = await join(echo);
  const call = client.open();
  await call.send(ASK, Uint8Array.of(1));
  assert.deepEqual((await call.next())?.body, Uint8Array.of(1));
  await call.send(ASK, [Uint8Array.of(2), Uint8Array.of(3)], { last: true });
  assert.deepEqual((await call.next())?.body, Uint8Array.of(2, 3));
  assert.equal(await call.next(), undefined);
  await client.close();
  assert.equal(await server.closed, undefined);
  assert.equal(await client.closed, undefined);
});

test('a thousand calls are in flight at once, each with its own answer', async () => {
  const { client } = await join(echo);
  const answers = await Promise.all(
    Array.from({ length: 1000 }, async (_, index) => {
      const call = client.open();
      const body = new Uint8Array(index + 1).fill(index);
      await call.send(ASK, body, { last: true });
      const frame = await call.next();
      return Buffer.compare(frame?.body ?? new Uint8Array(), body) === 0;
    }),
  );
  assert.equal(answers.filter(Boolean).length, 1000);
  await client.close();
});

test('the 1,001st call is refused here', async () => {
  const { client } = await join(() => new Promise(() => undefined));
  for (let index = 0; index < 1000; index++) await client.open().send(ASK, Uint8Array.of(1));
  await assert.rejects(client.open().send(ASK, Uint8Array.of(1)), isCode('BUSY'));
  client.abort(new DezentError('CANCELLED', 'enough'));
});

test('bulk both ways, far beyond the credit, arrives whole', async () => {
  const { client } = await join(echo);
  const call = client.open();
  const blob = new Uint8Array(4 * MIB).map((_, index) => index * 31);
  const count = 12;
  const sending = (async () => {
    for (let index = 0; index < count; index++) await call.send(BLOB, blob, { last: index === count - 1 });
  })();
  let got = 0;
  for await (const frame of call.frames) {
    assert.equal(Buffer.compare(frame.body, blob), 0);
    got++;
  }
  await sending;
  assert.equal(got, count);
  await client.close();
});

test('a peer that takes no blocks is sent no more than the credit, and is given up', async () => {
  const taken: number[] = [];
  const { client, server } = await join(
    async (call) => {
      await call.next();
      await new Promise((resolve) => call.signal.addEventListener('abort', resolve));
    },
    { settings: { stallMs: 50 } },
  );
  const call = client.open();
  const blob = new Uint8Array(MIB);
  await assert.rejects(async () => {
    for (let index = 0; ; index++) {
      await call.send(BLOB, blob);
      taken.push(index);
    }
  }, isCode('UNREACHABLE'));
  // One was taken and its credit came back: the window of 8 MiB and one more.
  assert.ok(taken.length <= 9, `${taken.length} MiB were sent`);
  assert.equal((await client.closed)?.code, 'TIMEOUT');
  await server.closed;
});

test('a peer that reads nothing makes writers wait, and is given up', async () => {
  const { caller, server } = await pairs.open();
  server.pause();
  const client = openChannel(caller, { frames, settings: { stallMs: 50 } });
  const call = client.open();
  let sent = 0;
  await assert.rejects(async () => {
    for (; sent < 100; sent++) await call.send(ASK, new Uint8Array(MIB));
  }, isCode('UNREACHABLE'));
  assert.ok(sent < 20, `${sent} MiB were taken for a peer that reads nothing`);
  assert.equal((await client.closed)?.code, 'TIMEOUT');
});

test('frames that nobody takes pause the stream, and it goes on later', async () => {
  const gate = Promise.withResolvers<void>();
  const { caller, server } = await pairs.open();
  openChannel(server, {
    frames,
    async onCall(call) {
      await gate.promise;
      await echo(call);
    },
  });
  const client = openChannel(caller, { frames });
  const call = client.open();
  const count = 30;
  const sending = (async () => {
    for (let index = 0; index < count; index++) {
      await call.send(ASK, new Uint8Array(MIB).fill(index), { last: index === count - 1 });
    }
  })();
  while (server.readStatus !== 'paused') await nextTurn();
  gate.resolve();
  let got = 0;
  for await (const frame of call.frames) assert.equal(frame.body[0], got++);
  await sending;
  assert.equal(got, count);
  await client.close();
});

test('a cancel of the caller reaches the server, and the channel goes on', async () => {
  const cancelled = Promise.withResolvers<unknown>();
  const { client } = await join(async (call) => {
    call.signal.addEventListener('abort', () => cancelled.resolve(call.signal.reason));
    await echo(call);
  });
  const call = client.open();
  await call.send(ASK, Uint8Array.of(1));
  await call.next();
  call.cancel(new DezentError('CANCELLED', 'changed my mind'));
  await assert.rejects(call.next(), isCode('CANCELLED'));
  assert.ok(isDezentError(await cancelled.promise, 'CANCELLED'));
  const next = client.open();
  await next.send(ASK, Uint8Array.of(2), { last: true });
  assert.deepEqual((await next.next())?.body, Uint8Array.of(2));
  await client.close();
});

test('a cancel amid bulk gives the credit back', async () => {
  const { client } = await join(echo);
  const blob = new Uint8Array(4 * MIB);
  for (let round = 0; round < 6; round++) {
    const call = client.open();
    await call.send(BLOB, blob);
    call.cancel(new DezentError('CANCELLED', 'no more'));
  }
  const call = client.open();
  await call.send(BLOB, blob, { last: true });
  assert.equal((await call.next())?.body.length, blob.length);
  await client.close();
});

test('a signal cancels, as a timeout where it is one', async () => {
  const { client } = await join(() => new Promise(() => undefined));
  const stop = new AbortController();
  const call = client.open({ signal: stop.signal });
  await call.send(ASK, Uint8Array.of(1));
  stop.abort();
  await assert.rejects(call.next(), isCode('CANCELLED'));
  const late = client.open({ signal: AbortSignal.timeout(5) });
  await late.send(ASK, Uint8Array.of(1));
  await assert.rejects(late.next(), isCode('TIMEOUT'));
  await assert.rejects(client.open({ signal: stop.signal }).send(ASK, Uint8Array.of(1)), isCode('CANCELLED'));
  client.abort(new DezentError('CANCELLED', 'enough'));
});

test('an error of the server is told with its words and reported there', async () => {
  const faults: DezentError[] = [];
  const { client } = await join(
    async (call) => {
      await call.next();
      throw new DezentError('DISK_FULL', 'no room\u0007 left');
    },
    { onFault: (fault) => faults.push(fault) },
  );
  const call = client.open();
  await call.send(ASK, Uint8Array.of(1));
  await assert.rejects(
    call.next(),
    (error) => isDezentError(error, 'PEER_REFUSED') && /no room {2}left.*DISK_FULL/.test(error.message),
  );
  assert.equal(faults[0]?.code, 'DISK_FULL');
  await client.close();
});

test('a connection reset in the middle fails all calls and both channels', async () => {
  const { client, server } = await join(() => new Promise(() => undefined));
  const call = client.open();
  await call.send(ASK, Uint8Array.of(1));
  const waiting = assert.rejects(call.next(), isCode('UNREACHABLE'));
  await pairs.breakConnection();
  await waiting;
  assert.ok((await client.closed) instanceof DezentError);
  assert.ok((await server.closed) instanceof DezentError);
  assert.throws(() => client.open(), isCode('UNREACHABLE'));
});

test('a server that works for long says that it is alive', async () => {
  const { peer, server } = await attack(() => new Promise(() => undefined), { settings: { aliveMs: 5 } });
  const arrived = new Promise<Uint8Array>((resolve) => {
    peer.addEventListener('message', (event) => resolve(event.data.subarray()), { once: true });
  });
  peer.send(raw(ASK, 1, one));
  assert.equal((await arrived)[0], ALIVE);
  server.abort(new DezentError('CANCELLED', 'enough'));
});

test('a silent server is given up', async () => {
  const { caller } = await pairs.open();
  const client = openChannel(caller, { frames, settings: { silenceMs: 20 } });
  const call = client.open();
  await call.send(ASK, Uint8Array.of(1), { last: true });
  await assert.rejects(call.next(), isCode('UNREACHABLE'));
  assert.equal((await client.closed)?.code, 'TIMEOUT');
});

// ── peers that break the rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const head = (type: number, id: number, length: number): Uint8Array => {
  const bytes = Buffer.alloc(9);
  bytes[0] = type;
  bytes.writeUInt32BE(id, 1);
  bytes.writeUInt32BE(length, 5);
  return bytes;
};

for (const [what, bytes] of [
  ['length 0', head(ASK, 1, 0)],
  ['length 2³¹', head(ASK, 1, 2 ** 31)],
  ['a blob over its limit', head(BLOB, 1, 4 * MIB + 1)],
  ['an unknown type', raw(99, 1, one)],
  ['call 0', raw(ASK, 0, one)],
  ['a call number that was skipped', raw(ASK, 2, one)],
  ['a frame after the end', Buffer.concat([raw(ASK, 1, one, true), raw(ASK, 1, one)])],
  ['an end after the end', Buffer.concat([raw(ASK, 1, one, true), raw(END, 1, one)])],
  ['a cancel of a call that never was', raw(CANCEL, 7, encodeBody(['X', 'x']))],
  ['a cancel that is no DAG-CBOR', Buffer.concat([raw(ASK, 1, one), raw(CANCEL, 1, Uint8Array.of(0xff))])],
  ['credit that was never charged', raw(CREDIT, 0, encodeCredit(1))],
  ['a credit of three bytes', raw(CREDIT, 0, new Uint8Array(3))],
  ['1,001 calls', Buffer.concat(Array.from({ length: 1001 }, (_, index) => raw(ASK, index + 1, one)))],
] as const) {
  test(`hostile: ${what}`, async () => {
    const { peer, server } = await attack(() => new Promise(() => undefined));
    peer.send(bytes);
    assert.equal((await server.closed)?.code, 'BAD_FRAME');
  });
}

test('hostile: more bulk than the credit', async () => {
  const { peer, server } = await attack(() => new Promise(() => undefined));
  const blob = new Uint8Array(4 * MIB);
  for (let index = 0; index < 3; index++) {
    const bytes = raw(BLOB, 1, blob);
    for (let at = 0; at < bytes.length && peer.status === 'open'; at += MIB) {
      if (!peer.send(bytes.subarray(at, at + MIB))) await peer.onDrain().catch(() => undefined);
    }
  }
  assert.equal((await server.closed)?.code, 'BAD_FRAME');
});

test('hostile: half a frame, then silence', async () => {
  for (const bytes of [raw(ASK, 1, one).subarray(0, 4), head(BLOB, 1, 4 * MIB)]) {
    const { peer, server } = await attack(echo, { settings: { halfFrameMs: 20 } });
    peer.send(bytes);
    assert.equal((await server.closed)?.code, 'TIMEOUT');
  }
});

test('hostile: an answer that nobody asked for', async () => {
  const { caller, server } = await pairs.open();
  const client = openChannel(caller, { frames });
  server.send(raw(BLOB, 1, new Uint8Array(100)));
  assert.equal((await client.closed)?.code, 'BAD_FRAME');
});

test('hostile: calls begun and cancelled without end do not pile up', async () => {
  const { peer, server } = await attack(() => new Promise(() => undefined), { settings: { maxCalls: 10 } });
  const bytes = Array.from({ length: 30 }, (_, index) =>
    Buffer.concat([raw(ASK, index + 1, one), raw(CANCEL, index + 1, encodeBody(['X', 'x']))]),
  );
  peer.send(Buffer.concat(bytes));
  assert.equal((await server.closed)?.code, 'BAD_FRAME');
});
