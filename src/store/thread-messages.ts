// What main thread and pipeline threads say to each other, and errors in a form that crosses between them.
import { asDezentError, DezentError, systemCode, type ErrorCode } from '../errors.ts';

export type ToThread =
  /** A job; several may run at once, they take turns. */
  | { what: 'job'; job: number; name: string; input: unknown }
  /** Ends the job at its next turn, with the error CANCELLED. */
  | { what: 'cancel'; job: number }
  /** So many events of the job have been dealt with. */
  | { what: 'credit'; job: number; events: number }
  /** Something that all later jobs need. */
  | { what: 'give'; name: string; value: unknown }
  | { what: 'ping'; ping: number };

export type FromThread =
  | { what: 'event'; job: number; value: unknown }
  | { what: 'done'; job: number; value: unknown }
  | { what: 'failed'; job: number; error: ErrorData }
  /** All that was under way when the ping came has been told. */
  | { what: 'pong'; ping: number };

export interface ErrorData {
  /** Of a DezentError. */
  dezent?: { code: ErrorCode; hint: string };
  /** Of an error of the system. */
  system?: Record<string, unknown>;
  name: string;
  message: string;
}

export function errorToData(error: unknown): ErrorData {
  if (error instanceof DezentError) {
    const { code, hint, message, name } = error;
    return { dezent: { code, hint }, name, message };
  }
  if (systemCode(error) !== undefined && error instanceof Error) {
    const { name, message } = error;
    const { code, syscall, path, errno } = error as NodeJS.ErrnoException;
    return { system: { code, syscall, path, errno }, name, message };
  }
  return errorToData(asDezentError(error));
}

/** The inverse of {@link errorToData}; errors of the system keep their code and syscall. */
export function errorFromData({ dezent, system, message }: ErrorData): Error {
  if (dezent !== undefined) return new DezentError(dezent.code, message, { hint: dezent.hint });
  return Object.assign(new Error(message), system);
}
