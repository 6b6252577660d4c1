// Placeholder of the agreed signature until the real one lands.
import { DezentError } from '../errors.ts';
import type { NodeApi } from './control-api.ts';
import type { Log } from './log.ts';

export interface RunningNode {
  readonly api: NodeApi;
  readonly port: number;
  readonly deviceId: string;
  stop(): Promise<void>;
}

export async function startNode(home: string, _needs: { log: Log }): Promise<RunningNode> {
  throw new DezentError('INTERNAL', `the node of ${home} is not built yet`);
}
