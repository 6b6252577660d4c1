// A holder for tests: a state database in a directory of its own, a memory store, and a group of two owners whose roles a test may change.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openKeeper, type Keeper, type KeeperSettings } from '../../../src/node/copies/keeper.ts';
import { openState, type StateDb } from '../../../src/node/home/state.ts';
import type { KeepSession } from '../../../src/protocol/fs-session.ts';
import {
  idText,
  peerIdOf,
  signingKeyFromSeed,
  type Envelope,
  type SigningKey,
} from '../../../src/protocol/signature.ts';
import { blockIdOf, type BlockId } from '../../../src/store/block.ts';
import type { LocalStore } from '../../../src/store/block-store.ts';
import { openMemoryStore } from '../../../src/store/memory-store.ts';

export const GROUP: Uint8Array = new Uint8Array(32).fill(7);
export const ANN: string = idText(new Uint8Array(32).fill(1));
export const BOB: string = idText(new Uint8Array(32).fill(2));

export const keyOf = (name: string): SigningKey => signingKeyFromSeed(Buffer.alloc(32, name));
export const deviceOf = (name: string): string => peerIdOf(keyOf(name).publicKey);

export interface Role {
  role: string;
  owner: string | null;
}

export interface TestHolder extends AsyncDisposable {
  keeper: Keeper;
  store: LocalStore;
  roles: Map<string, Role>;
  own: Set<BlockId>;
  settings: { quotaBytes: number; reserveBytes: number; now: number };
  /** Closes the keeper's database and opens it again. */
  reopen(): Promise<void>;
  /** As if the state database had been lost. */
  loseState(): Promise<void>;
}

export const blockOf = (text: string, length = 100): { id: BlockId; bytes: Uint8Array; length: number } => {
  const bytes = new Uint8Array(Buffer.alloc(length, text));
  return { id: blockIdOf(bytes), bytes, length };
};

/** One device of Ann ("ann-1", "ann-2") and of Bob ("bob-1") may push; the holder is "holder", of Ann. */
export async function openHolder(maxBytes?: number): Promise<TestHolder> {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-keeper-'));
  const store = openMemoryStore(maxBytes === undefined ? {} : { maxBytes });
  const roles = new Map<string, Role>([
    [deviceOf('ann-1'), { role: 'member', owner: ANN }],
    [deviceOf('ann-2'), { role: 'member', owner: ANN }],
    [deviceOf('bob-1'), { role: 'member', owner: BOB }],
  ]);
  const own = new Set<BlockId>();
  const settings = { quotaBytes: 1e9, reserveBytes: 0, now: 1_700_000_000_000 };
  const dials: KeeperSettings = {
    quotaBytes: () => settings.quotaBytes,
    reserveBytes: () => settings.reserveBytes,
    now: () => settings.now,
  };
  const group = { groupIdBytes: GROUP, deviceId: deviceOf('holder'), roleOf: (peerId: string) => roles.get(peerId) };
  const open = (db: StateDb): Promise<Keeper> =>
    openKeeper(
      {
        store,
        db,
        group,
        deviceKey: keyOf('holder'),
        isOwn: (id) => own.has(id),
        heirOf: (device) => (device === deviceOf('ann-1') ? deviceOf('ann-2') : undefined),
      },
      dials,
    );
  let db = await openState(dir);
  const holder: TestHolder = {
    keeper: await open(db),
    store,
    roles,
    own,
    settings,
    async reopen() {
      await db.close();
      db = await openState(dir);
      holder.keeper = await open(db);
    },
    async loseState() {
      await db.clear();
      await holder.reopen();
    },
    async [Symbol.asyncDispose]() {
      await db.close();
      await rm(dir, { recursive: true });
    },
  };
  return holder;
}

export type TestBlock = ReturnType<typeof blockOf>;

/** Begins a session, or gives the reason why not. */
export async function begin(
  holder: TestHolder,
  name: string,
  blocks: readonly TestBlock[],
): Promise<KeepSession | string> {
  const peerId = deviceOf(name);
  const owner = holder.roles.get(peerId)?.owner ?? ANN;
  const session = await holder.keeper.begin({
    peerId,
    device: peerId,
    owner,
    blocks: blocks.map(({ id, length }) => ({ id, length })),
  });
  return 'refused' in session ? session.refused : session;
}

/** A whole session: what is missing is put, the receipt comes back. */
export async function keep(holder: TestHolder, name: string, blocks: readonly TestBlock[]): Promise<Envelope> {
  const session = await begin(holder, name, blocks);
  if (typeof session === 'string') throw new Error(session);
  try {
    await session.keep(blocks.filter(({ id }) => session.missing.has(id)));
    const receipt = await session.sign();
    if ('refused' in receipt) throw new Error(receipt.refused);
    return receipt;
  } finally {
    session.end();
  }
}
