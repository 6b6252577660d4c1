// One device's files for tests: the real parts from tree to restore, joined by the stages that a node uses (open-stored.ts,
// open-swapping.ts), on real directories. Only the network is made up: holders are maps in memory that a test may empty or cut off.
import { mkdir, mkdtemp, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { openAdoptStub } from '../../../src/node/files/adopt-stub.ts';
import { openDeletions, type Deletions } from '../../../src/node/files/deletions.ts';
import { openIgnoreRules, type IgnoreRules } from '../../../src/node/files/ignore-rules.ts';
import { openIngest, type Ingest } from '../../../src/node/files/ingest.ts';
import { loadKernel, type Kernel } from '../../../src/node/files/kernel.ts';
import type { Network } from '../../../src/node/open-network.ts';
import { openStored, type FilesNeeds, type Stored } from '../../../src/node/open-stored.ts';
import { openSwapping, type Swapping } from '../../../src/node/open-swapping.ts';
import { recoverFiles } from '../../../src/node/offload/recover.ts';
import type { Settings } from '../../../src/node/home/settings.ts';
import { openState, openTable, SYNC, type StateDb } from '../../../src/node/home/state.ts';
import { openTendFolder, type TendFolder } from '../../../src/node/files/tend-folder.ts';
import type { TreeItem } from '../../../src/node/files/tree.ts';
import { openWarnings, type Warnings } from '../../../src/node/home/warnings.ts';
import { readXattrs } from '../../../src/node/files/xattrs.ts';
import { DezentError } from '../../../src/errors.ts';
import { decodeEnvelope, encodeEnvelope, idText, peerIdOf } from '../../../src/protocol/signature.ts';
import type { BlockId } from '../../../src/store/block.ts';
import type { LocalStore } from '../../../src/store/block-store.ts';
import { openDiskStore } from '../../../src/store/disk-store.ts';
import { openMemoryStore } from '../../../src/store/memory-store.ts';
import { testBytes, TEST_SECRETS } from '../../suites/content.ts';
import { keyOf } from '../copies/holder.ts';

export interface TestHolder {
  blocks: Map<BlockId, Uint8Array>;
  connected: boolean;
}

export interface FilesParts extends Stored, Swapping {
  ingest: Ingest;
  tend: TendFolder;
  deletions: Deletions;
  warnings: Warnings;
  rules: IgnoreRules;
  /** Operations that recovery settled when the parts were opened. */
  recovered: string[];
}

export interface TestFiles extends AsyncDisposable {
  /** FOLDER. */
  readonly root: string;
  readonly home: string;
  readonly settings: Partial<Settings>;
  readonly holders: Map<string, TestHolder>;
  readonly store: LocalStore;
  /** The parts as they are open now. */
  parts: FilesParts;
  db: StateDb;
  /** True while paths are still settling, as the watch would say. */
  busy: boolean;
  /** Paths that were tried again later. */
  retried: string[];
  deleted: string[];
  /** Paths whose copies had to be made. */
  woken: string[];
  at(path: string): string;
  write(path: string, bytes: Uint8Array | string): Promise<void>;
  /** Writes, ingests and hands everything to all connected holders. */
  add(path: string, bytes: Uint8Array | string): Promise<TreeItem>;
  /** Gives the item's blocks to all connected holders. */
  protect(item: TreeItem): Promise<TreeItem>;
  offload(path: string, now?: boolean): Promise<TreeItem>;
  open(stubPath: string): Promise<{ path: string; from: string[] }>;
  read(path: string): Promise<Buffer>;
  /** Everything in FOLDER by its path, sorted; folders are left out. */
  names(): Promise<string[]>;
  /** Closes state and parts and opens them again, with recovery: a restart. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

/** The folder's own mark (folder-mark.ts), which is always there. */
const MARK = join('.dezent', 'folder');

export interface TestFilesOptions {
  settings?: Partial<Settings>;
  /** Names of holders; each keeps one copy. Default: two. */
  holders?: string[];
  /** An existing top directory, which is then kept; the store is on disk there. */
  top?: string;
  /** Where a fresh top directory is made. Default: the system's directory for temporary files. */
  tmp?: string;
  kernel?: Partial<Kernel>;
  /** Called before each write to the state database. */
  onStateWrite?: () => void;
}

const GROUP_ID: Uint8Array = testBytes(32, 21);
const DEVICE = keyOf('files');
const OWNER: string = idText(testBytes(32, 22));

const DEFAULTS: Partial<Settings> = {
  'pipeline.workers': 0,
  'copies.min': 2,
  'copies.target': 3,
  'offload.graceMs': 3_600_000,
  'offload.stubMinBytes': 4096,
  'cache.maxBytes': 2 ** 30,
};

const QUIET_LOG = {
  debug() {},
  info() {},
  warn() {},
  error() {},
} as unknown as FilesNeeds['log'];

/** Level gives all writes of its sublevels to the root: to three private methods, or to a batch that is gathered first. */
export function watchWrites(db: StateDb, onWrite: () => void): void {
  const root = db as unknown as Record<string, (...args: unknown[]) => unknown>;
  for (const name of ['_put', '_del', '_batch']) {
    const original = root[name]?.bind(db);
    if (original === undefined) throw new Error(`level has no ${name}`);
    root[name] = async (...args) => {
      onWrite();
      return original(...args);
    };
  }
  const gather = root['_chainedBatch']?.bind(db);
  if (gather === undefined) throw new Error('level has no _chainedBatch');
  root['_chainedBatch'] = (...args) => {
    const batch = gather(...args) as { _write: (...args: unknown[]) => Promise<void> };
    const write = batch._write.bind(batch);
    batch._write = async (...options) => {
      onWrite();
      return write(...options);
    };
    return batch;
  };
}

export async function openTestFiles(options: TestFilesOptions = {}): Promise<TestFiles> {
  const top = options.top ?? (await realpath(await mkdtemp(join(options.tmp ?? tmpdir(), 'dezent-files-'))));
  const [root, home] = [join(top, 'files'), join(top, 'home')];
  await mkdir(root, { recursive: true });
  await mkdir(home, { recursive: true });
  const store = options.top === undefined ? openMemoryStore() : await openDiskStore(join(home, 'store'));
  const settings: Partial<Settings> = { ...DEFAULTS, ...options.settings };
  const holders = new Map((options.holders ?? ['ann', 'ben']).map((name) => [name, newHolder()]));
  const kernel: Kernel = { ...(await loadKernel()), ...options.kernel };
  const world = { root, home, store, settings, holders, kernel };

  async function open(): Promise<void> {
    files.db = await openState(join(home, 'state'));
    if (options.onStateWrite) watchWrites(files.db, options.onStateWrite);
    files.parts = await openParts(files, world);
  }

  const files: TestFiles = {
    ...world,
    parts: undefined as unknown as FilesParts,
    db: undefined as unknown as StateDb,
    busy: false,
    retried: [],
    deleted: [],
    woken: [],
    at: (path) => join(root, path),
    async write(path, bytes) {
      await mkdir(dirname(files.at(path)), { recursive: true });
      await writeFile(files.at(path), bytes);
    },
    async add(path, bytes) {
      await files.write(path, bytes);
      const ingested = await files.parts.locks.run(path, () => files.parts.ingest.ingest(path));
      if (ingested === undefined) throw new Error(`${path} was not ingested`);
      return files.protect(ingested.item);
    },
    async protect(item) {
      for (const id of await files.parts.copies.idsOf(item)) {
        const bytes = await store.get(id);
        if (bytes === undefined) continue;
        for (const holder of holders.values()) if (holder.connected) holder.blocks.set(id, bytes);
      }
      const kept: TreeItem = {
        ...item,
        state: item.state === 'waiting' ? 'protected' : item.state,
        ...(await files.parts.copies.count(item)),
      };
      await files.parts.tree.set([kept]);
      return kept;
    },
    offload: async (path, now = false) =>
      (await files.parts.locks.run(path, () => files.parts.offload(path, now))).item,
    async open(stubPath) {
      return files.parts.restore.open(files.at(stubPath));
    },
    read: (path) => readFile(files.at(path)),
    async names() {
      const entries = await readdir(root, { recursive: true, withFileTypes: true });
      return entries
        .filter((entry) => !entry.isDirectory())
        .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1))
        .filter((name) => name !== MARK)
        .sort();
    },
    async restart() {
      await files.db.close();
      await open();
    },
    async close() {
      await files.db.close();
      await store[Symbol.asyncDispose]();
    },
    async [Symbol.asyncDispose]() {
      await files.close();
      if (options.top === undefined) await rm(top, { recursive: true });
    },
  };
  await open();
  return files;
}

