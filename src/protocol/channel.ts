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
import type { BodyPool } from './body-pool.ts';
import {
  ALIVE,
  callOf,
  CANCEL,
  cancelCall,
  CHANNEL_FRAMES,
  createCall,
  CREDIT,
  decodeCancel,
  decodeCredit,
  encodeCredit,
  followSignal,
  leaveCall,
  loseCall,
  ONE_ZERO,
  receiveCancel,
  receiveFrame,
} from './call.ts';
import type { Call, CallState, Wire } from './call.ts';
import { costOf, createReceiveCredit, createSendCredit } from './credit.ts';
import type { ReceiveCredit, SendCredit } from './credit.ts';
import { createFrameReader, encodeFrame } from './frame.ts';
import type { Frame, FrameRule, FrameTable } from './frame.ts';
import { createFrameWriter } from './frame-writer.ts';
import type { FrameWriter } from './frame-writer.ts';
import { createWatchdog } from './watchdog.ts';
import type { Watchdog } from './watchdog.ts';

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

/** A channel from inside: what its functions share. */
interface Core {
  readonly stream: Stream;
  readonly options: ChannelOptions;
  readonly settings: ChannelSettings;
  readonly calls: Map<number, CallState>;
  readonly wire: Wire;
  readonly writer: FrameWriter;
  readonly sendCredit: SendCredit;
  readonly receiveCredit: ReceiveCredit;
  readonly halfFrame: Watchdog;
  readonly creditStall: Watchdog;
  readonly silence: Watchdog;
  readonly closed: PromiseWithResolvers<DezentError | undefined>;
  lastId: number;
  /** Calls whose `onCall` is at work; more than `calls` when cancelled ones are slow to stop. */
  running: number;
  inboxBytes: number;
  ended: boolean;
  aliveTimer: NodeJS.Timeout | undefined;
}

export function openChannel(stream: Stream, options: ChannelOptions): Channel {
  const core = createCore(stream, options);
  listen(core);
  if (stream.status !== 'open') finish(core, new DezentError('UNREACHABLE', 'the stream had ended before it was used'));
  return {
    open: ({ signal } = {}) => openCall(core, signal),
    closed: core.closed.promise,
    abort: (error) => abort(core, error),
    async close() {
      if (core.ended) return;
      try {
        await core.writer.close();
      } catch (cause) {
        abort(core, asLost(cause));
      }
      finish(core, undefined);
    },
  };
}

function createCore(stream: Stream, options: ChannelOptions): Core {
  const settings = { ...CHANNEL_SETTINGS, ...options.settings };
  const { halfFrameMs, stallMs, silenceMs } = settings;
  const writer = createFrameWriter(stream, stallMs, (error) => abort(core, error));
  const giveUp = (what: string) => () => abort(core, new DezentError('TIMEOUT', what));
  const core: Core = {
    stream,
    options,
    settings,
    calls: new Map(),
    // The wire reaches the core only when a call uses it.
    wire: createWire(() => core),
    writer,
    sendCredit: createSendCredit(),
    receiveCredit: createReceiveCredit((cost) => writer.write(encodeFrame(CREDIT, 0, [encodeCredit(cost)], false))),
    halfFrame: createWatchdog(halfFrameMs, giveUp(`half a frame, then nothing for ${halfFrameMs} ms`)),
    creditStall: createWatchdog(stallMs, giveUp(`the peer has taken no block for ${stallMs} ms`)),
    silence: createWatchdog(silenceMs, giveUp(`no answer and no sign of life for ${silenceMs} ms`)),
    closed: Promise.withResolvers<DezentError | undefined>(),
    lastId: 0,
    running: 0,
    inboxBytes: 0,
    ended: false,
    aliveTimer: undefined,
  };
  return core;
}

/** What the calls of a channel need of it. */
function createWire(coreOf: () => Core): Wire {
  return {
    number: (call) => numberCall(coreOf(), call),
    rule: (type) => coreOf().options.frames[type],
    write: (id, type, body, last) => coreOf().writer.write(encodeFrame(type, id, body, last)),
    ready: () => coreOf().writer.ready(),
    async charge(call, bodyBytes) {
      const { sendCredit, creditStall } = coreOf();
      const turn = sendCredit.take(call, costOf(bodyBytes));
      if (turn === undefined) return;
      creditStall.arm();
      await turn;
    },
    unwait: (call) => coreOf().sendCredit.drop(call),
    taken: (rule, bodyBytes) => giveBack(coreOf(), rule, costOf(bodyBytes)),
    done: (call) => forgetCall(coreOf(), call),
  };
}

/** Takes what comes from the stream until it ends. */
function listen(core: Core): void {
  const { stream } = core;
  const table: FrameTable = { ...core.options.frames, ...CHANNEL_FRAMES };
  const reader = createFrameReader(
    table,
    (id, frame, rule) => onFrame(core, id, frame, rule),
    core.options.bodies?.take,
  );
  stream.maxReadBufferLength = Math.max(stream.maxReadBufferLength, MAX_PAUSED_BYTES);
  stream.addEventListener('message', ({ data }) => {
    if (core.ended) return;
    try {
      if (data instanceof Uint8Array) reader.push(data);
      else for (const piece of data) reader.push(piece);
      afterReading(core, reader.halfway());
    } catch (cause) {
      abort(core, asDezentError(cause));
    }
  });
  stream.addEventListener('end', () => {
    // An abort or reset also ends reading, and tells its reason with 'close'.
    if (core.ended || stream.status === 'aborted' || stream.status === 'reset') return;
    finish(core, undefined);
    // The peer says no more; what we might still say, nobody waits for.
    stream.close().catch((cause: unknown) => stream.abort(asDezentError(cause)));
  });
  stream.addEventListener('close', ({ error }) => finish(core, error === undefined ? undefined : asLost(error)));
}

