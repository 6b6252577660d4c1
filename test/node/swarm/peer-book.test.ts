// The peer book: a peer's own word before hearsay, only members, only plain IP addresses, durable.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Level } from 'level';
import { isDialable, openPeerBook, rememberPeers } from '../../../src/node/swarm/peer-book.ts';

const addr = (last: number): string => `/ip4/192.0.2.${last}/tcp/8080`;

test('what is told, what is kept, and in which order addresses are tried', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'dezent-book-'));
  let db = new Level(directory);
  const listed = new Set(['p', 'q']);
  const isListed = (peerId: string): boolean => listed.has(peerId);
  let book = await openPeerBook(db, isListed);
  assert.deepEqual(await book.learn('q', [{ peerId: 'p', addrs: [addr(1)], seenAt: 7 }]), ['p']);
  assert.deepEqual(await book.learn('q', [{ peerId: 'p', addrs: [addr(1)], seenAt: 7 }]), []);
  assert.deepEqual(await book.learn('p', [{ peerId: 'p', addrs: [addr(2)], seenAt: 0 }]), ['p']);
  assert.deepEqual(await book.learn('p', [{ peerId: 'stranger', addrs: [addr(3)], seenAt: 1 }]), []);
  assert.deepEqual(book.addrsOf('p'), [addr(2), addr(1)]);
  await book.met('p', addr(4));
  await db.close();

  db = new Level(directory);
  book = await openPeerBook(db, isListed);
  assert.deepEqual(book.addrsOf('p'), [addr(4), addr(2), addr(1)]);
  assert.ok(book.lastSeenAt('p') instanceof Date);
  assert.equal(book.lastSeenAt('q'), undefined);
  assert.deepEqual(
    book.pages().map(({ peerId, addrs }) => ({ peerId, addrs })),
    [{ peerId: 'p', addrs: [addr(2), addr(1)] }],
  );
  listed.delete('p');
  assert.deepEqual(book.pages(), []);
  await rememberPeers(db, [{ peerId: 'q', addrs: [addr(9)], seenAt: 1 }]);
  assert.deepEqual((await openPeerBook(db, isListed)).addrsOf('q'), [addr(9)]);
  await db.close();
  await rm(directory, { recursive: true, force: true });
});

test('only an IP address with a port is worth dialling', () => {
  assert.ok(isDialable(addr(1)));
  assert.ok(isDialable('/ip6/2001:db8::1/tcp/8080'));
  for (const bad of [
    '',
    'x',
    '/dns4/example.org/tcp/80',
    '/ip4/192.0.2.1/udp/9',
    `${addr(1)}/ws`,
    '/ip4/1.2.3/tcp/1',
  ]) {
    assert.equal(isDialable(bad), false, bad);
  }
});
