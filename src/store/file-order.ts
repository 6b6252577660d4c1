// Puts the windows of one file, which threads finish in any order, together in theirs. Whoever brings a window waits until it is its turn,
// so no more windows lie here than threads may be ahead.
import type { PutOptions } from './block-store.ts';
import { openAssembly, type Assembly, type AssemblyNeeds, type KeptChunk, type StoredContent } from './pipeline.ts';
import { splitSizesFor } from './split.ts';

export interface FileOrder {
  /** Resolves when all before it has come and it is taken in; rejects with the signal's reason when that never happens. */
  add(position: number, chunks: readonly KeptChunk[], fileBytes: number): Promise<void>;
  finish(): Promise<StoredContent>;
}

interface Waiting {
  chunks: readonly KeptChunk[];
  done: PromiseWithResolvers<void>;
}

export function openFileOrder(
  needs: AssemblyNeeds,
  earlierAverage: number | undefined,
  options: PutOptions & { signal: AbortSignal },
): FileOrder {
  const { signal } = options;
  const waiting = new Map<number, Waiting>();
  let assembly: Assembly | undefined;
  let next = 0;
  let advancing = false;

  signal.addEventListener('abort', () => {
    for (const { done } of waiting.values()) done.reject(signal.reason);
    waiting.clear();
  });

  function assemblyFor(fileBytes: number): Assembly {
    assembly ??= openAssembly(needs, splitSizesFor(fileBytes, earlierAverage).averageBytes, options);
    return assembly;
  }

  async function takeIn(assembly: Assembly, { chunks, done }: Waiting): Promise<void> {
    try {
      for (const chunk of chunks) {
        await assembly.add(chunk);
        next += chunk.extent.length;
      }
      done.resolve();
    } catch (error) {
      done.reject(error);
    }
  }

  async function advance(assembly: Assembly): Promise<void> {
    advancing = true;
    for (let first = waiting.get(next); first !== undefined; first = waiting.get(next)) {
      waiting.delete(next);
      await takeIn(assembly, first);
    }
    advancing = false;
  }

  return {
    async add(position, chunks, fileBytes) {
      signal.throwIfAborted();
      const window: Waiting = { chunks, done: Promise.withResolvers() };
      waiting.set(position, window);
      if (!advancing) void advance(assemblyFor(fileBytes));
      await window.done.promise;
    },
    finish: () => assemblyFor(next).finish(),
  };
}
