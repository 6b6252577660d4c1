// libp2p's datastore (peer store, DHT): level on disk, with a cap on what other peers can make the DHT keep.
// kad-dht 16.4.5 has no cap of its own: one peer filed 35,500 provider records in 10 s. DHT values are refused, as nothing here uses them.
import type { Batch, Datastore, Key } from 'interface-datastore';
import { rename, rm } from 'node:fs/promises';
import { LevelDatastore } from 'datastore-level';
import { Level } from 'level';
import { DezentError, systemCode } from '../../errors.ts';

const PROVIDER_PREFIX = '/dht/provider/';
const VALUE_PREFIX = '/dht/record/';
/** A device publishes at most 10,000 a day and records live 48 h (kad-dht): two days' worth and the group's own. */
export const MAX_PROVIDER_RECORDS_PER_PEER = 20_480;
/** About 60 MB on disk. */
export const MAX_PROVIDER_RECORDS = 262_144;

export interface DhtCaps {
  perPeer: number;
  total: number;
}

/**
 * Opens or creates the datastore in `directory`. `close` it after libp2p has stopped. One that is damaged is set aside as `….damaged`: all in it
 * comes back from peers. Throws ALREADY_RUNNING when another process has it.
 */
export async function openDhtDatastore(
  directory: string,
  caps: DhtCaps = { perPeer: MAX_PROVIDER_RECORDS_PER_PEER, total: MAX_PROVIDER_RECORDS },
): Promise<Datastore & { close(): Promise<void> }> {
  const db = await openOrSetAside(directory);
  const level = new LevelDatastore(db);
  // Counted in the background, so that a full store does not delay the start; the first record waits for it.
  const counting = countProviders(level);
  const capped = withCaps(level, counting, caps);
  return Object.assign(capped, {
    async close() {
      await counting;
      await db.close();
    },
  });
}

async function openOrSetAside(directory: string): Promise<Level<string, Uint8Array>> {
  try {
    return await openLevel(directory);
  } catch (error) {
    const code = systemCode(error instanceof Error ? error.cause : undefined);
    if (code === 'LEVEL_LOCKED') {
      throw new DezentError('ALREADY_RUNNING', `another node uses ${directory}`, { cause: error });
    }
    if (code !== 'LEVEL_CORRUPTION') throw error;
    await rm(`${directory}.damaged`, { recursive: true, force: true });
    await rename(directory, `${directory}.damaged`);
    return openLevel(directory);
  }
}

async function openLevel(directory: string): Promise<Level<string, Uint8Array>> {
  const db = new Level<string, Uint8Array>(directory, {
    keyEncoding: 'utf8',
    valueEncoding: 'view',
    compression: false,
  });
  await db.open();
  return db;
}

interface Counts {
  total: number;
  byPeer: Map<string, number>;
}

function withCaps(level: LevelDatastore, counting: Promise<Counts>, caps: DhtCaps): Datastore {
  const change = (counts: Counts, peer: string, by: number): void => {
    counts.total += by;
    const now = (counts.byPeer.get(peer) ?? 0) + by;
    if (now > 0) counts.byPeer.set(peer, now);
    else counts.byPeer.delete(peer);
  };
  return {
    async put(key, value, options) {
      const name = key.toString();
      if (name.startsWith(VALUE_PREFIX)) throw new DezentError('NOT_ALLOWED', 'this DHT keeps provider records only');
      if (!name.startsWith(PROVIDER_PREFIX)) return level.put(key, value, options);
      const counts = await counting;
      if (await level.has(key, options)) return level.put(key, value, options);
      const peer = peerOf(name);
      if (counts.total >= caps.total || (counts.byPeer.get(peer) ?? 0) >= caps.perPeer) {
        throw new DezentError('NOT_ALLOWED', `${peer} has filed as many provider records as are kept`);
      }
      change(counts, peer, 1);
      return level.put(key, value, options);
    },
    async delete(key, options) {
      const name = key.toString();
      if (name.startsWith(PROVIDER_PREFIX)) {
        const counts = await counting;
        if (await level.has(key, options)) change(counts, peerOf(name), -1);
      }
      await level.delete(key, options);
    },
    get: (key, options) => level.get(key, options),
    has: (key, options) => level.has(key, options),
    query: (query, options) => level.query(query, options),
    queryKeys: (query, options) => level.queryKeys(query, options),
    getMany: (keys, options) => level.getMany(keys, options),
    async *putMany(pairs, options) {
      for await (const { key, value } of pairs) yield this.put(key, value, options) as Promise<Key>;
    },
    async *deleteMany(keys, options) {
      for await (const key of keys) {
        await this.delete(key, options);
        yield key;
      }
    },
    // libp2p 3.3.11 writes single keys only; a batch would pass the caps by.
    batch: (): Batch => {
      throw new DezentError('INTERNAL', 'the DHT datastore has no batches');
    },
  };
}

async function countProviders(level: LevelDatastore): Promise<Counts> {
  const counts: Counts = { total: 0, byPeer: new Map() };
  for await (const key of level.queryKeys({ prefix: PROVIDER_PREFIX })) {
    const peer = peerOf(key.toString());
    counts.total += 1;
    counts.byPeer.set(peer, (counts.byPeer.get(peer) ?? 0) + 1);
  }
  return counts;
}

/** kad-dht names a record `/dht/provider/<key>/<peer>`. */
function peerOf(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1);
}
