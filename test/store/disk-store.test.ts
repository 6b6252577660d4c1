import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { openDiskStore, type DiskStore } from '../../src/store/disk-store.ts';
import { verified } from '../../src/store/verified.ts';
import { blockStoreSuite, type OpenedStore } from '../suites/block-store.ts';

async function openFresh(t: TestContext, wrap: (store: DiskStore) => DiskStore): Promise<OpenedStore> {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-store-'));
  t.after(() => rm(dir, { recursive: true }));
  let store = await openDiskStore(dir);
  const reopen = async (): Promise<DiskStore> => {
    await store[Symbol.asyncDispose]();
    store = await openDiskStore(dir);
    return wrap(store);
  };
  return { store: wrap(store), reopen };
}

blockStoreSuite('disk store', (t) => openFresh(t, (store) => store));
blockStoreSuite('verified disk store', (t) => openFresh(t, (store) => verified(store, () => undefined)));
