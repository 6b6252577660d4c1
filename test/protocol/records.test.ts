// records and the messages under it, both sides over real streams: what is exchanged, what is refused, and what a broken peer gets.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { encode } from '@ipld/dag-cbor';
import * as fc from 'fast-check';
import { encodeEnvelope } from '../../src/protocol/signature.ts';
import { DezentError } from '../../src/errors.ts';
import type { GroupRecords } from '../../src/protocol/group-records.ts';
import { openMessages } from '../../src/protocol/message-stream.ts';
import { pushHead, serveRecords, syncRecords, type PeerAddrs, type RecordsSide } from '../../src/protocol/records.ts';
import { openPairs } from './stream-pair.ts';

const pairs = await openPairs();
after(() => pairs[Symbol.asyncDispose]());
const signal = AbortSignal.timeout(30_000);

interface Side extends RecordsSide {
  held: Set<string>;
  learned: PeerAddrs[];
}

/** Records are texts; one that begins with "bad" is refused. */
function sideWith(texts: readonly string[], peers: PeerAddrs[] = []): Side {
  const held = new Set(texts);
  const learned: PeerAddrs[] = [];
  const toText = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
  const recordsOf = (kind: string): Uint8Array[] =>
    [...held].filter((text) => text.startsWith(kind)).map((text) => new Uint8Array(Buffer.from(text, 'latin1')));
  return {
    held,
    learned,
    records: () => ({ entries: recordsOf('e'), owners: recordsOf('o'), heads: recordsOf('h') }),
    async merge({ entries, owners, heads }: GroupRecords) {
      const given = [...entries, ...owners, ...heads].map(toText);
      if (given.some((text) => text.includes('bad'))) throw new DezentError('BAD_RECORD', 'a bad record');
      for (const text of given) held.add(text);
    },
    async keepHead(head) {
      if (toText(head).includes('bad')) throw new DezentError('BAD_RECORD', 'a bad head');
      held.add('kept');
    },
    peers: () => peers,
    learn: async (told) => void learned.push(...told),
  };
}

async function exchange(caller: Side, server: Side): Promise<{ refused: string | undefined }> {
  const pair = await pairs.open();
  const [, served] = await Promise.all([
    syncRecords(pair.caller, caller, signal),
    serveRecords(pair.server, server, signal),
  ]);
  return { refused: served.refused?.message };
}

test('after an exchange both sides hold what either held, whatever it was', async () => {
  const texts = fc.uniqueArray(
    fc.tuple(fc.constantFrom('e', 'o', 'h'), fc.string({ maxLength: 50, unit: 'binary-ascii' })),
    {
      maxLength: 20,
      selector: ([kind, text]) => kind + text,
    },
  );
  await fc.assert(
    fc.asyncProperty(texts, texts, async (mine, theirs) => {
      const toTexts = (list: [string, string][]): string[] =>
        list.map(([kind, text]) => `${kind}${text.replaceAll('bad', 'good')}`);
      const a = sideWith(toTexts(mine));
      const b = sideWith(toTexts(theirs));
      const all = new Set([...a.held, ...b.held]);
      await exchange(a, b);
      assert.deepEqual(new Set(a.held), all);
      assert.deepEqual(new Set(b.held), all);
    }),
    { numRuns: 20 },
  );
});

test('large sets travel in several messages, and addresses both ways', async () => {
  const large = Array.from({ length: 8 }, (_, at) => `h${at}${'x'.repeat(400_000)}`);
  const peer = { peerId: 'p', addrs: ['/ip4/192.0.2.1/tcp/1'], seenAt: 5 };
  const a = sideWith(large, [peer]);
  const b = sideWith(['o1'], [{ ...peer, peerId: 'q' }]);
  await exchange(a, b);
  assert.equal(b.held.size, 9);
  assert.deepEqual(a.learned, [{ ...peer, peerId: 'q' }]);
  assert.deepEqual(b.learned, [peer]);
});

test('a refused record is told in words, on either side, and the other direction still works', async () => {
  const bad = sideWith(['ebad']);
  const good = sideWith(['o1']);
  const pair = await pairs.open();
  const serving = serveRecords(pair.server, good, signal);
  await assert.rejects(syncRecords(pair.caller, bad, signal), { code: 'PEER_REFUSED', message: /bad record/u });
  assert.equal((await serving).refused?.message, 'a bad record');
  assert.ok(bad.held.has('o1'));
  const again = await pairs.open();
  const serving2 = serveRecords(again.server, sideWith(['obad']), signal);
  const caller = sideWith(['e2']);
  await assert.rejects(syncRecords(again.caller, caller, signal), { code: 'BAD_RECORD' });
  assert.equal((await serving2).refused, undefined);
});

test('a head is acknowledged once kept, or refused with the reason', async () => {
  const envelope = (text: string): Uint8Array =>
    encodeEnvelope({ payload: Buffer.from(text), signer: new Uint8Array(32), signature: new Uint8Array(64) });
  const side = sideWith([]);
  const first = await pairs.open();
  await Promise.all([pushHead(first.caller, envelope('good'), signal), serveRecords(first.server, side, signal)]);
  assert.ok(side.held.has('kept'));
  const second = await pairs.open();
  const serving = serveRecords(second.server, side, signal);
  await assert.rejects(pushHead(second.caller, envelope('bad'), signal), {
    code: 'PEER_REFUSED',
    message: /bad head/u,
  });
  assert.equal((await serving).kind, 'head');
});

test('broken messages: BAD_FRAME and a closed stream', async () => {
  const frames: Record<string, Uint8Array> = {
    'length 0': Uint8Array.of(0, 0, 0, 0),
    'length 2³¹': Uint8Array.of(0x80, 0, 0, 0),
    'no CBOR': Uint8Array.of(0, 0, 0, 1, 0xff),
    'another message': Buffer.concat([Uint8Array.of(0, 0, 0, 7), encode({ t: 'done' })]).subarray(0, 11),
    'too many fields': framed({ t: 'have', v: 1, digests: [], peers: [], more: 1 }),
    'a short digest': framed({ t: 'have', v: 1, digests: [new Uint8Array(3)], peers: [] }),
  };
  for (const [name, frame] of Object.entries(frames)) {
    const { caller, server } = await pairs.open();
    const serving = serveRecords(server, sideWith([]), signal);
    caller.send(frame);
    await assert.rejects(serving, { code: 'BAD_FRAME' }, name);
    server.abort(new Error('done'));
  }
});

test('half a message, then the end; and nothing at all until the signal', async () => {
  const half = await pairs.open();
  const reading = openMessages(half.server, { maxReceiveBytes: 100, maxSendBytes: 100, signal }).receive();
  half.caller.send(Uint8Array.of(0, 0, 0, 9, 1));
  await Promise.all([half.caller.close(), assert.rejects(reading, { code: 'BAD_FRAME' })]);
  const silent = await pairs.open();
  const ending = new AbortController();
  const waiting = serveRecords(silent.server, sideWith([]), ending.signal);
  ending.abort(new DezentError('TIMEOUT', 'too late'));
  await assert.rejects(waiting, { code: 'UNREACHABLE', message: /too late/u });
  assert.equal(silent.server.status, 'aborted');
});

test('a sender is stopped before its own limit is passed', async () => {
  const { caller } = await pairs.open();
  const messages = openMessages(caller, { maxReceiveBytes: 10, maxSendBytes: 10, signal });
  await assert.rejects(messages.send('a text of more than ten bytes'), { code: 'BAD_FRAME' });
  caller.abort(new Error('done'));
});

function framed(value: unknown): Uint8Array {
  const body = encode(value);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}
