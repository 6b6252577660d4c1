// Reading tables whose loss is no harm (addresses, cursors, what was announced): values that fail their check are left out, not a reason to stop.
import { isDezentError } from '../../errors.ts';
import type { Table } from './state.ts';

/** All sound values by key. */
export async function readSound<T>(table: Table<T>): Promise<Map<string, T>> {
  const values = new Map<string, T>();
  for await (const key of table.keys()) {
    const value = soundValue(table, key);
    if (value !== undefined) values.set(key, value);
  }
  return values;
}

/** Undefined when it is absent or damaged. The table must be open. */
export function soundValue<T>(table: Table<T>, key: string): T | undefined {
  try {
    return table.getSync(key);
  } catch (error) {
    const cause: unknown = error instanceof Error ? error.cause : undefined;
    if (isDezentError(error, 'BAD_RECORD') || isDezentError(cause, 'BAD_RECORD')) return undefined;
    throw error;
  }
}
