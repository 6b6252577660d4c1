// Sends frames on a stream: small ones together, large bodies without a copy, never more than a bounded queue.
// The stream would queue without limit; here a writer waits, and a peer that stops reading is noticed and given up.
import type { Stream } from '@libp2p/interface';
import { DezentError } from '../errors.ts';
import { createWatchdog } from './watchdog.ts';

/** One send fills four Noise packets of 65,519 bytes (a Yamux header is 12); sends under 64 KiB cost half the throughput. */
const SEND_BYTES = 4 * 65_519 - 12;

/** Small frames are copied together up to this, one Noise packet, also with the beginning of a large body behind them. */
const JOIN_BYTES: number = 65_519 - 12;

/** Bytes that may wait here before writers have to: four sends. */
const MAX_QUEUED_BYTES = 1024 * 1024;

/** Longest wait for `close` to bring out what is queued. */
const CLOSE_MS = 2_000;

export interface FrameWriter {
  /** Queues a frame. It leaves when a full send has gathered, else when the running task and its microtasks end. */
  write(parts: readonly Uint8Array[]): void;
  /** Undefined when more may be written now, else resolves then. Never rejects: a lost stream resolves it. */
  ready(): Promise<void> | undefined;
  queuedBytes(): number;
  /** Sends what is queued and ends our side. */
  close(): Promise<void>;
  /** Forgets what is queued; to be called when the stream is gone. */
  stop(): void;
}

/** `onBroken` hears that the stream cannot be written, or that the peer has taken nothing for `stallMs` although bytes wait. */
export function createFrameWriter(
  stream: Stream,
  stallMs: number,
  onBroken: (error: DezentError) => void,
): FrameWriter {
  let queue: Uint8Array[] = [];
  let queuedBytes = 0;
  let scheduled = false;
  let closing = false;
  let stopped = false;
  let waiting: PromiseWithResolvers<void> | undefined;
  const stall = createWatchdog(stallMs, () =>
    onBroken(new DezentError('TIMEOUT', `the peer has read nothing for ${stallMs} ms`)),
  );

  const release = () => {
    if (waiting === undefined || (!stopped && queuedBytes >= MAX_QUEUED_BYTES)) return;
    waiting.resolve();
    waiting = undefined;
  };
  // A send may find the stream gone, and the channel then stops this writer.
  const sendable = (next: number) => next < queue.length && !stopped && !stream.writableNeedsDrain;
  const flush = () => {
    scheduled = false;
    let next = 0;
    try {
      while (sendable(next)) {
        const { bytes, from } = nextSend(queue, next);
        next = from;
        queuedBytes -= bytes.length;
        if (stream.send(bytes)) stall.disarm();
        else stall.arm();
      }
    } catch (cause) {
      onBroken(new DezentError('UNREACHABLE', 'the stream cannot be written', { cause }));
      return;
    }
    if (next > 0) queue = queue.slice(next);
    release();
  };
  const onDrain = () => {
    stall.disarm();
    if (queue.length > 0) flush();
  };
  stream.addEventListener('drain', onDrain);

  const stop = () => {
    stopped = true;
    queue = [];
    queuedBytes = 0;
    stall.disarm();
    stream.removeEventListener('drain', onDrain);
    release();
  };

  return {
    write(parts) {
      if (stopped || closing) return;
      for (const part of parts) {
        queue.push(part);
        queuedBytes += part.length;
      }
      if (queuedBytes >= SEND_BYTES) flush();
      else if (!scheduled) {
        scheduled = true;
        process.nextTick(flush);
      }
    },
    ready() {
      if (stopped || queuedBytes < MAX_QUEUED_BYTES) return undefined;
      waiting ??= Promise.withResolvers<void>();
      return waiting.promise;
    },
    queuedBytes: () => queuedBytes,
    async close() {
      const signal = AbortSignal.timeout(CLOSE_MS);
      for (flush(); queue.length > 0; flush()) await stream.onDrain({ signal });
      closing = true;
      await stream.close({ signal });
    },
    stop,
  };
}

/** The next piece to send, at most SEND_BYTES, and where the queue goes on; what is left of a large part stays in its place. */
function nextSend(queue: Uint8Array[], first: number): { bytes: Uint8Array; from: number } {
  const head = queue[first] ?? new Uint8Array();
  if (head.length >= JOIN_BYTES) {
    if (head.length <= SEND_BYTES) return { bytes: head, from: first + 1 };
    queue[first] = head.subarray(SEND_BYTES);
    return { bytes: head.subarray(0, SEND_BYTES), from: first };
  }
  let end = first;
  let length = 0;
  while (end < queue.length && length < JOIN_BYTES) length += queue[end++]?.length ?? 0;
  const bytes = Buffer.allocUnsafeSlow(Math.min(length, JOIN_BYTES));
  let at = 0;
  for (let index = first; index < end; index++) {
    const part = queue[index] ?? new Uint8Array();
    const taken = Math.min(part.length, bytes.length - at);
    bytes.set(taken === part.length ? part : part.subarray(0, taken), at);
    at += taken;
    if (taken === part.length) continue;
    queue[index] = part.subarray(taken);
    return { bytes, from: index };
  }
  return { bytes, from: end };
}
