// One call on a channel: frames out, frames in, an end from each side, or a cancel. Also the frames that belong to every channel.
// The loss of the stream, a cancel from either side and a signal all come together in `failCall`.
import { encode } from '@ipld/dag-cbor';
import * as v from 'valibot';
import { asDezentError, DezentError } from '../errors.ts';
import { bytesOf, decodeBody } from './frame.ts';
import type { Frame, FrameRule, FrameTable } from './frame.ts';

export const END = 1;
export const CANCEL = 2;
export const CREDIT = 3;
export const ALIVE = 4;
export const ONE_ZERO: Uint8Array = new Uint8Array(1);

/** Room for a code and one plain sentence. */
const MAX_CANCEL_BYTES = 1024;
const MAX_CANCEL_CHARS = 240;

export const CHANNEL_FRAMES: FrameTable = {
  [END]: { name: 'end', maxBytes: 1 },
  [CANCEL]: { name: 'cancel', maxBytes: MAX_CANCEL_BYTES },
  [CREDIT]: { name: 'credit', maxBytes: 4 },
  [ALIVE]: { name: 'alive', maxBytes: 1 },
};

export interface Call {
  /**
   * Sends a frame; a body may be given in parts and must not be changed afterwards. Resolves when the next one may be sent;
   * await it before the next send of the same call. Throws UNREACHABLE, PEER_REFUSED or CANCELLED when the call has ended that way.
   */
  send(type: number, body: Uint8Array | readonly Uint8Array[], options?: { last?: boolean }): Promise<void>;
  /** The next frame, or undefined when the peer has ended its side. One reader at a time. Throws as `send`, after all that had arrived. */
  next(): Promise<Frame | undefined>;
  /** All frames by `next`; leaving the loop early does not end the call. */
  readonly frames: AsyncIterable<Frame>;
  /** Ends our side, if it has not ended. */
  end(): void;
  /** Ends both sides; the peer is told the code and the message. */
  cancel(reason: DezentError): void;
  /** Fires when the call has failed: cancelled by either side, or the channel is gone. */
  readonly signal: AbortSignal;
}

/** What a call needs of its channel. */
export interface Wire {
  /** Numbers the call at its first frame, so that no number is ever skipped. */
  number(call: CallState): number;
  rule(type: number): FrameRule | undefined;
  write(id: number, type: number, body: readonly Uint8Array[], last: boolean): void;
  /** Undefined when more may be written now. */
  ready(): Promise<void> | undefined;
  charge(call: CallState, bodyBytes: number): Promise<void>;
  unwait(call: CallState): void;
  /** Somebody took this frame, or nobody ever will. */
  taken(rule: FrameRule, bodyBytes: number): void;
  done(call: CallState): void;
}

/** A call as its channel sees it. */
export interface CallState {
  readonly wire: Wire;
  /** What a cancel of the peer makes of the call; without it, the peer's own words as PEER_REFUSED. */
  readonly cancelled: DezentError | undefined;
  /** 0 until the first frame was sent or the call accepted. */
  id: number;
  inbox: { frame: Frame; rule: FrameRule }[];
  /** Entries of the inbox that were given out. */
  taken: number;
  reader: PromiseWithResolvers<void> | undefined;
  localEnded: boolean;
  remoteEnded: boolean;
  failure: DezentError | undefined;
  controller: AbortController | undefined;
  unfollow: (() => void) | undefined;
}

export function createCall(wire: Wire, cancelled?: DezentError): CallState {
  return {
    wire,
    cancelled,
    id: 0,
    inbox: [],
    taken: 0,
    reader: undefined,
    localEnded: false,
    remoteEnded: false,
    failure: undefined,
    controller: undefined,
    unfollow: undefined,
  };
}

/** The call as its users see it. */
export function callOf(state: CallState): Call {
  const next = () => nextFrame(state);
  return {
    send: (type, body, { last = false } = {}) =>
      sendFrame(state, type, body instanceof Uint8Array ? [body] : body, last),
    next,
    frames: {
      [Symbol.asyncIterator]: () => ({
        async next() {
          const value = await next();
          return value === undefined ? { done: true, value } : { done: false, value };
        },
      }),
    },
    end: () => endCall(state),
    cancel: (reason) => cancelCall(state, reason),
    get signal() {
      state.controller ??= new AbortController();
      if (state.failure !== undefined) state.controller.abort(state.failure);
      return state.controller.signal;
    },
  };
}

async function sendFrame(state: CallState, type: number, body: readonly Uint8Array[], last: boolean): Promise<void> {
  const { wire } = state;
  throwIfFailed(state);
  if (state.localEnded) throw new DezentError('INTERNAL', 'a frame was sent after the end of its call');
  const bytes = bytesOf(body);
  const rule = wire.rule(type);
  if (rule === undefined || bytes === 0 || bytes > rule.maxBytes) {
    throw new DezentError('INTERNAL', `a ${rule?.name ?? type} frame of ${bytes} bytes cannot be sent`);
  }
  if (rule.bulk === true) {
    await wire.charge(state, bytes);
    throwIfFailed(state);
  }
  if (state.id === 0) state.id = wire.number(state);
  wire.write(state.id, type, body, last);
  if (last) {
    state.localEnded = true;
    doneIfEnded(state);
  }
  const wait = wire.ready();
  if (wait === undefined) return;
  await wait;
  throwIfFailed(state);
}