function afterReading(core: Core, halfway: boolean): void {
  if (core.ended) return;
  if (halfway) core.halfFrame.arm();
  else core.halfFrame.disarm();
  if (core.options.onCall === undefined && core.calls.size > 0) core.silence.arm();
  if (core.inboxBytes > MAX_INBOX_BYTES && core.stream.readStatus === 'readable') core.stream.pause();
}

function onFrame(core: Core, id: number, frame: Frame, rule: FrameRule): void {
  if (frame.type === ALIVE) return;
  if (frame.type === CREDIT) {
    core.sendCredit.grant(decodeCredit(frame.body));
    if (core.sendCredit.waiting()) core.creditStall.arm();
    else core.creditStall.disarm();
    return;
  }
  const cost = costOf(frame.body.length);
  if (rule.bulk === true) core.receiveCredit.charge(cost);
  else core.inboxBytes += cost;
  const known = core.calls.get(id);
  if (frame.type !== CANCEL) {
    receiveFrame(known ?? accept(core, id), frame, rule);
    return;
  }
  giveBack(core, rule, cost);
  // A cancel may cross the end of its call.
  if (known !== undefined) receiveCancel(known, decodeCancel(frame.body));
  else if (id === 0 || id > core.lastId) throw notOpen(id);
}

/** Frees what a frame cost once somebody has taken it, or nobody ever will. */
function giveBack(core: Core, rule: FrameRule, cost: number): void {
  if (rule.bulk === true) {
    core.receiveCredit.giveBack(cost);
    return;
  }
  core.inboxBytes -= cost;
  if (core.stream.readStatus === 'paused') queueMicrotask(() => resumeIfRoom(core));
}

function resumeIfRoom({ stream, inboxBytes }: Core): void {
  if (stream.readStatus === 'paused' && inboxBytes < MAX_INBOX_BYTES / 2) stream.resume();
}

function numberCall(core: Core, call: CallState): number {
  const { calls, settings, options } = core;
  if (core.ended) throw new DezentError('UNREACHABLE', 'the connection to the peer was lost');
  if (calls.size >= settings.maxCalls) {
    throw new DezentError('BUSY', `${settings.maxCalls} calls to the peer are in flight`);
  }
  core.lastId += 1;
  calls.set(core.lastId, call);
  if (options.onCall === undefined) core.silence.arm();
  return core.lastId;
}

function forgetCall(core: Core, call: CallState): void {
  core.calls.delete(call.id);
  if (core.calls.size > 0) return;
  core.silence.disarm();
  clearInterval(core.aliveTimer);
  core.aliveTimer = undefined;
}

function openCall(core: Core, signal: AbortSignal | undefined): Call {
  if (core.ended) throw new DezentError('UNREACHABLE', 'the connection to the peer was lost');
  if (core.lastId >= MAX_CALL_ID) {
    const spent = new DezentError('UNREACHABLE', 'the channel has used up its numbers; the next one starts anew');
    abort(core, spent);
    throw spent;
  }
  const call = createCall(core.wire);
  if (signal !== undefined) followSignal(call, signal);
  return callOf(call);
}

/** The call that this first frame begins. */
function accept(core: Core, id: number): CallState {
  const { calls, settings, wire } = core;
  if (core.options.onCall === undefined || id !== core.lastId + 1) throw notOpen(id);
  if (calls.size >= settings.maxCalls || core.running >= 2 * settings.maxCalls) {
    throw new DezentError('BAD_FRAME', `the peer has more than ${settings.maxCalls} calls in flight`);
  }
  const call = createCall(wire, new DezentError('CANCELLED', 'the peer has cancelled the call'));
  call.id = wire.number(call);
  void serve(core, call, core.options.onCall);
  return call;
}

async function serve(core: Core, call: CallState, onCall: (call: Call) => Promise<void>): Promise<void> {
  const sayAlive = () => core.writer.write(encodeFrame(ALIVE, 0, [ONE_ZERO], false));
  core.running += 1;
  core.aliveTimer ??= setInterval(sayAlive, core.settings.aliveMs).unref();
  try {
    await onCall(callOf(call));
    leaveCall(call);
  } catch (cause) {
    const error = asDezentError(cause);
    if (error !== call.failure) core.options.onFault?.(error);
    if (error.code === 'BAD_FRAME') abort(core, error);
    else cancelCall(call, error);
  } finally {
    core.running -= 1;
  }
}

function finish(core: Core, error: DezentError | undefined): void {
  if (core.ended) return;
  core.ended = true;
  for (const watchdog of [core.halfFrame, core.creditStall, core.silence]) watchdog.disarm();
  clearInterval(core.aliveTimer);
  core.writer.stop();
  const why = error === undefined ? '' : `: ${error.message}`;
  const lost = new DezentError('UNREACHABLE', `the connection to the peer was lost${why}`, { cause: error });
  for (const call of core.calls.values()) loseCall(call, lost);
  core.calls.clear();
  core.sendCredit.drop();
  core.closed.resolve(error);
}

function abort(core: Core, error: DezentError): void {
  if (core.ended) return;
  finish(core, error);
  core.stream.abort(error);
}

function notOpen(id: number): DezentError {
  return new DezentError('BAD_FRAME', `a frame belongs to call ${id}, which is not open`);
}

function asLost(cause: unknown): DezentError {
  const message = cause instanceof Error ? cause.message : String(cause);
  return cause instanceof DezentError ? cause : new DezentError('UNREACHABLE', message, { cause });
}
