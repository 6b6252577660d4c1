// hello, both sides over real streams: what passes, what is cut to fit, what is refused.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { encode } from '@ipld/dag-cbor';
import { DezentError } from '../../src/errors.ts';
import { answerHello, NO_RECORDS, refusal, sayHello, tellable, type HelloRequest } from '../../src/protocol/hello.ts';
import { openPairs } from './stream-pair.ts';

const pairs = await openPairs();
after(() => pairs[Symbol.asyncDispose]());
const signal = AbortSignal.timeout(30_000);
const group = new Uint8Array(32).fill(7);

test('a request arrives as it was sent, and so does the answer', async () => {
  const { caller, server } = await pairs.open();
  const request: HelloRequest = {
    group,
    records: { entries: [Uint8Array.of(1)], owners: [Uint8Array.of(2, 3)], heads: [] },
    claim: Uint8Array.of(4),
  };
  const answer = {
    group,
    admitted: true,
    reason: '',
    records: { entries: [], owners: [], heads: [Uint8Array.of(5)] },
    peers: [{ peerId: 'p', addrs: ['/ip4/192.0.2.1/tcp/1'], seenAt: 1 }],
  };
  let seen: HelloRequest | undefined;
  const serving = answerHello(server, async (asked) => ((seen = asked), answer), signal);
  assert.deepEqual(await sayHello(caller, request, signal), answer);
  await serving;
  assert.deepEqual(seen, request);
});

test('records beyond the limit are left out: heads, then the oldest entries', async () => {
  const { caller, server } = await pairs.open();
  const entry = (at: number): Uint8Array => new Uint8Array(60_000).fill(at);
  const records = { entries: [0, 1, 2, 3, 4, 5].map(entry), owners: [Uint8Array.of(9)], heads: [Uint8Array.of(8)] };
  let seen: HelloRequest | undefined;
  const serving = answerHello(server, async (asked) => ((seen = asked), refusal(group, 'no')), signal);
  await sayHello(caller, { group: undefined, records, claim: undefined }, signal);
  await serving;
  assert.deepEqual(seen?.records.owners, records.owners);
  assert.deepEqual(seen?.records.heads, []);
  assert.deepEqual(seen?.records.entries, records.entries.slice(-4));
});

test('an answer that is none is BAD_FRAME', async () => {
  const { caller, server } = await pairs.open();
  const body = encode({ v: 1, group, admitted: 'yes' });
  server.send(Buffer.concat([Uint8Array.of(0, 0, 0, body.length), body]));
  const request = { group: undefined, records: NO_RECORDS, claim: undefined };
  await assert.rejects(sayHello(caller, request, signal), { code: 'BAD_FRAME' });
});

test('strangers are told reasons meant for them and nothing of inner errors', () => {
  assert.equal(tellable(new DezentError('INVITE', 'the invite has expired')), 'the invite has expired');
  assert.equal(tellable(new DezentError('IO', '/home/anna: disk error')), 'refused');
  assert.equal(tellable(new Error('secret')), 'refused');
});