async function nextFrame(state: CallState): Promise<Frame | undefined> {
  for (;;) {
    const entry = state.inbox[state.taken];
    if (entry !== undefined) {
      state.taken += 1;
      if (state.taken === state.inbox.length) emptyInbox(state);
      state.wire.taken(entry.rule, entry.frame.body.length);
      return entry.frame;
    }
    throwIfFailed(state);
    if (state.remoteEnded) return undefined;
    state.reader ??= Promise.withResolvers<void>();
    await state.reader.promise;
  }
}

function endCall(state: CallState): void {
  if (state.localEnded || state.failure !== undefined) return;
  state.localEnded = true;
  if (state.id === 0) state.remoteEnded = true;
  else state.wire.write(state.id, END, [ONE_ZERO], false);
  doneIfEnded(state);
}

/** Does nothing when the call has ended or failed already. */
export function cancelCall(state: CallState, reason: DezentError): void {
  if (state.failure !== undefined || (state.localEnded && state.remoteEnded)) return;
  if (state.id > 0) state.wire.write(state.id, CANCEL, [encodeCancel(reason)], false);
  else state.remoteEnded = true;
  state.localEnded = true;
  failCall(state, reason, true);
  doneIfEnded(state);
}

/** Ends our side; whatever the peer still says is dropped. */
export function leaveCall(state: CallState): void {
  endCall(state);
  dropInbox(state);
  if (!state.remoteEnded) failCall(state, new DezentError('CANCELLED', 'the call is over'), true);
}

/** Cancels the call when the signal fires. */
export function followSignal(state: CallState, signal: AbortSignal): void {
  const stop = () => cancelCall(state, asCancelled(signal.reason));
  if (signal.aborted) {
    stop();
    return;
  }
  signal.addEventListener('abort', stop, { once: true });
  state.unfollow = () => signal.removeEventListener('abort', stop);
}

/** A frame of the peer has come. Throws BAD_FRAME after the peer's end. */
export function receiveFrame(state: CallState, frame: Frame, rule: FrameRule): void {
  if (state.remoteEnded) throw new DezentError('BAD_FRAME', `a frame came after the end of call ${state.id}`);
  if (frame.last || frame.type === END) state.remoteEnded = true;
  if (frame.type !== END && state.failure === undefined) state.inbox.push({ frame, rule });
  else state.wire.taken(rule, frame.body.length);
  wakeReader(state);
  doneIfEnded(state);
}

/** The peer has cancelled the call. */
export function receiveCancel(state: CallState, reason: DezentError): void {
  state.remoteEnded = true;
  if (!state.localEnded) state.wire.write(state.id, CANCEL, [encodeCancel(reason)], false);
  state.localEnded = true;
  failCall(state, state.cancelled ?? reason, false);
  doneIfEnded(state);
}

/** The channel is gone. */
export function loseCall(state: CallState, error: DezentError): void {
  state.localEnded = true;
  state.remoteEnded = true;
  state.unfollow?.();
  failCall(state, error, false);
}

/** What has arrived can still be taken, unless this side wants no more of it. */
function failCall(state: CallState, error: DezentError, unwanted: boolean): void {
  if (state.failure !== undefined) return;
  state.failure = error;
  if (unwanted) dropInbox(state);
  state.wire.unwait(state);
  state.controller?.abort(error);
  wakeReader(state);
}

function throwIfFailed({ failure }: CallState): void {
  if (failure !== undefined) throw failure;
}

function doneIfEnded(state: CallState): void {
  if (!state.localEnded || !state.remoteEnded) return;
  state.unfollow?.();
  if (state.id > 0) state.wire.done(state);
}

function wakeReader(state: CallState): void {
  state.reader?.resolve();
  state.reader = undefined;
}

function dropInbox(state: CallState): void {
  const dropped = state.inbox.slice(state.taken);
  emptyInbox(state);
  for (const { frame, rule } of dropped) state.wire.taken(rule, frame.body.length);
}

function emptyInbox(state: CallState): void {
  state.inbox = [];
  state.taken = 0;
}

/** The peer's reason, made harmless: it is text of a stranger that ends up in logs and on terminals. */
export function decodeCancel(body: Uint8Array): DezentError {
  const [code, message] = decodeBody('cancel', v.tuple([v.pipe(v.string(), v.maxLength(40)), v.string()]), body);
  const words = message.slice(0, MAX_CANCEL_CHARS).replace(/[^\P{C}]/gu, ' ');
  return new DezentError('PEER_REFUSED', `the peer refused: ${words} (${code.replace(/[^A-Z_]/g, '')})`);
}

function encodeCancel(reason: DezentError): Uint8Array {
  return encode([reason.code, reason.message.slice(0, MAX_CANCEL_CHARS)]);
}

/** How much credit a frame gives back. */
export function decodeCredit(body: Uint8Array): number {
  if (body.length !== 4) throw new DezentError('BAD_FRAME', 'a credit body has 4 bytes');
  return new DataView(body.buffer, body.byteOffset, 4).getUint32(0);
}

export function encodeCredit(cost: number): Uint8Array {
  const body = new Uint8Array(4);
  new DataView(body.buffer).setUint32(0, cost);
  return body;
}

/** The reason of a signal as an error of ours: a timeout stays one, all else is a cancel. */
function asCancelled(reason: unknown): DezentError {
  if (reason instanceof Error && reason.name === 'TimeoutError')
    return new DezentError('TIMEOUT', 'the peer took too long', { cause: reason });
  const error = asDezentError(reason);
  return error.code === 'INTERNAL' ? new DezentError('CANCELLED', 'cancelled', { cause: reason }) : error;
}
