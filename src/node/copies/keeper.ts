// The keeper: what this node keeps for other devices. It answers push sessions, signs receipts, takes releases, and collects what no receipt
// covers. A block that a session counts on is pinned before the store is asked for it, so nothing is deleted between the answer and the receipt.
import pLimit from 'p-limit';
import { DezentError, isDezentError } from '../../errors.ts';
import type { FsKeeper, KeepSession, PushRequest, Refusal } from '../../protocol/fs-session.ts';
import { digestOfIds, newReceiptNonce, RECEIPT_MAX_IDS, signReceipt, verifyRelease } from '../../protocol/receipt.ts';
import type { Release } from '../../protocol/receipt.ts';
import { encodeEnvelope, idBytes } from '../../protocol/signature.ts';
import type { Envelope, SigningKey } from '../../protocol/signature.ts';
import { checkBlock } from '../../store/block.ts';
import type { BlockId } from '../../store/block.ts';
import type { LocalStore } from '../../store/block-store.ts';
import { openKeepLedger } from './keep-ledger.ts';
import type { KeepLedger } from './keep-ledger.ts';
import type { StateDb } from '../home/state.ts';

/** A receipt needs bytes re-hashed within 30 days (design); a day less, so that it still holds when a long session ends. */
const REHASH_AFTER_MS: number = 29 * 24 * 60 * 60 * 1000;

/** Re-hashed blocks are noted in pieces, so that a session that breaks need not begin anew. */
const REHASH_BATCH = 256;

export interface KeeperNeeds {
  store: LocalStore;
  /** A sublevel for the keeper alone. */
  db: StateDb;
  group: {
    readonly groupIdBytes: Uint8Array;
    readonly deviceId: string;
    roleOf(peerId: string): { role: string; owner: string | null } | undefined;
  };
  deviceKey: SigningKey;
  /** True while this device needs the block for its own files. Must be true before such a block is put (or it is pinned). */
  isOwn(id: BlockId): boolean;
  /** The device that inherits the receipts of a revoked one. */
  heirOf?(device: string): string | undefined;
}

export interface KeeperSettings {
  /** Bytes that may be kept for others. */
  quotaBytes(): number;
  /** Bytes of the disk that are never used. */
  reserveBytes(): number;
  now?(): number;
}

export interface Keeper extends FsKeeper {
  get(id: BlockId): Promise<Uint8Array | undefined>;
  /** Carries out a signed release, durably; returns how many of its receipts stand no longer. Throws BAD_RECORD, NOT_ALLOWED. */
  release(envelope: Envelope): Promise<number>;
  /** True when the block must stay: an unreleased receipt covers it, one that was lost may, or a session counts on it. */
  covers(id: BlockId): boolean;
  /** Keeps the blocks from being deleted until the returned function is called. */
  pin(ids: Iterable<BlockId>): () => void;
  /** Bytes of blocks kept for others. */
  heldBytes(): number;
  /** Deletes what a release has left without receipt, unless it is own or pinned. Returns what it deleted. */
  collect(): Promise<{ blocks: number; bytes: number }>;
  /** Deletes those of these own blocks that need not stay for others; returns their ids. */
  evict(ids: readonly BlockId[]): Promise<BlockId[]>;
}

