// Placeholder of the agreed signature until the real one lands.
import { DezentError } from '../errors.ts';
import type { InitOptions, InitValue } from './control-api.ts';

export async function initHome(options: InitOptions): Promise<InitValue> {
  throw new DezentError('INTERNAL', `init of ${options.folder} is not built yet`);
}