function newHolder(): TestHolder {
  return { blocks: new Map(), connected: true };
}

interface World {
  root: string;
  store: LocalStore;
  settings: Partial<Settings>;
  holders: Map<string, TestHolder>;
  kernel: Kernel;
}

/** The network as the files see it. */
async function fakeNetwork(db: StateDb, { store, holders }: World): Promise<Network> {
  const heads = openTable<Uint8Array>(db, 'heads');
  const kept: Uint8Array[] = [];
  for await (const head of heads.values()) kept.push(head);
  const holdersOf = (id: BlockId): unknown[] =>
    [...holders]
      .filter(([, { blocks }]) => blocks.has(id))
      .map(([peerId]) => ({ peerId, issuedAt: Date.now(), provedAt: Date.now() }));
  const connected = (): string[] => [...holders].filter(([, holder]) => holder.connected).map(([name]) => name);
  const countDistinct = (peerIds: Iterable<string>): number => new Set(peerIds).size;
  const prove = (peerId: string) => async (audit: { ids: readonly BlockId[] }) =>
    new Map(audit.ids.map((id) => [id, holders.get(peerId)?.blocks.has(id) ? 'proved' : 'absent']));
  async function fetch(id: BlockId): Promise<{ bytes: Uint8Array; from: string | undefined }> {
    const here = await store.get(id);
    if (here !== undefined) return { bytes: here, from: undefined };
    for (const name of connected()) {
      const bytes = holders.get(name)?.blocks.get(id);
      if (bytes !== undefined) return { bytes, from: name };
    }
    throw new DezentError('UNREACHABLE', `nobody who has block ${id} can be reached`);
  }
  const parts: Partial<Record<keyof Network, unknown>> = {
    store,
    group: {
      groupId: idText(GROUP_ID),
      groupIdBytes: GROUP_ID,
      ownerId: OWNER,
      deviceId: peerIdOf(DEVICE.publicKey),
      damaged: [],
      secrets: () => TEST_SECRETS,
      records: () => ({ entries: [], owners: [], heads: kept }),
      async putHead(envelope: Parameters<typeof encodeEnvelope>[0]) {
        const bytes = encodeEnvelope(envelope);
        await heads.put(String(kept.length).padStart(9, '0'), bytes, SYNC);
        kept.push(encodeEnvelope(decodeEnvelope(bytes)));
      },
      members: () => [],
      roleOf: () => ({ role: 'member', owner: OWNER }),
      onChange: () => () => undefined,
    },
    onDropped: () => undefined,
    keeper: {
      async evict(ids: readonly BlockId[]) {
        await store.deleteMany(ids);
        return ids;
      },
    },
    receipts: {
      holdersOf,
      countDistinct,
      copiesOf: ([id]: BlockId[]) => ({ copies: id === undefined ? 0 : holdersOf(id).length }),
      ackedHead: () => Number.MAX_SAFE_INTEGER,
      proved: async () => undefined,
      async drop(peerId: string, ids: readonly BlockId[]) {
        for (const id of ids) holders.get(peerId)?.blocks.delete(id);
      },
    },
    swarm: { connected },
    links: {
      audit: (peerId: string) => ({ prove: prove(peerId) }),
      exchange: (peerId: string) => ({ want: async (id: BlockId) => holders.get(peerId)?.blocks.get(id) }),
    },
    announce: {},
    names: { describe: (peerId: string) => peerId, nameOf: (peerId: string) => peerId },
    fetchBlock: { fetch },
  };
  return Object.fromEntries(
    Object.entries(parts).map(([name, part]) => [name, orNothing(part as object)]),
  ) as unknown as Network;
}

