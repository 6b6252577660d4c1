// fs, the push session: a device has another peer keep a list of blocks and gets a signed receipt for all of it.
//
// Goals: what is there already is not sent; a broken session goes on where it stopped, because blocks are kept as they come; a receipt only
// for what is durable; a refusal says why; Data frames flow under credit without waiting for single answers.
// Non-goals: names, paths or keys (none travel here); choosing holders; fetching (exchange.ts); letting go (release.ts).
//
//   caller  Init {owner, device, ids + lengths} → server  InitResponse {missing, or refused why}     what is not missing is pinned there
//   caller  Data* {id ‖ bytes}, CheckHash {XXH3-64 of all Data bytes in their order}
//   server  CheckHashResponse {receipt, or refused why}                                                a call of its own: Finish {other holders}
//
// | type | frame             | body                                                        | limit            |
// |------|-------------------|-------------------------------------------------------------|------------------|
// | 16   | init              | {v 1, owner 32, device, ids 36·n, lengths n}, 1 ≤ n ≤ 4,096  | 192 KiB          |
// | 17   | initResponse      | {missing: n bits, first block in the lowest} or {refused}   | 1 KiB            |
// | 18   | data (bulk)       | BlockId 36 ‖ bytes                                          | 36 B + 4 MiB     |
// | 19   | checkHash         | {xxh3: 8 bytes}                                             | 32 bytes         |
// | 20   | checkHashResponse | {receipt: envelope} or {refused}                            | 4 KiB            |
// | 21   | finish            | {nonce 16, holders ≤ 64 peer ids}                            | 8 KiB            |
// | 22   | finished          | one zero byte                                               | 1 byte           |
import type { Stream } from '@libp2p/interface';
import { createXXHash3 } from 'hash-wasm';
import pLimit from 'p-limit';
import { DezentError, isDezentError } from '../errors.ts';
import { BLOCK_ID_BYTES, blockIdFromBytes, blockIdToBytes, checkBlock } from '../store/block.ts';
import type { BlockId } from '../store/block.ts';
import { createBodyPool } from './body-pool.ts';
import type { BodyPool } from './body-pool.ts';
import { openChannel } from './channel.ts';
import type { Call, Channel, ChannelSettings } from './channel.ts';
import * as frames from './fs-frames.ts';
import { answerTo, FS_FRAMES, fsNameOf } from './fs-frames.ts';
import type { Init, PushedBlock, Refusal } from './fs-frames.ts';
import { digestOfIds, verifyReceipt } from './receipt.ts';
import type { Receipt } from './receipt.ts';
import type { Envelope } from './signature.ts';
import { createWatchdog } from './watchdog.ts';

export { FS_FRAMES } from './fs-frames.ts';
export type { PushedBlock, Refusal } from './fs-frames.ts';

// ── caller ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Blocks read ahead of the one being sent. */
const READ_AHEAD = 4;

export interface Push {
  /** 32 bytes. */
  group: Uint8Array;
  /** Owner id text. */
  owner: string;
  /** Peer id of this device. */
  device: string;
  /** Peer id of the peer at the other end: who must sign. */
  holder: string;
  /** At most RECEIPT_MAX_IDS, each once. */
  blocks: readonly PushedBlock[];
  /** The bytes of a block; throws when it cannot have them. */
  read(id: BlockId): Promise<Uint8Array>;
  signal?: AbortSignal;
  /** Bytes of blocks sent so far. */
  onProgress?: (sentBytes: number) => void;
}

export type PushResult = { receipt: Envelope; content: Receipt; sentBytes: number } | Refusal;

/**
 * Has the peer keep these blocks. Returns its receipt, checked to cover all of them, or why it refused.
 * Throws UNREACHABLE (try again: what arrived is not sent again), BAD_FRAME, BAD_RECORD (a receipt that is not one), and what `read` throws.
 */
export async function pushBlocks(channel: Channel, push: Push): Promise<PushResult> {
  const call = channel.open(push.signal === undefined ? {} : { signal: push.signal });
  try {
    return await pushOn(call, push);
  } catch (error) {
    if (isDezentError(error, 'PEER_REFUSED')) return { refused: error.message };
    throw error;
  } finally {
    call.cancel(new DezentError('CANCELLED', 'the push has ended'));
  }
}

async function pushOn(call: Call, push: Push): Promise<PushResult> {
  await call.send(frames.INIT, frames.encodeInit(push));
  const init = frames.decodeInitResponse(push.blocks, await answerTo(call, frames.INIT_RESPONSE));
  if ('refused' in init) return init;
  const hash = await createXXHash3();
  let sentBytes = 0;
  for await (const { block, bytes } of readAhead(init.missing, push.read)) {
    if (bytes.length !== block.length) {
      throw new DezentError('BAD_BLOCK', `block ${block.id} has ${bytes.length} bytes here, not ${block.length}`);
    }
    hash.update(bytes);
    await call.send(frames.DATA, [blockIdToBytes(block.id), bytes]);
    sentBytes += bytes.length;
    push.onProgress?.(sentBytes);
  }
  await call.send(frames.CHECK_HASH, frames.encodeCheckHash(hash.digest('binary')), { last: true });
  const result = frames.decodeCheckHashResponse(await answerTo(call, frames.CHECK_HASH_RESPONSE));
  if ('refused' in result) return result;
  return { receipt: result.receipt, content: checkReceipt(result.receipt, push), sentBytes };
}

