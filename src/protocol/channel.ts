// A channel: many calls over one libp2p stream. The side that opened the stream makes calls, the other side serves them.
//
// Goals: many calls in flight; order within a call; bounded memory whatever the peer does; a silent or stuck peer is given up.
// Non-goals: order between calls; priorities; calls in both directions (each side opens a stream of its own); encryption (Noise does it).
//
// | type | frame  | body                       | limit       |
// |------|--------|----------------------------|-------------|
// | 1    | end    | one zero byte              | 1 byte      |
// | 2    | cancel | DAG-CBOR [code, message]   | 1 KiB       |
// | 3    | credit | u32be                      | 4 bytes     |
// | 4    | alive  | one zero byte              | 1 byte      |
// | 16…  | the protocol's own                  | its table   |
//
// Calls are numbered 1, 2, 3 … by their first frame. Each side ends each call by one final frame: one with the last flag, an end, or a cancel
// (which may also follow the others, until the peer has ended too); whoever gets a cancel answers with one unless it has ended already. A frame outside of this is BAD_FRAME and aborts the stream.
import type { Stream } from '@libp2p/interface';
import { asDezentError, DezentError } from '../errors.ts';
import {
  ALIVE,
  CANCEL,
  CHANNEL_FRAMES,
  CREDIT,
  createCall,
  decodeCancel,
  decodeCredit,
  encodeCredit,
  END,
  ONE_ZERO,
} from './call.ts';
import type { Call, CallState } from './call.ts';
import type { BodyPool } from './body-pool.ts';
import { costOf, createReceiveCredit, createSendCredit } from './credit.ts';
import { createFrameReader, encodeFrame } from './frame.ts';
import type { Frame, FrameRule, FrameTable } from './frame.ts';
import { createFrameWriter } from './frame-writer.ts';
import { createWatchdog } from './watchdog.ts';

export type { Call } from './call.ts';
export type { Frame, FrameTable } from './frame.ts';

/** Frames that arrived and nobody has taken, beyond the credit: then the stream is paused. */
const MAX_INBOX_BYTES = 4 * 1024 * 1024;

/** What may arrive between a pause and its effect: one Yamux window of at most 16 MiB. The stream aborts beyond it. */
const MAX_PAUSED_BYTES = 17 * 1024 * 1024;

const MAX_CALL_ID = 0xffff_ffff;

export interface ChannelSettings {
  /** Calls in flight; one more aborts the stream. */
  maxCalls: number;
  /** A frame has begun and nothing more comes. */
  halfFrameMs: number;
  /** The peer takes neither bytes nor blocks. */
  stallMs: number;
  /** Calls wait and nothing at all comes; more than twice `aliveMs`. */
  silenceMs: number;
  /** How often a side that serves says that it is still at work. */
  aliveMs: number;
}

export const CHANNEL_SETTINGS: ChannelSettings = {
  maxCalls: 1000,
  halfFrameMs: 30_000,
  stallMs: 60_000,
  silenceMs: 60_000,
  aliveMs: 20_000,
};

export interface ChannelOptions {
  /** The protocol's own frames, types 16 … 127. */
  frames: FrameTable;
  /** Given: this side serves. When it rejects, the call is cancelled with the error, and BAD_FRAME aborts the stream. */
  onCall?: (call: Call) => Promise<void>;
  /** Hears of what went wrong in `onCall`, but not of calls that the peer has cancelled. */
  onFault?: (error: DezentError) => void;
  /** Where the memory of bodies comes from; whoever gives it back there must be done with it. Default: fresh memory for each. */
  bodies?: BodyPool;
  settings?: Partial<ChannelSettings>;
}

export interface Channel {
  /** A new call. The signal cancels it. Throws BUSY when `maxCalls` are in flight, UNREACHABLE when the channel has ended. */
  open(options?: { signal?: AbortSignal }): Call;
  /** Resolves when the channel has ended: with undefined in good order, else with the reason. Never rejects. */
  readonly closed: Promise<DezentError | undefined>;
  /** Ends the channel and all its calls now. */
  abort(error: DezentError): void;
  /** Sends what is queued, then ends; calls in flight fail. */
  close(): Promise<void>;
}

