// Where the log of a home lies; `logs` reads it without a running node.
import { join } from 'node:path';

export function logPath(home: string): string {
  return join(home, 'log', 'dezent.log');
}

/** The log files of a home, oldest first. */
export function logPaths(home: string): [string, string] {
  return [`${logPath(home)}.1`, logPath(home)];
}
