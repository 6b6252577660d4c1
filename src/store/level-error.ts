// What `level` says when it fails, in the words of the house. Its own errors carry the real one as their cause.
import { asDezentError, DezentError, systemCode } from '../errors.ts';

/** The error that is the cause of all the others. */
export function innermostCause(error: unknown): unknown {
  return error instanceof Error && error.cause !== undefined ? innermostCause(error.cause) : error;
}

/** BAD_INDEX where the database is damaged, DISK_FULL, or IO: any other error may pass, so nothing is concluded from it. */
export function levelError(error: unknown): DezentError {
  const inner = innermostCause(error);
  const message = inner instanceof Error ? inner.message : String(inner);
  // A file that the database names and that is gone is damage too.
  const damaged = systemCode(inner) === 'LEVEL_CORRUPTION' || /No such file/i.test(message);
  if (damaged) return new DezentError('BAD_INDEX', message, { cause: error });
  if (/No space left|quota exceeded/i.test(message)) return new DezentError('DISK_FULL', message, { cause: error });
  return systemCode(inner)?.startsWith('LEVEL_')
    ? new DezentError('IO', message, { cause: error })
    : asDezentError(inner);
}
