// The second stage of open-files.ts: the part that brings everything to its copies, and what it needs to reach peers.
import { openChooseHolders } from './copies/choose-holders.ts';
import { openEarlyPush } from './copies/early-push.ts';
import { openHandOver } from './copies/hand-over.ts';
import { openReplicate, type Replicate } from './copies/replicate.ts';
import type { TreeItem } from './files/tree.ts';
import type { FilesNeeds, Stored } from './open-stored.ts';

/** The part that brings everything to its copies. */
export function openCopying(
  { network, config, log, transfers, parts }: FilesNeeds,
  stored: Stored,
  sealAgain: (item: TreeItem) => Promise<void>,
): { replicate: Replicate; possibleCopies(): number } {
  const { store, group, receipts, swarm, links, names } = network;
  const { tree, copies, holdersOf, minCopies } = stored;
  /** Receipts of the running round: at its end each holder hears of the others, so that one can repair while this device is away. */
  let pushed: { peerId: string; nonce: Uint8Array }[] = [];
  function roundEnded(): void {
    const round = pushed;
    pushed = [];
    for (const { peerId, nonce } of round) {
      const holders = [...new Set(round.map((one) => one.peerId))].filter((other) => other !== peerId);
      links
        .fs(peerId)
        .finish({ nonce, holders })
        .catch((error: unknown) => log.debug({ error, peer: peerId }, 'a holder was not told of the others'));
    }
  }
  const handOver = openHandOver({
    store,
    links,
    receipts,
    transfers,
    log: stored.log,
    pushHead: (peerId, head, options) => swarm.pushHead(peerId, head, options),
    read: stored.fetch,
    describe: names.describe,
    onPushed: ({ peerId, nonce }) => void pushed.push({ peerId, nonce }),
  });
  const possibleCopies = (): number => receipts.countDistinct(group.members().map(({ peerId }) => peerId));
  const choose = openChooseHolders({
    connected: () => swarm.connected(),
    target: () => config.get('copies.target'),
    countDistinct: receipts.countDistinct,
    holdersOf,
  });
  const replicate = parts.use(
    openReplicate({
      tree,
      copies,
      holdersOf,
      possibleCopies,
      roundEnded,
      settings: { min: minCopies, target: () => config.get('copies.target') },
      choose,
      logIds: stored.log.ids,
      push: handOver,
      obtainable: stored.obtainable,
      sealAgain,
      onError: (error) => log.error({ error }, 'a round of replication failed'),
    }),
  );
  const early = parts.use(
    openEarlyPush({
      choose,
      push: handOver,
      onFailed: (peerId, why) => log.debug({ peer: peerId, why }, 'an early push did not succeed'),
    }),
  );
  stored.onKept(early.kept);
  return { replicate, possibleCopies };
}
