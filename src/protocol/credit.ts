// Byte credit: how much bulk one side may send before the other has taken it. libp2p streams have no backpressure on reading,
// so this, not the stream, bounds what a slow reader has to hold.
import { DezentError } from '../errors.ts';

/** Per direction: at least two of the largest blocks, so that one can travel while one is taken. */
export const CREDIT_WINDOW_BYTES: number = 8 * 1024 * 1024;

/** Credit goes back in steps of this size: few frames, and a whole block still fits into what is left. */
const CREDIT_STEP_BYTES = 1024 * 1024;

/** What the smallest frame costs: a peer cannot make this node hold millions of tiny ones. */
const MIN_COST_BYTES = 512;

/** What a body of this length costs. */
export function costOf(bodyBytes: number): number {
  return Math.max(bodyBytes, MIN_COST_BYTES);
}

export interface SendCredit {
  /** Undefined when taken at once; else resolves, in order, when it is this one's turn, or when dropped. */
  take(owner: object, cost: number): Promise<void> | undefined;
  /** The peer has taken this much. Throws BAD_FRAME when it gives more than it got. */
  grant(cost: number): void;
  /** Ends the waiting of one owner, or of all. */
  drop(owner?: object): void;
  waiting(): boolean;
}

export function createSendCredit(): SendCredit {
  let left = CREDIT_WINDOW_BYTES;
  let queue: { owner: object; cost: number; resolve: () => void }[] = [];
  const serve = () => {
    let served = 0;
    for (const { cost, resolve } of queue) {
      if (cost > left) break;
      left -= cost;
      served++;
      resolve();
    }
    if (served > 0) queue = queue.slice(served);
  };
  return {
    take(owner, cost) {
      if (queue.length === 0 && cost <= left) {
        left -= cost;
        return undefined;
      }
      const { promise, resolve } = Promise.withResolvers<void>();
      queue.push({ owner, cost, resolve });
      return promise;
    },
    grant(cost) {
      left += cost;
      if (left > CREDIT_WINDOW_BYTES)
        throw new DezentError('BAD_FRAME', 'the peer returns more credit than it was charged');
      serve();
    },
    drop(owner) {
      const dropped = queue.filter((entry) => owner === undefined || entry.owner === owner);
      queue = queue.filter((entry) => !dropped.includes(entry));
      for (const { resolve } of dropped) resolve();
      serve();
    },
    waiting: () => queue.length > 0,
  };
}

export interface ReceiveCredit {
  /** A bulk frame has arrived. Throws BAD_FRAME when it overruns what was granted. */
  charge(cost: number): void;
  /** Somebody has taken it: gives the credit back, now or with a later frame. */
  giveBack(cost: number): void;
}

/** `sendGrant` tells the peer. */
export function createReceiveCredit(sendGrant: (cost: number) => void): ReceiveCredit {
  let outstanding = 0;
  let owed = 0;
  return {
    charge(cost) {
      outstanding += cost;
      if (outstanding > CREDIT_WINDOW_BYTES) throw new DezentError('BAD_FRAME', 'the peer sends more than its credit');
    },
    giveBack(cost) {
      owed += cost;
      if (owed < CREDIT_STEP_BYTES) return;
      outstanding -= owed;
      sendGrant(owed);
      owed = 0;
    },
  };
}
