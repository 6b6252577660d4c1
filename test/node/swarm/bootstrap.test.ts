// bootstrap-peers.json: the one in the repository, an empty one, and each way to be wrong, with the entry named.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { cutPeer, peerOfAddr, readBootstrapPeers } from '../../../src/node/swarm/bootstrap.ts';

const directory = await mkdtemp(join(tmpdir(), 'dezent-bootstrap-'));
after(() => rm(directory, { recursive: true, force: true }));
const peerId = '12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5';
const good = `/ip4/192.0.2.7/tcp/8080/p2p/${peerId}`;

async function read(content: string): Promise<string[]> {
  const file = join(directory, 'peers.json');
  await writeFile(file, content);
  return readBootstrapPeers(file);
}

test('the file of the repository, an empty list, and entries are valid', async () => {
  assert.deepEqual(await readBootstrapPeers(join(import.meta.dirname, '../../../bootstrap-peers.json')), []);
  assert.deepEqual(await read('{"v":1,"peers":[]}'), []);
  assert.deepEqual(await read(JSON.stringify({ v: 1, about: 'x', peers: [good] })), [good]);
});

test('what is wrong is named', async () => {
  const peers = (...list: unknown[]): string => JSON.stringify({ v: 1, peers: list });
  await assert.rejects(read(peers(good, '/ip4/192.0.2.7/tcp/8080')), { code: 'CONFIG', message: /peers\.1/u });
  await assert.rejects(read(peers('nonsense')), { code: 'CONFIG', message: /nonsense/u });
  await assert.rejects(read(peers(7)), { code: 'CONFIG', message: /peers\.0/u });
  await assert.rejects(read('{"v":2,"peers":[]}'), { code: 'CONFIG' });
  await assert.rejects(read('[]'), { code: 'CONFIG' });
  await assert.rejects(read('{'), { code: 'CONFIG', message: /no JSON/u });
  await assert.rejects(readBootstrapPeers(join(directory, 'absent')), { code: 'CONFIG', message: /absent/u });
});

test('an address and its peer', () => {
  assert.equal(peerOfAddr(good), peerId);
  assert.equal(cutPeer(good), '/ip4/192.0.2.7/tcp/8080');
  assert.equal(cutPeer('/ip4/192.0.2.7/tcp/8080'), '/ip4/192.0.2.7/tcp/8080');
});
