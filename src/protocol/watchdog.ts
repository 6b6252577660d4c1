// A deadline that is moved often and met rarely: arming it again costs one clock reading, no timer.

export interface Watchdog {
  /** Starts the deadline, or moves it when it runs already. */
  arm(): void;
  disarm(): void;
}

/** Calls `onExpired` once `ms` have passed since the last `arm()` without a `disarm()`. Keeps no process alive. */
export function createWatchdog(ms: number, onExpired: () => void): Watchdog {
  let dueAt: number | undefined;
  let timer: NodeJS.Timeout | undefined;
  const check = () => {
    timer = undefined;
    if (dueAt === undefined) return;
    const leftMs = dueAt - performance.now();
    if (leftMs > 0) {
      timer = setTimeout(check, Math.ceil(leftMs)).unref();
      return;
    }
    dueAt = undefined;
    onExpired();
  };
  return {
    arm() {
      dueAt = performance.now() + ms;
      timer ??= setTimeout(check, ms).unref();
    },
    disarm() {
      dueAt = undefined;
    },
  };
}
