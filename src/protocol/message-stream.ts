// Short conversations over one libp2p stream: each message is `length:u32be ‖ DAG-CBOR`. Used by hello and records; blocks travel on channels.
// A reader that waits is paused beyond one message, so a peer cannot make this node buffer more than the cap plus one yamux window.
import { decode, encode } from '@ipld/dag-cbor';
import type { Stream } from '@libp2p/interface';
import { DezentError } from '../errors.ts';

const LENGTH_BYTES = 4;

export interface Messages {
  /** Sends one value; resolves when the stream takes more. Throws BAD_FRAME when the value is over `maxSendBytes`. */
  send(value: unknown): Promise<void>;
  /** The next value, or undefined when the peer has ended cleanly between two messages. BAD_FRAME: too long, cut off, or no DAG-CBOR. */
  receive(): Promise<unknown>;
  /** Ends our side and waits until what was sent has left. */
  end(): Promise<void>;
}

export interface MessageLimits {
  /** Longest body that is accepted; checked before anything of it is kept. */
  maxReceiveBytes: number;
  maxSendBytes: number;
  /** Aborts the stream when it fires: a read timeout alone would leave it open. */
  signal: AbortSignal;
}

/** Begins to read and write messages on a stream that nobody else reads. */
export function openMessages(stream: Stream, limits: MessageLimits): Messages {
  const inbox = openInbox(stream, limits.maxReceiveBytes);
  const abort = () => stream.abort(reasonOf(limits.signal));
  if (limits.signal.aborted) abort();
  else limits.signal.addEventListener('abort', abort, { once: true });
  stream.addEventListener('close', () => limits.signal.removeEventListener('abort', abort), { once: true });

  return {
    async send(value) {
      const body = encode(value);
      if (body.length > limits.maxSendBytes) {
        throw new DezentError(
          'BAD_FRAME',
          `a message of ${body.length} bytes is over the limit of ${limits.maxSendBytes}`,
        );
      }
      const frame = Buffer.allocUnsafe(LENGTH_BYTES + body.length);
      frame.writeUInt32BE(body.length);
      frame.set(body, LENGTH_BYTES);
      if (!stream.send(frame)) await stream.onDrain({ signal: limits.signal });
    },
    async receive() {
      const head = await inbox.take(LENGTH_BYTES);
      if (head === undefined) return undefined;
      const length = head.readUInt32BE();
      if (length === 0 || length > limits.maxReceiveBytes)
        throw badFrame(stream, `a message announces ${length} bytes`);
      const body = await inbox.take(length);
      if (body === undefined) throw badFrame(stream, 'the peer ended within a message');
      return decodeBody(stream, body);
    },
    async end() {
      await stream.close({ signal: limits.signal });
    },
  };
}

interface Inbox {
  /** Exactly this many bytes, or undefined when the peer ended before the first of them. */
  take(length: number): Promise<Buffer | undefined>;
}

/** Collects what arrives; at most one reader waits at a time. */
function openInbox(stream: Stream, maxBytes: number): Inbox {
  let chunks: Uint8Array[] = [];
  let bufferedBytes = 0;
  let ended = false;
  let failure: Error | undefined;
  let wake: (() => void) | undefined;
  const notify = () => {
    wake?.();
    wake = undefined;
  };

  stream.addEventListener('message', (event) => {
    const bytes = event.data.subarray();
    chunks.push(bytes);
    bufferedBytes += bytes.length;
    if (bufferedBytes > maxBytes + LENGTH_BYTES && stream.readStatus === 'readable') stream.pause();
    notify();
  });
  stream.addEventListener('end', () => {
    ended = true;
    notify();
  });
  stream.addEventListener('close', (event) => {
    ended = true;
    failure ??= event.error;
    notify();
  });
  if (stream.readableEnded || stream.status !== 'open') ended = true;

  return {
    async take(length) {
      for (;;) {
        if (bufferedBytes >= length) break;
        if (failure !== undefined)
          throw new DezentError('UNREACHABLE', `the stream broke: ${failure.message}`, { cause: failure });
        if (ended && bufferedBytes === 0) return undefined;
        if (ended) throw badFrame(stream, 'the peer ended within a message');
        if (stream.readStatus === 'paused') {
          stream.resume();
          continue;
        }
        const { promise, resolve } = Promise.withResolvers<void>();
        wake = resolve;
        await promise;
      }
      const all = chunks.length === 1 && chunks[0] !== undefined ? Buffer.from(chunks[0]) : Buffer.concat(chunks);
      chunks = all.length > length ? [all.subarray(length)] : [];
      bufferedBytes -= length;
      return all.subarray(0, length);
    },
  };
}

function decodeBody(stream: Stream, body: Uint8Array): unknown {
  try {
    return decode(body);
  } catch (error) {
    throw badFrame(stream, 'a message is no DAG-CBOR', error);
  }
}

/** The error, after the stream was aborted: a peer that breaks the protocol gets nothing more on it. */
function badFrame(stream: Stream, message: string, cause?: unknown): DezentError {
  const error = new DezentError('BAD_FRAME', message, { cause });
  stream.abort(error);
  return error;
}

function reasonOf(signal: AbortSignal): Error {
  const reason: unknown = signal.reason;
  return reason instanceof Error ? reason : new DezentError('CANCELLED', 'cancelled');
}