/** Throws BAD_RECORD unless the envelope is the holder's receipt for exactly these blocks. */
function checkReceipt(envelope: Envelope, push: Push): Receipt {
  const receipt = verifyReceipt(push.group, envelope);
  const bytes = push.blocks.reduce((sum, { length }) => sum + length, 0);
  const ids = digestOfIds(push.blocks.map(({ id }) => id));
  const right =
    receipt.holder === push.holder &&
    receipt.device === push.device &&
    receipt.owner === push.owner &&
    receipt.count === push.blocks.length &&
    receipt.bytes === bytes &&
    Buffer.compare(receipt.ids, ids) === 0;
  if (!right) throw new DezentError('BAD_RECORD', `the receipt of ${push.holder} is for something else`);
  return receipt;
}

/** The blocks with their bytes, in order, a few of them being read meanwhile. */
async function* readAhead(
  blocks: readonly PushedBlock[],
  read: (id: BlockId) => Promise<Uint8Array>,
): AsyncGenerator<{ block: PushedBlock; bytes: Uint8Array }> {
  const reading: Promise<Uint8Array>[] = [];
  try {
    for (const [index, block] of blocks.entries()) {
      for (let at = index + reading.length; at < blocks.length && reading.length < READ_AHEAD; at++) {
        const ahead = blocks[at];
        if (ahead !== undefined) reading.push(read(ahead.id));
      }
      const bytes = await reading.shift();
      if (bytes !== undefined) yield { block, bytes };
    }
  } finally {
    // When sending has failed nobody waits for these; their own failures then say nothing more.
    await Promise.allSettled(reading);
  }
}

/** Tells a holder who else keeps the blocks of a receipt, so that it can repair while the owner is away. Peer ids, at most 64. */
export async function sendFinish(channel: Channel, finish: { nonce: Uint8Array; holders: string[] }): Promise<void> {
  const call = channel.open();
  try {
    await call.send(frames.FINISH, frames.encodeFinish(finish.nonce, finish.holders), { last: true });
    await answerTo(call, frames.FINISHED);
  } finally {
    call.cancel(new DezentError('CANCELLED', 'finish has ended'));
  }
}

// ── server ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Blocks of one session become durable together: one fsync for this many bytes. */
const BATCH_BYTES: number = 8 * 1024 * 1024;

/** Sessions at work at once, over all peers; each holds at most two batches: 128 MiB. The others wait. */
const MAX_SESSIONS = 8;

/** A session whose caller sends nothing gives its place to others. */
const IDLE_MS = 60_000;

export interface PushRequest extends Init {
  /** Whom Noise has proved to be at the other end. */
  peerId: string;
}

/** What the holder promises during one session. */
export interface KeepSession {
  /** Ids that have to be sent. All others of the request are here and stay until `end`. */
  readonly missing: ReadonlySet<BlockId>;
  /** Keeps blocks whose bytes were checked; durable when it returns, and then the bytes may be overwritten. */
  keep(blocks: readonly { id: BlockId; bytes: Uint8Array }[]): Promise<void>;
  /** The receipt for the whole request, kept durably here before it returns; or why there is none. */
  sign(): Promise<Envelope | Refusal>;
  end(): void;
}

/** The part of the keeper that answers here. */
export interface FsKeeper {
  begin(request: PushRequest): Promise<KeepSession | Refusal>;
  /** `holders`: who else keeps the blocks of this receipt. An unknown receipt is no error. */
  finish(peerId: string, nonce: Uint8Array, holders: string[]): Promise<void>;
}

export interface FsServer {
  serve(stream: Stream, peerId: string): Channel;
}

export interface FsServerSettings {
  idleMs: number;
  onFault?: (error: DezentError) => void;
  channel?: Partial<ChannelSettings>;
}

export function openFsServer(keeper: FsKeeper, settings: Partial<FsServerSettings> = {}): FsServer {
  const slots = pLimit(MAX_SESSIONS);
  const { idleMs = IDLE_MS, onFault, channel } = settings;
  const serveFinish = async (call: Call, body: Uint8Array, peerId: string) => {
    const { nonce, holders } = frames.decodeFinish(body);
    await keeper.finish(peerId, nonce, holders);
    await call.send(frames.FINISHED, new Uint8Array(1), { last: true });
  };
  return {
    serve(stream, peerId) {
      const bodies = createBodyPool();
      return openChannel(stream, {
        frames: FS_FRAMES,
        bodies,
        ...(channel && { settings: channel }),
        ...(onFault && { onFault }),
        async onCall(call) {
          const first = await call.next();
          if (first?.type === frames.FINISH) await serveFinish(call, first.body, peerId);
          else if (first?.type === frames.INIT) {
            const request = { peerId, ...frames.decodeInit(first.body) };
            await slots(() => servePush(call, request, { keeper, bodies, idleMs }));
          } else throw new DezentError('BAD_FRAME', `a call of fs begins with ${fsNameOf(first)}`);
        },
      });
    },
  };
}

