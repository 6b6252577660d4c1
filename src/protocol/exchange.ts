// exchange: single blocks on request, and news of which blocks a peer has.
//
// Goals: many small requests in flight on one stream; absent is not failed; wrong bytes name the liar; nothing unasked is accepted.
// Non-goals: choosing whom to ask (node/copies/fetch-block.ts); keeping anything (fs-session.ts); promises: what is announced may be gone.
//
//   caller  Want {id} → server  Block {id ‖ bytes} | Absent {id} | a cancel: could not tell
//   caller  Have {full?, added, removed}* (the last one flagged) → server  HaveOk, when all of it has been taken in
//
// | type | frame        | body                                                          | limit        |
// |------|--------------|---------------------------------------------------------------|--------------|
// | 16   | want         | BlockId                                                       | 36 bytes     |
// | 17   | block (bulk) | BlockId ‖ bytes                                               | 36 B + 4 MiB |
// | 18   | absent       | BlockId                                                       | 36 bytes     |
// | 19   | have         | {full: forget what you knew, added 36·n, removed 36·n}        | 600 KiB      |
// | 20   | haveOk       | one zero byte                                                 | 1 byte       |
import type { Stream } from '@libp2p/interface';
import pLimit from 'p-limit';
import * as v from 'valibot';
import { DezentError } from '../errors.ts';
import { BLOCK_ID_BYTES, blockIdFromBytes, blockIdToBytes, checkBlock, MAX_BLOCK_BYTES } from '../store/block.ts';
import type { BlockId } from '../store/block.ts';
import { joinIds, splitIds } from '../store/block-ids.ts';
import { openChannel } from './channel.ts';
import type { Call, Channel, ChannelSettings, FrameTable } from './channel.ts';
import { decodeBody, encodeBody } from './frame.ts';

const WANT = 16;
const BLOCK = 17;
const ABSENT = 18;
const HAVE = 19;
const HAVE_OK = 20;

/** Ids in one have frame; a longer list goes in several. */
const HAVE_IDS = 8192;
const MAX_HAVE_BYTES: number = 600 * 1024;

export const EXCHANGE_FRAMES: FrameTable = {
  [WANT]: { name: 'want', maxBytes: BLOCK_ID_BYTES },
  [BLOCK]: { name: 'block', maxBytes: BLOCK_ID_BYTES + MAX_BLOCK_BYTES, bulk: true },
  [ABSENT]: { name: 'absent', maxBytes: BLOCK_ID_BYTES },
  [HAVE]: { name: 'have', maxBytes: MAX_HAVE_BYTES },
  [HAVE_OK]: { name: 'haveOk', maxBytes: 1 },
};

export interface HaveBatch {
  /** The beginning of a whole list: what was known before is void. */
  full: boolean;
  added: BlockId[];
  removed: BlockId[];
}

// ── caller ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Wants in flight; the others wait here. Enough to fill the credit with 32 KiB blocks, far from the server's limit of calls. */
const MAX_WANTS = 256;

export interface Exchange {
  /**
   * The block, checked; undefined when the peer says it does not have it. Throws BAD_BLOCK for other bytes than asked for, PEER_REFUSED
   * when the peer could not tell, UNREACHABLE, and the signal's reason as CANCELLED or TIMEOUT.
   */
  want(id: BlockId, options?: { signal?: AbortSignal }): Promise<Uint8Array | undefined>;
  /** Tells the peer what this node has; resolves when the peer has taken it in. A list of any length. */
  have(batch: HaveBatch, options?: { signal?: AbortSignal }): Promise<void>;
}

