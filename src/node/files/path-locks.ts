// One task at a time per path: every step that touches a user's file runs under the lock of its path (relative to FOLDER).

export interface PathLocks {
  /** Runs `work` when all earlier work on this path has ended; gives its result. */
  run<T>(path: string, work: () => Promise<T>): Promise<T>;
  busy(path: string): boolean;
}

export function openPathLocks(): PathLocks {
  const tails = new Map<string, Promise<unknown>>();
  return {
    async run(path, work) {
      const before = tails.get(path) ?? Promise.resolve();
      const turn = before.then(work);
      const tail = turn.catch(() => undefined); // the caller of `turn` gets the error; the next in line only waits
      tails.set(path, tail);
      try {
        return await turn;
      } finally {
        if (tails.get(path) === tail) tails.delete(path);
      }
    },
    busy: (path) => tails.has(path),
  };
}
