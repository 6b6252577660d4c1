// One call on a channel: frames out, frames in, an end from each side, or a cancel. Also the frames that belong to every channel.
// `close` of the stream, a cancel from either side and a signal all come together in `fail`.
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
  number(call: CallState): number;
  rule(type: number): FrameRule | undefined;
  write(id: number, type: number, body: readonly Uint8Array[], last: boolean): void;
  ready(): Promise<void> | undefined;
  charge(call: CallState, bodyBytes: number): Promise<void>;
  unwait(call: CallState): void;
  taken(rule: FrameRule, bodyBytes: number): void;
  done(call: CallState): void;
}

/** A call as its channel sees it. */
export interface CallState {
  readonly call: Call;
  /** 0 until the first frame was sent or the call accepted. */
  id(): number;
  accept(): void;
  failure(): DezentError | undefined;
  /** Ends our side; whatever the peer still says is dropped. */
  leave(): void;
  follow(signal: AbortSignal): void;
  onFrame(frame: Frame, rule: FrameRule): void;
  onCancel(reason: DezentError): void;
  /** The channel is gone. */
  fail(error: DezentError): void;
}

/** `cancelled` is the error that a cancel of the peer makes; without it, the peer's own words as PEER_REFUSED. */
export function createCall(wire: Wire, cancelled?: DezentError): CallState {
  let id = 0;
  let inbox: { frame: Frame; rule: FrameRule }[] = [];
  let taken = 0;
  let reader: PromiseWithResolvers<void> | undefined;
  let localEnded = false;
  let remoteEnded = false;
  let failure: DezentError | undefined;
  let controller: AbortController | undefined;
  let unfollow: (() => void) | undefined;

  const wake = () => {
    reader?.resolve();
    reader = undefined;
  };
  const doneIfEnded = () => {
    if (!localEnded || !remoteEnded) return;
    unfollow?.();
    if (id > 0) wire.done(state);
  };
  const dropInbox = () => {
    for (const { frame, rule } of inbox.slice(taken)) wire.taken(rule, frame.body.length);
    inbox = [];
    taken = 0;
  };
  /** What has arrived can still be taken, unless this side wants no more of it. */
  const failWith = (error: DezentError, unwanted: boolean) => {
    if (failure !== undefined) return;
    failure = error;
    if (unwanted) dropInbox();
    wire.unwait(state);
    controller?.abort(error);
    wake();
  };
  const cancel = (reason: DezentError) => {
    if (id > 0) wire.write(id, CANCEL, [encodeCancel(reason)], false);
    else remoteEnded = true;
    localEnded = true;
    failWith(reason, true);
    doneIfEnded();
  };
  const end = () => {
    if (localEnded || failure !== undefined) return;
    localEnded = true;
    if (id === 0) remoteEnded = true;
    else wire.write(id, END, [ONE_ZERO], false);
    doneIfEnded();
  };

  const call: Call = {
    async send(type, body, { last = false } = {}) {
      if (failure !== undefined) throw failure;
      if (localEnded) throw new DezentError('INTERNAL', 'a frame was sent after the end of its call');
      const parts = body instanceof Uint8Array ? [body] : body;
      const bytes = bytesOf(parts);
      const rule = wire.rule(type);
      if (rule === undefined || bytes === 0 || bytes > rule.maxBytes) {
        throw new DezentError('INTERNAL', `a ${rule?.name ?? type} frame of ${bytes} bytes cannot be sent`);
      }
      if (rule.bulk === true) {
        await wire.charge(state, bytes);
        if (failure !== undefined) throw failure as DezentError;
      }
      if (id === 0) id = wire.number(state);
      wire.write(id, type, parts, last);
      if (last) {
        localEnded = true;
        doneIfEnded();
      }
      const wait = wire.ready();
      if (wait === undefined) return;
      await wait;
      if (failure !== undefined) throw failure as DezentError;
    },
    async next() {
      for (;;) {
        const entry = inbox[taken];
        if (entry !== undefined) {
          taken += 1;
          if (taken === inbox.length) {
            inbox = [];
            taken = 0;
          }
          wire.taken(entry.rule, entry.frame.body.length);
          return entry.frame;
        }
        if (failure !== undefined) throw failure;
        if (remoteEnded) return undefined;
        reader ??= Promise.withResolvers<void>();
        await reader.promise;
      }
    },
    frames: {
      [Symbol.asyncIterator]: () => ({
        async next() {
          const value = await call.next();
          return value === undefined ? { done: true, value } : { done: false, value };
        },
      }),
    },
    end,
    cancel(reason) {
      if (failure === undefined && !(localEnded && remoteEnded)) cancel(reason);
    },
    get signal() {
      controller ??= new AbortController();
      if (failure !== undefined) controller.abort(failure);
      return controller.signal;
    },
  };

  const state: CallState = {
    call,
    id: () => id,
    accept() {
      id = wire.number(state);
    },
    failure: () => failure,
    leave() {
      end();
      dropInbox();
      if (!remoteEnded) failWith(new DezentError('CANCELLED', 'the call is over'), true);
    },
    follow(signal) {
      const stop = () => call.cancel(asCancelled(signal.reason));
      if (signal.aborted) {
        stop();
        return;
      }
      signal.addEventListener('abort', stop, { once: true });
      unfollow = () => signal.removeEventListener('abort', stop);
    },
    onFrame(frame, rule) {
      if (remoteEnded) throw new DezentError('BAD_FRAME', `a frame came after the end of call ${id}`);
      if (frame.last || frame.type === END) remoteEnded = true;
      if (frame.type !== END) {
        if (failure === undefined) inbox.push({ frame, rule });
        else wire.taken(rule, frame.body.length);
      }
      wake();
      doneIfEnded();
    },
    onCancel(reason) {
      remoteEnded = true;
      if (!localEnded) wire.write(id, CANCEL, [encodeCancel(reason)], false);
      localEnded = true;
      failWith(cancelled ?? reason, false);
      doneIfEnded();
    },
    fail(error) {
      localEnded = true;
      remoteEnded = true;
      unfollow?.();
      failWith(error, false);
    },
  };
  return state;
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
