// The least that a holder needs to answer push sessions in tests: a memory store and a key. What it was asked is there to be looked at.
import type { FsKeeper, KeepSession, PushRequest, Refusal } from '../../src/protocol/fs-session.ts';
import { digestOfIds, newReceiptNonce, signReceipt } from '../../src/protocol/receipt.ts';
import { peerIdOf, signingKeyFromSeed, type Envelope } from '../../src/protocol/signature.ts';
import { openMemoryStore } from '../../src/store/memory-store.ts';
import type { LocalStore } from '../../src/store/block-store.ts';

export const GROUP: Uint8Array = new Uint8Array(32).fill(7);
const holderKey = signingKeyFromSeed(new Uint8Array(32).fill(1));
export const HOLDER: string = peerIdOf(holderKey.publicKey);
export const DEVICE: string = peerIdOf(signingKeyFromSeed(new Uint8Array(32).fill(2)).publicKey);

export interface TestKeeper extends FsKeeper {
  store: LocalStore;
  requests: PushRequest[];
  /** Blocks of each call of `keep`. */
  batches: number[];
  finished: { nonce: Uint8Array; holders: string[] }[];
  open: number;
  refuse?: Refusal;
  /** Changes the receipt before it is signed. */
  lie?: Partial<Parameters<typeof signReceipt>[1]>;
  beforeKeep?: () => Promise<void>;
}

export function testKeeper(): TestKeeper {
  const keeper: TestKeeper = {
    store: openMemoryStore(),
    requests: [],
    batches: [],
    finished: [],
    open: 0,
    async begin(request) {
      keeper.requests.push(request);
      if (keeper.refuse !== undefined) return keeper.refuse;
      const here = await keeper.store.hasMany(request.blocks.map(({ id }) => id));
      keeper.open += 1;
      const session: KeepSession = {
        missing: new Set(request.blocks.map(({ id }) => id).filter((id) => !here.has(id))),
        async keep(blocks) {
          await keeper.beforeKeep?.();
          keeper.batches.push(blocks.length);
          await keeper.store.putMany(blocks);
        },
        sign: async () => sign(request, keeper.lie),
        end() {
          keeper.open -= 1;
        },
      };
      return session;
    },
    async finish(_peerId, nonce, holders) {
      keeper.finished.push({ nonce, holders });
    },
  };
  return keeper;
}

function sign({ owner, device, blocks }: PushRequest, lie: TestKeeper['lie']): Envelope {
  const receipt = {
    owner,
    device,
    holder: HOLDER,
    nonce: newReceiptNonce(),
    ids: digestOfIds(blocks.map(({ id }) => id)),
    count: blocks.length,
    bytes: blocks.reduce((sum, { length }) => sum + length, 0),
    issuedAt: Date.now(),
    ...lie,
  };
  return signReceipt(GROUP, receipt, holderKey);
}