/** What a test does not look at does nothing: listeners above all. */
function orNothing<T extends object>(part: T): T {
  return new Proxy(part, {
    get: (target, name, receiver) => (name in target ? Reflect.get(target, name, receiver) : () => undefined),
  });
}

async function openParts(files: TestFiles, world: World): Promise<FilesParts> {
  const { db } = files;
  const { root, settings, kernel } = world;
  const warnings = openWarnings(() => undefined);
  const network = await fakeNetwork(db, world);
  const needs = {
    network,
    keys: { device: DEVICE },
    config: { get: (key: keyof Settings) => settings[key] },
    db,
    folder: root,
    warnings,
    log: QUIET_LOG,
  } as unknown as FilesNeeds;
  const stored = await openStored(needs);
  const swapping = await openSwapping(needs, stored, kernel);
  const recovered: string[] = [];
  await recoverFiles({
    ...swapping,
    folder: stored.folder,
    warnings,
    onRecovered: ({ op, path }) => void recovered.push(`${op} ${path}`),
  });
  const rules = await openIgnoreRules(root);
  const { deviceId } = network.group;
  const ingest = openIngest({
    ...stored,
    deviceId,
    xattrsOf: async (absolute) => readXattrs(kernel, absolute),
  });
  const deletions = openDeletions({
    ...stored,
    locks: swapping.locks,
    warnings,
    deviceId,
    isFolderThere: stored.mark.isThere,
    db: db.sublevel('deletions'),
    busy: () => files.busy,
    onDeleted: (paths) => void files.deleted.push(...paths),
  });
  const tend = openTendFolder({
    ...stored,
    rules,
    locks: swapping.locks,
    ingest,
    deletions,
    warnings,
    adoptStub: openAdoptStub({ ...stored, own: swapping.own, deviceId }),
    onIngested: ({ entry }) => void files.woken.push(entry.path),
    later: (path) => void files.retried.push(path),
  });
  return { ...stored, ...swapping, ingest, tend, deletions, warnings, rules, recovered };
}