export async function openKeeper(needs: KeeperNeeds, settings: KeeperSettings): Promise<Keeper> {
  const { store, group } = needs;
  const ledger = await openKeepLedger(needs.db, () => hasBlocks(store));
  const pins = new Map<BlockId, number>();
  const inTurn = pLimit(1);
  const now = settings.now ?? Date.now;
  /** Bytes that open sessions may still put. */
  let reservedBytes = 0;

  const pin = (ids: Iterable<BlockId>) => {
    const pinned = [...ids];
    for (const id of pinned) pins.set(id, (pins.get(id) ?? 0) + 1);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      for (const id of pinned) {
        const left = (pins.get(id) ?? 1) - 1;
        if (left > 0) pins.set(id, left);
        else pins.delete(id);
      }
    };
  };
  const covers = (id: BlockId) => pins.has(id) || ledger.covers(id);

  /** Deletes those that `mayGo` says, judged in the same turn in which they are deleted. */
  const deleteIf = (ids: readonly BlockId[], mayGo: (id: BlockId) => boolean) =>
    inTurn(async () => {
      const going = ids.filter(mayGo);
      if (going.length === 0) return { going, bytes: 0 };
      const before = ledger.heldBytes();
      await store.deleteMany(going);
      await ledger.forget(going);
      return { going, bytes: before - ledger.heldBytes() };
    });

  const refusalFor = async (missingBytes: number): Promise<Refusal | undefined> => {
    const wantedBytes = reservedBytes + missingBytes;
    const quotaBytes = settings.quotaBytes();
    if (missingBytes > 0 && ledger.heldBytes() + wantedBytes > quotaBytes) {
      return {
        refused: `over quota: ${ledger.heldBytes()} of ${quotaBytes} bytes are in use, ${missingBytes} more were asked`,
      };
    }
    const { freeBytes } = await store.space();
    if (missingBytes > 0 && freeBytes - wantedBytes < settings.reserveBytes()) {
      return { refused: `disk reserve: ${freeBytes} bytes are free, ${settings.reserveBytes()} of them stay free` };
    }
    return undefined;
  };

  const openSession = (request: PushRequest, missing: Set<BlockId>, unpin: () => void): KeepSession => {
    const owner = idBytes(request.owner);
    const lengths = new Map(request.blocks.map(({ id, length }) => [id, length]));
    let sessionBytes = sum([...missing].map((id) => lengths.get(id) ?? 0));
    reservedBytes += sessionBytes;
    return {
      missing,
      async keep(blocks) {
        await store.putMany(blocks, { owner });
        const noted = blocks.map(({ id, bytes }) => ({ id, length: bytes.length }));
        await inTurn(() => ledger.noteVerified(noted, { at: now(), put: true }));
        const putBytes = sum(noted.map(({ length }) => length));
        sessionBytes -= putBytes;
        reservedBytes -= putBytes;
      },
      sign: () => signFor(request),
      end() {
        reservedBytes -= sessionBytes;
        sessionBytes = 0;
        unpin();
      },
    };
  };

  const signFor = async (request: PushRequest): Promise<Envelope | Refusal> => {
    const ids = request.blocks.map(({ id }) => id);
    const here = await store.hasMany(ids);
    if (here.size < ids.length)
      return { refused: `${ids.length - here.size} of the blocks are not here any more; push again` };
    const { owner, device, blocks } = request;
    const nonce = newReceiptNonce();
    const envelope = signReceipt(
      group.groupIdBytes,
      {
        owner,
        device,
        holder: group.deviceId,
        nonce,
        ids: digestOfIds(ids),
        count: ids.length,
        bytes: sum(blocks.map(({ length }) => length)),
        issuedAt: now(),
      },
      needs.deviceKey,
    );
    await inTurn(() => ledger.addReceipt({ device, nonce, envelope: encodeEnvelope(envelope), blocks }, now()));
    return envelope;
  };

  return {
    async begin(request) {
      const refused = refusalByRole(request, group.roleOf(request.peerId));
      if (refused !== undefined) return refused;
      const unpin = pin(request.blocks.map(({ id }) => id));
      try {
        // A deletion that runs now was judged before the pin: let it end before the store is asked.
        await inTurn(async () => undefined);
        const missing = await findMissing(request, { store, ledger, inTurn, now });
        if ('refused' in missing) {
          unpin();
          return missing;
        }
        const bytes = sum(request.blocks.map(({ id, length }) => (missing.has(id) ? length : 0)));
        const noRoom = await refusalFor(bytes);
        if (noRoom === undefined) return openSession(request, missing, unpin);
        unpin();
        return noRoom;
      } catch (error) {
        unpin();
        throw error;
      }
    },
    finish: (peerId, nonce, holders) =>
      inTurn(async () => {
        const found = ledger.receiptOf(nonce);
        if (typeof found === 'object' && found.receipt.device === peerId)
          await ledger.setHolders(found.serial, holders);
      }),
    get: (id) => store.get(id),
    release: (envelope) =>
      inTurn(() => carryOut(verifyRelease(group.groupIdBytes, envelope, group.deviceId), ledger, needs)),
    covers,
    pin,
    heldBytes: () => ledger.heldBytes(),
    async collect() {
      const total = { blocks: 0, bytes: 0 };
      for await (const ids of ledger.free()) {
        const { going, bytes } = await deleteIf(ids, (id) => !covers(id) && !needs.isOwn(id));
        total.blocks += going.length;
        total.bytes += bytes;
      }
      return total;
    },
    evict: async (ids) => (await deleteIf(ids, (id) => !covers(id))).going,
  };
}

