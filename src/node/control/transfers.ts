// What is being sent and fetched right now, for `status`, progress and the log.
import type { Direction, TransferValue } from './control-api.ts';

export interface Transfer {
  moved(bytes: number): void;
  end(failure?: string): void;
}

export interface Transfers {
  start(what: { path: string; direction: Direction; totalBytes: number; peer: string | null }): Transfer;
  list(): TransferValue[];
}

export interface TransferEnd extends TransferValue {
  tookMs: number;
  failure: string | undefined;
}

/** `onChange` hears every change (at most a few a second per transfer), `onEnd` each end: it goes to the log. */
export function openTransfers(hooks: {
  onChange(value: TransferValue): void;
  onEnd(end: TransferEnd): void;
}): Transfers {
  const NOTICE_EVERY_MS = 250;
  const running = new Map<string, TransferValue>();
  let next = 1;
  return {
    start({ path, direction, totalBytes, peer }) {
      const id = `t${next}`;
      next += 1;
      const startedAt = Date.now();
      let noticedAt = startedAt;
      const value: TransferValue = { id, path, direction, doneBytes: 0, totalBytes, rateBytesPerS: 0, peer };
      running.set(id, value);
      hooks.onChange({ ...value });
      return {
        moved(bytes) {
          const now = Date.now();
          value.doneBytes += bytes;
          value.rateBytesPerS = Math.round((value.doneBytes * 1000) / Math.max(1, now - startedAt));
          if (now - noticedAt < NOTICE_EVERY_MS) return;
          noticedAt = now;
          hooks.onChange({ ...value });
        },
        end(failure) {
          if (!running.delete(id)) return;
          hooks.onEnd({ ...value, tookMs: Date.now() - startedAt, failure });
        },
      };
    },
    list: () => [...running.values()].map((value) => ({ ...value })),
  };
}