interface Serving {
  keeper: FsKeeper;
  bodies: BodyPool;
  idleMs: number;
}

async function servePush(call: Call, request: PushRequest, { keeper, bodies, idleMs }: Serving): Promise<void> {
  call.signal.throwIfAborted();
  const session = await keeper.begin(request);
  if ('refused' in session) {
    await call.send(frames.INIT_RESPONSE, frames.encodeRefusal(session), { last: true });
    return;
  }
  const idle = createWatchdog(idleMs, () => call.cancel(new DezentError('TIMEOUT', `no block came for ${idleMs} ms`)));
  try {
    await call.send(frames.INIT_RESPONSE, frames.encodeMissing(request.blocks, session.missing));
    idle.arm();
    const refused = await receiveBlocks(call, { session, bodies, blocks: request.blocks, onFrame: () => idle.arm() });
    idle.disarm();
    const result = refused ?? (await session.sign());
    const body = 'refused' in result ? frames.encodeRefusal(result) : frames.encodeReceiptResponse(result);
    await call.send(frames.CHECK_HASH_RESPONSE, body, { last: true });
  } finally {
    idle.disarm();
    session.end();
  }
}

interface Receiving {
  session: KeepSession;
  bodies: BodyPool;
  blocks: readonly PushedBlock[];
  onFrame(): void;
}

/** Takes Data until CheckHash and keeps it, also what came before a break. Returns a refusal when the hash differs. */
async function receiveBlocks(
  call: Call,
  { session, bodies, blocks, onFrame }: Receiving,
): Promise<Refusal | undefined> {
  const wanted = new Map(blocks.filter(({ id }) => session.missing.has(id)).map(({ id, length }) => [id, length]));
  const hash = await createXXHash3();
  const batches = createBatches(session, bodies);
  try {
    for await (const frame of call.frames) {
      onFrame();
      if (frame.type === frames.CHECK_HASH) {
        const xxh3 = frames.decodeCheckHash(frame.body);
        await batches.flush();
        if (Buffer.compare(hash.digest('binary'), xxh3) !== 0)
          return { refused: 'the hash of what arrived is another one' };
        return wanted.size === 0 ? undefined : { refused: `${wanted.size} of the missing blocks did not come` };
      }
      if (frame.type !== frames.DATA) throw new DezentError('BAD_FRAME', `${fsNameOf(frame)} came instead of data`);
      const block = decodeData(frame.body, wanted);
      hash.update(block.bytes);
      const full = batches.add(block);
      if (full !== undefined) await full;
    }
    throw new DezentError('BAD_FRAME', 'the call ended without a check hash');
  } finally {
    await batches.flush();
  }
}

/** A block of a data frame that was asked for and is what its id says; taken off the list. */
function decodeData(body: Uint8Array, wanted: Map<BlockId, number>): { id: BlockId; bytes: Uint8Array } {
  if (body.length <= BLOCK_ID_BYTES) throw new DezentError('BAD_FRAME', 'a data frame without bytes');
  const id = blockIdFromBytes(body.subarray(0, BLOCK_ID_BYTES));
  const bytes = body.subarray(BLOCK_ID_BYTES);
  const length = wanted.get(id);
  if (length === undefined) throw new DezentError('BAD_FRAME', `nobody asked for block ${id}`);
  if (length !== bytes.length)
    throw new DezentError('BAD_FRAME', `block ${id} has ${bytes.length} bytes, ${length} were announced`);
  checkBlock(id, bytes);
  wanted.delete(id);
  return { id, bytes };
}

interface Batches {
  /** Resolves when the next one may come: at most one batch is being written while another gathers. */
  add(block: { id: BlockId; bytes: Uint8Array }): Promise<void> | undefined;
  flush(): Promise<void>;
}

function createBatches(session: KeepSession, bodies: BodyPool): Batches {
  let gathered: { id: BlockId; bytes: Uint8Array }[] = [];
  let gatheredBytes = 0;
  let writing: Promise<void> = Promise.resolve();
  const writeNext = async () => {
    await writing;
    const blocks = gathered;
    gathered = [];
    gatheredBytes = 0;
    writing = session.keep(blocks).then(() => {
      for (const { bytes } of blocks) bodies.giveBack(bytes);
    });
    // The failure is thrown by whoever awaits `writing` next.
    writing.catch(() => undefined);
  };
  return {
    add(block) {
      gathered.push(block);
      gatheredBytes += block.bytes.length;
      return gatheredBytes < BATCH_BYTES ? undefined : writeNext();
    },
    async flush() {
      if (gathered.length > 0) await writeNext();
      await writing;
    },
  };
}