function refusalByRole(
  request: PushRequest,
  role: { role: string; owner: string | null } | undefined,
): Refusal | undefined {
  const { peerId, device, owner, blocks } = request;
  if (role?.role !== 'member') return { refused: `not a member of the group: ${peerId}` };
  if (device !== peerId) return { refused: `the session is for ${device}, but ${peerId} asks` };
  if (role.owner !== owner) return { refused: `${peerId} is not a device of that owner` };
  if (blocks.length > RECEIPT_MAX_IDS) return { refused: `too many ids: ${blocks.length}, at most ${RECEIPT_MAX_IDS}` };
  return undefined;
}

interface Finding {
  store: LocalStore;
  ledger: KeepLedger;
  inTurn<T>(work: () => Promise<T>): Promise<T>;
  now(): number;
}

/** Which blocks of the request must be sent: those not here, and those that turn out to be damaged when they are due to be re-hashed. */
async function findMissing(request: PushRequest, finding: Finding): Promise<Set<BlockId> | Refusal> {
  const { store, ledger, inTurn, now } = finding;
  const here = await store.hasMany(request.blocks.map(({ id }) => id));
  const missing = new Set<BlockId>();
  let verified: { id: BlockId; length: number }[] = [];
  for (const { id, length } of request.blocks) {
    const record = ledger.kept(id);
    const bytesHere = here.has(id) ? record?.bytes || (await store.stat(id))?.length : undefined;
    if (bytesHere === undefined) {
      missing.add(id);
      continue;
    }
    if (bytesHere !== length) return { refused: `block ${id} has ${bytesHere} bytes, not ${length}` };
    if (record !== undefined && now() - record.verifiedAt < REHASH_AFTER_MS) continue;
    if (await isIntact(store, id)) verified.push({ id, length });
    else missing.add(id);
    if (verified.length < REHASH_BATCH) continue;
    const noted = verified;
    verified = [];
    await inTurn(() => ledger.noteVerified(noted, { at: now(), put: false }));
  }
  if (verified.length > 0) await inTurn(() => ledger.noteVerified(verified, { at: now(), put: false }));
  return missing;
}

/** Re-hashes a block. Bytes that are not what the id names are worth nothing and are deleted. */
async function isIntact(store: LocalStore, id: BlockId): Promise<boolean> {
  try {
    const bytes = await store.get(id);
    if (bytes === undefined) return false;
    checkBlock(id, bytes);
    return true;
  } catch (error) {
    if (!isDezentError(error, 'BAD_BLOCK')) throw error;
    await store.delete(id);
    return false;
  }
}

/** Ends the named receipts, or, where ids are named, the cover of these ids by the named receipts. */
async function carryOut(
  release: Release,
  ledger: KeepLedger,
  { heirOf }: Pick<KeeperNeeds, 'heirOf'>,
): Promise<number> {
  const ids = release.ids.length === 0 ? undefined : new Set(release.ids);
  let ended = 0;
  for (const nonce of release.nonces) {
    const found = ledger.receiptOf(nonce);
    if (found === undefined) continue;
    if (found === 'released') {
      ended += 1;
      continue;
    }
    const { device } = found.receipt;
    if (device !== release.device && heirOf?.(device) !== release.device) {
      throw new DezentError('NOT_ALLOWED', `a receipt of ${device} cannot be released by ${release.device}`);
    }
    await ledger.release(found.serial, ids);
    if (ledger.receiptOf(nonce) === 'released') ended += 1;
  }
  return ended;
}

async function hasBlocks(store: LocalStore): Promise<boolean> {
  for await (const _id of store.ids()) return true;
  return false;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