/** `channel` gives the channel to use, opened anew when the last one has ended. */
export function openExchange(channel: () => Promise<Channel>): Exchange {
  const slots = pLimit(MAX_WANTS);

  const wantNow = async (id: BlockId, options: { signal?: AbortSignal }) => {
    const call = (await channel()).open(options);
    try {
      await call.send(WANT, blockIdToBytes(id), { last: true });
      const frame = await call.next();
      if (
        frame === undefined ||
        frame.body.length < BLOCK_ID_BYTES ||
        (frame.type !== BLOCK && frame.type !== ABSENT)
      ) {
        throw new DezentError(
          'BAD_FRAME',
          `the answer to a want is ${frame === undefined ? 'missing' : 'of another kind'}`,
        );
      }
      const named = blockIdFromBytes(frame.body.subarray(0, BLOCK_ID_BYTES));
      if (named !== id) throw new DezentError('BAD_BLOCK', `the peer gave block ${named} instead of ${id}`);
      if (frame.type === ABSENT) return undefined;
      const bytes = frame.body.subarray(BLOCK_ID_BYTES);
      checkBlock(id, bytes);
      return bytes;
    } finally {
      call.cancel(new DezentError('CANCELLED', 'the want has ended'));
    }
  };

  return {
    want(id, options = {}) {
      return slots(() => {
        options.signal?.throwIfAborted();
        return wantNow(id, options);
      });
    },
    async have(batch, options = {}) {
      const call = (await channel()).open(options);
      try {
        const parts = [...partsOf(batch)];
        for (const [index, part] of parts.entries()) {
          await call.send(HAVE, encodeHave(part), { last: index === parts.length - 1 });
        }
        const frame = await call.next();
        if (frame?.type !== HAVE_OK) throw new DezentError('BAD_FRAME', 'a have was not answered by haveOk');
      } finally {
        call.cancel(new DezentError('CANCELLED', 'the have has ended'));
      }
    },
  };
}

/** The batch in pieces that fit a frame; only the first is `full`. */
function* partsOf({ full, added, removed }: HaveBatch): Generator<HaveBatch> {
  const length = Math.max(added.length, removed.length, 1);
  for (let at = 0; at < length; at += HAVE_IDS) {
    yield { full: full && at === 0, added: added.slice(at, at + HAVE_IDS), removed: removed.slice(at, at + HAVE_IDS) };
  }
}

function encodeHave({ full, added, removed }: HaveBatch): Uint8Array {
  return encodeBody({ full, added: joinIds(added), removed: joinIds(removed) });
}

// ── server ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Blocks read and not yet sent, per peer: at most 64 MiB in memory. */
const MAX_READS = 16;

const haveSchema = v.strictObject({
  full: v.boolean(),
  added: v.instance(Uint8Array),
  removed: v.instance(Uint8Array),
});

export interface ExchangeServer {
  /** undefined: surely not here; throws when it could not tell. */
  get(id: BlockId): Promise<Uint8Array | undefined>;
  /** A piece of what this peer has; pieces of one list come in order. */
  onHave(peerId: string, batch: HaveBatch): Promise<void>;
  onFault?: (error: DezentError) => void;
}

export function serveExchange(
  stream: Stream,
  peerId: string,
  needs: ExchangeServer,
  settings: Partial<ChannelSettings> = {},
): Channel {
  const reads = pLimit(MAX_READS);

  const giveBlock = async (call: Call, wanted: Uint8Array) => {
    const id = blockIdFromBytes(wanted);
    if (call.signal.aborted) return;
    const bytes = await needs.get(id);
    if (bytes === undefined) await call.send(ABSENT, wanted, { last: true });
    else await call.send(BLOCK, [wanted, bytes], { last: true });
  };
  const takeHave = async (call: Call, first: Uint8Array) => {
    await needs.onHave(peerId, decodeHave(first));
    for await (const frame of call.frames) {
      if (frame.type !== HAVE) throw new DezentError('BAD_FRAME', 'something else came amid have frames');
      await needs.onHave(peerId, decodeHave(frame.body));
    }
    await call.send(HAVE_OK, new Uint8Array(1), { last: true });
  };

  return openChannel(stream, {
    frames: EXCHANGE_FRAMES,
    settings,
    ...(needs.onFault && { onFault: needs.onFault }),
    async onCall(call) {
      const first = await call.next();
      if (first?.type === WANT && first.body.length === BLOCK_ID_BYTES) await reads(() => giveBlock(call, first.body));
      else if (first?.type === HAVE) await takeHave(call, first.body);
      else throw new DezentError('BAD_FRAME', 'a call of exchange begins with want or have');
    },
  });
}

function decodeHave(body: Uint8Array): HaveBatch {
  const { full, added, removed } = decodeBody('have', haveSchema, body);
  return { full, added: splitIds(added), removed: splitIds(removed) };
}