export function openChannel(stream: Stream, options: ChannelOptions): Channel {
  const { onCall } = options;
  const settings = { ...CHANNEL_SETTINGS, ...options.settings };
  const table: FrameTable = { ...options.frames, ...CHANNEL_FRAMES };
  const calls = new Map<number, CallState>();
  const closed = Promise.withResolvers<DezentError | undefined>();
  const sendCredit = createSendCredit();
  const receiveCredit = createReceiveCredit((cost) => write(0, CREDIT, [encodeCredit(cost)], false));
  const writer = createFrameWriter(stream, settings.stallMs, (error) => abort(error));
  const timedOut = (what: string) => () => abort(new DezentError('TIMEOUT', what));
  const halfFrame = createWatchdog(
    settings.halfFrameMs,
    timedOut(`half a frame, then nothing for ${settings.halfFrameMs} ms`),
  );
  const creditStall = createWatchdog(
    settings.stallMs,
    timedOut(`the peer has taken no block for ${settings.stallMs} ms`),
  );
  const silence = createWatchdog(
    settings.silenceMs,
    timedOut(`no answer and no sign of life for ${settings.silenceMs} ms`),
  );
  let lastId = 0;
  let running = 0;
  let inboxBytes = 0;
  let ended = false;
  let aliveTimer: NodeJS.Timeout | undefined;

  const write = (id: number, type: number, body: readonly Uint8Array[], last: boolean) =>
    writer.write(encodeFrame(type, id, body, last));

  const finish = (error: DezentError | undefined) => {
    if (ended) return;
    ended = true;
    for (const watchdog of [halfFrame, creditStall, silence]) watchdog.disarm();
    clearInterval(aliveTimer);
    writer.stop();
    const lost = new DezentError(
      'UNREACHABLE',
      `the connection to the peer was lost${error === undefined ? '' : `: ${error.message}`}`,
      { cause: error },
    );
    for (const call of calls.values()) call.fail(lost);
    calls.clear();
    sendCredit.drop();
    closed.resolve(error);
  };
  const abort = (error: DezentError) => {
    if (ended) return;
    finish(error);
    stream.abort(error);
  };

  /** What a call needs of its channel. */
  const wire = {
    /** Numbers the call at its first frame, so that no number is ever skipped. */
    number(call: CallState): number {
      if (ended) throw new DezentError('UNREACHABLE', 'the connection to the peer was lost');
      if (calls.size >= settings.maxCalls)
        throw new DezentError('BUSY', `${settings.maxCalls} calls to the peer are in flight`);
      lastId += 1;
      calls.set(lastId, call);
      if (onCall === undefined) silence.arm();
      return lastId;
    },
    rule: (type: number): FrameRule | undefined => options.frames[type],
    write,
    ready: () => writer.ready(),
    async charge(call: CallState, bodyBytes: number) {
      const turn = sendCredit.take(call, costOf(bodyBytes));
      if (turn === undefined) return;
      creditStall.arm();
      await turn;
    },
    unwait: (call: CallState) => sendCredit.drop(call),
    /** Somebody took this frame, or nobody ever will. */
    taken(rule: FrameRule, bodyBytes: number) {
      const cost = costOf(bodyBytes);
      if (rule.bulk === true) {
        receiveCredit.giveBack(cost);
        return;
      }
      inboxBytes -= cost;
      if (inboxBytes < MAX_INBOX_BYTES / 2 && stream.readStatus === 'paused') queueMicrotask(resume);
    },
    done(call: CallState) {
      calls.delete(call.id());
      if (calls.size > 0) return;
      silence.disarm();
      clearInterval(aliveTimer);
      aliveTimer = undefined;
    },
  };
  const resume = () => {
    if (stream.readStatus === 'paused' && inboxBytes < MAX_INBOX_BYTES / 2) stream.resume();
  };

  const serve = async (call: CallState) => {
    running += 1;
    aliveTimer ??= setInterval(() => write(0, ALIVE, [ONE_ZERO], false), settings.aliveMs).unref();
    try {
      await onCall?.(call.call);
      call.leave();
    } catch (cause) {
      const error = asDezentError(cause);
      if (error !== call.failure()) options.onFault?.(error);
      if (error.code === 'BAD_FRAME') abort(error);
      else call.call.cancel(error);
    } finally {
      running -= 1;
    }
  };
  const accept = (id: number): CallState => {
    if (onCall === undefined || id !== lastId + 1)
      throw new DezentError('BAD_FRAME', `a frame belongs to call ${id}, which is not open`);
    if (calls.size >= settings.maxCalls || running >= 2 * settings.maxCalls) {
      throw new DezentError('BAD_FRAME', `the peer has more than ${settings.maxCalls} calls in flight`);
    }
    const call = createCall(wire, new DezentError('CANCELLED', 'the peer has cancelled the call'));
    call.accept();
    void serve(call);
    return call;
  };
  const onChannelFrame = (frame: Frame) => {
    if (frame.type !== CREDIT) return;
    sendCredit.grant(decodeCredit(frame.body));
    if (sendCredit.waiting()) creditStall.arm();
    else creditStall.disarm();
  };
  const onFrame = (id: number, frame: Frame, rule: FrameRule) => {
    if (frame.type === CREDIT || frame.type === ALIVE) {
      onChannelFrame(frame);
      return;
    }
    const cost = costOf(frame.body.length);
    if (rule.bulk === true) receiveCredit.charge(cost);
    else inboxBytes += cost;
    const known = calls.get(id);
    // A cancel may cross the end of its call.
    const late = known === undefined && frame.type === CANCEL && id > 0 && id <= lastId;
    const call = known ?? (late ? undefined : accept(id));
    if (call === undefined) wire.taken(rule, frame.body.length);
    else if (frame.type === CANCEL) call.onCancel(decodeCancel(frame.body));
    else call.onFrame(frame, rule);
    if (!late && (frame.type === CANCEL || frame.type === END)) wire.taken(rule, frame.body.length);
  };

  const reader = createFrameReader(table, onFrame, options.bodies?.take);
  stream.maxReadBufferLength = Math.max(stream.maxReadBufferLength, MAX_PAUSED_BYTES);
  stream.addEventListener('message', (event) => {
    if (ended) return;
    try {
      if (event.data instanceof Uint8Array) reader.push(event.data);
      else for (const piece of event.data) reader.push(piece);
      if (ended) return;
      if (reader.halfway()) halfFrame.arm();
      else halfFrame.disarm();
      if (onCall === undefined && calls.size > 0) silence.arm();
      if (inboxBytes > MAX_INBOX_BYTES && stream.readStatus === 'readable') stream.pause();
    } catch (cause) {
      abort(asDezentError(cause));
    }
  });
  stream.addEventListener('end', () => {
    // An abort or reset also ends reading, and tells its reason with 'close'.
    if (ended || stream.status === 'aborted' || stream.status === 'reset') return;
    finish(undefined);
    // The peer says no more; what we might still say, nobody waits for.
    stream.close().catch((cause: unknown) => stream.abort(asDezentError(cause)));
  });
  stream.addEventListener('close', (event) => finish(event.error === undefined ? undefined : asLost(event.error)));
  if (stream.status !== 'open') finish(new DezentError('UNREACHABLE', 'the stream had ended before it was used'));

  return {
    open({ signal } = {}) {
      if (ended) throw new DezentError('UNREACHABLE', 'the connection to the peer was lost');
      if (lastId >= MAX_CALL_ID) {
        const spent = new DezentError('UNREACHABLE', 'the channel has used up its numbers; the next one starts anew');
        abort(spent);
        throw spent;
      }
      const call = createCall(wire);
      if (signal !== undefined) call.follow(signal);
      return call.call;
    },
    closed: closed.promise,
    abort,
    async close() {
      if (ended) return;
      try {
        await writer.close();
      } catch (cause) {
        abort(asLost(cause));
      }
      finish(undefined);
    },
  };
}

function asLost(cause: unknown): DezentError {
  const message = cause instanceof Error ? cause.message : String(cause);
  return cause instanceof DezentError ? cause : new DezentError('UNREACHABLE', message, { cause });
}
