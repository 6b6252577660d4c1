// What happens in the node, for whoever listens: each listener has a bounded queue of its own, so a slow one loses the oldest events and
// never holds the node up.
import type { NodeEvent } from './control-api.ts';

const QUEUE_EVENTS = 1000;

export interface NodeEvents {
  emit(event: NodeEvent): void;
  listen(signal: AbortSignal): AsyncIterable<NodeEvent>;
}

export function openNodeEvents(): NodeEvents {
  const queues = new Set<{ push(event: NodeEvent): void }>();

  async function* listen(signal: AbortSignal): AsyncGenerator<NodeEvent> {
    const waiting: NodeEvent[] = [];
    let wake = (): void => undefined;
    const queue = {
      push(event: NodeEvent): void {
        waiting.push(event);
        if (waiting.length > QUEUE_EVENTS) waiting.shift();
        wake();
      },
    };
    const onAbort = (): void => wake();
    queues.add(queue);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      while (!signal.aborted) {
        const event = waiting.shift();
        if (event !== undefined) yield event;
        else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      queues.delete(queue);
      signal.removeEventListener('abort', onAbort);
    }
  }

  return {
    emit(event) {
      for (const queue of queues) queue.push(event);
    },
    listen,
  };
}
