// JSON lines for one reader that may be slow or gone: what waits is bounded, so nobody who writes is ever held up.
// Progress that was not read yet is replaced by newer progress; events beyond the bound lose their oldest.

/** About a second of events while thousands of small files are added. */
const MAX_WAITING_LINES = 1000;

export interface LineStream {
  readonly stream: ReadableStream<Uint8Array>;
  /** `latest`: replaces an unread line of the same kind. Lines after `end` are ignored. */
  push(line: unknown, options?: { latest?: boolean }): void;
  /** No more lines; what waits is still delivered. */
  end(): void;
}

interface Waiting {
  text: string;
  latest: boolean;
}

/** `onGone` is called once when the reader leaves before the end. */
export function openLineStream(onGone: () => void): LineStream {
  const waiting: Waiting[] = [];
  const encoder = new TextEncoder();
  const state = { ended: false };
  let wake: (() => void) | undefined;

  const stream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        while (waiting.length === 0 && !state.ended) {
          const { promise, resolve } = Promise.withResolvers<void>();
          wake = resolve;
          await promise;
        }
        if (waiting.length === 0) return controller.close();
        const lines = waiting.splice(0).map(({ text }) => `${text}\n`);
        controller.enqueue(encoder.encode(lines.join('')));
      },
      cancel() {
        if (!state.ended) onGone();
        state.ended = true;
        waiting.length = 0;
        wake?.();
      },
    },
    { highWaterMark: 0 },
  );

  return {
    stream,
    push(line, { latest = false } = {}) {
      if (state.ended) return;
      const last = waiting.at(-1);
      if (latest && last?.latest) waiting.pop();
      if (waiting.length >= MAX_WAITING_LINES) waiting.shift();
      waiting.push({ text: JSON.stringify(line), latest });
      wake?.();
    },
    end() {
      state.ended = true;
      wake?.();
    },
  };
}
