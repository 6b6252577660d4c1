// Early push: blocks go to holders while the rest of their file is still being split, so that a large file is protected when it is stored and
// not twice as late. Only ids wait here; the rounds of replicate.ts find the receipts and send what is left.
import type { BlockId } from '../../store/block.ts';
import type { ChooseHolders } from './choose-holders.ts';

/** Enough for a session to be worth its receipt, little enough to overlap with splitting from the first second. */
const EARLY_BYTES: number = 32 * 1024 * 1024;

export interface EarlyPushNeeds {
  choose: ChooseHolders;
  push(
    peerId: string,
    ids: readonly BlockId[],
    what: { name: string; signal: AbortSignal },
  ): Promise<string | undefined>;
  /** A push that failed is made again by replicate, which also explains it. */
  onFailed(peerId: string, why: string): void;
}

export interface EarlyPush extends AsyncDisposable {
  /** These own blocks are durable here now. */
  kept(blocks: readonly { id: BlockId; length: number }[]): void;
}

export function openEarlyPush({ choose, push, onFailed }: EarlyPushNeeds): EarlyPush {
  const stopping = new AbortController();
  const running = new Set<Promise<void>>();
  let waiting: BlockId[] = [];
  let bytes = 0;

  async function send(peerId: string, ids: readonly BlockId[]): Promise<void> {
    const failure = await push(peerId, ids, { name: `${ids.length} new blocks`, signal: stopping.signal });
    if (failure === undefined) return;
    choose.failed(peerId);
    onFailed(peerId, failure);
  }

  return {
    kept(blocks) {
      for (const block of blocks) {
        waiting.push(block.id);
        bytes += block.length;
      }
      if (bytes < EARLY_BYTES) return;
      const ids = waiting;
      waiting = [];
      bytes = 0;
      // One key for all: what belongs to one file stays together as long as the group does.
      for (const peerId of choose.choose('', ids, [])) {
        const one = send(peerId, ids).finally(() => running.delete(one));
        running.add(one);
      }
    },
    async [Symbol.asyncDispose]() {
      stopping.abort();
      await Promise.allSettled(running);
    },
  };
}
