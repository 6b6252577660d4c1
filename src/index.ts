// What other programs may use: make a home, run a node in this process, or talk to one that runs. Everything else may change.
export { openControlClient, type CallOptions, type ControlClient } from './cli/control-client.ts';
export { DezentError, ERROR_CODES, isDezentError, type ErrorCode } from './errors.ts';
export type * from './node/control/control-api.ts';
export { initHome } from './node/init.ts';
export { silentLog, type Log } from './node/home/log.ts';
export { startNode, type RunningNode } from './node/start-node.ts';
