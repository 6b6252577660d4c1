// The caps on what peers can make the DHT keep; counted over restarts.
import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Key } from 'interface-datastore';
import { openDhtDatastore } from '../../../src/node/swarm/dht-datastore.ts';

const provider = (name: string, peer: string): Key => new Key(`/dht/provider/${name}/${peer}`);
const value = Uint8Array.of(1);

test('provider records are capped per peer and in all; DHT values are refused; all else passes', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'dezent-dht-'));
  const caps = { perPeer: 2, total: 3 };
  let store = await openDhtDatastore(directory, caps);
  await store.put(provider('a', 'p'), value);
  await store.put(provider('b', 'p'), value);
  await store.put(provider('b', 'p'), value);
  await assert.rejects(async () => store.put(provider('c', 'p'), value), { code: 'NOT_ALLOWED' });
  await assert.rejects(async () => store.put(new Key('/dht/record/x'), value), { code: 'NOT_ALLOWED' });
  await store.put(new Key('/peers/x'), value);
  await store.close();

  store = await openDhtDatastore(directory, caps);
  await store.put(provider('a', 'q'), value);
  await assert.rejects(async () => store.put(provider('b', 'q'), value), { code: 'NOT_ALLOWED' });
  await store.delete(provider('a', 'p'));
  await store.delete(provider('a', 'p'));
  await store.put(provider('b', 'q'), value);
  const names: string[] = [];
  for await (const { key } of store.query({ prefix: '/dht/provider' })) names.push(key.toString());
  assert.deepEqual(names, ['/dht/provider/a/q', '/dht/provider/b/p', '/dht/provider/b/q']);
  assert.deepEqual(new Uint8Array(await store.get(new Key('/peers/x'))), value);
  await store.close();
  await rm(directory, { recursive: true, force: true });
});

test('a damaged datastore is set aside, one in use is not touched', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'dezent-dht-'));
  const path = join(directory, 'datastore');
  let store = await openDhtDatastore(path);
  await store.put(new Key('/peers/x'), value);
  await assert.rejects(openDhtDatastore(path), { code: 'ALREADY_RUNNING' });
  await store.close();
  for (const name of await readdir(path)) {
    if (name.startsWith('MANIFEST'))
      await writeFile(join(path, name), 'not a manifest at all, but long enough to be read');
  }
  store = await openDhtDatastore(path);
  assert.equal(await store.has(new Key('/peers/x')), false);
  await store.put(new Key('/peers/y'), value);
  await store.close();
  assert.deepEqual((await readdir(directory)).sort(), ['datastore', 'datastore.damaged']);
  await rm(directory, { recursive: true, force: true });
});
