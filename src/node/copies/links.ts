// Links: one long-lived channel for each peer and protocol, shared by all who talk to that peer, opened when first used and anew after a
// failure. Also serves the same protocols to others: per peer and protocol one channel, a new one replaces the old.
import { DezentError } from '../../errors.ts';
import type { Stream } from '@libp2p/interface';
import { AUDIT_FRAMES, proveBlocks, serveAudit } from '../../protocol/audit.ts';
import type { Audit, Verdict } from '../../protocol/audit.ts';
import { openChannel } from '../../protocol/channel.ts';
import type { Channel, FrameTable } from '../../protocol/channel.ts';
import { EXCHANGE_FRAMES, openExchange, serveExchange } from '../../protocol/exchange.ts';
import type { Exchange, HaveBatch } from '../../protocol/exchange.ts';
import { FS_FRAMES, openFsServer, pushBlocks, sendFinish } from '../../protocol/fs-session.ts';
import type { FsKeeper, Push, PushResult } from '../../protocol/fs-session.ts';
import { RELEASE_FRAMES, sendRelease, serveRelease } from '../../protocol/release.ts';
import type { Envelope } from '../../protocol/signature.ts';
import type { BlockId } from '../../store/block.ts';
import type { Log } from '../home/log.ts';

/** A peer that cannot be dialled within this time is passed over. */
const OPEN_MS = 15_000;

export type LinkProtocol = 'exchange' | 'fs' | 'release' | 'audit';

const FRAMES: Record<LinkProtocol, FrameTable> = {
  exchange: EXCHANGE_FRAMES,
  fs: FS_FRAMES,
  release: RELEASE_FRAMES,
  audit: AUDIT_FRAMES,
};

export interface LinksNeeds {
  swarm: {
    stream(peerId: string, protocol: LinkProtocol, options: { signal: AbortSignal }): Promise<Stream>;
    handle(protocol: LinkProtocol, serve: (stream: Stream, peerId: string) => void): void;
    onDisconnected(listener: (peerId: string) => void): () => void;
  };
  group: { readonly groupIdBytes: Uint8Array; readonly deviceId: string; readonly ownerId: string };
  /** What others get from here: pushes, releases, blocks and proofs. */
  keeper: FsKeeper & {
    get(id: BlockId): Promise<Uint8Array | undefined>;
    release(envelope: Envelope): Promise<number>;
  };
  /** A peer tells what it has. */
  onHave(peerId: string, batch: HaveBatch): Promise<void>;
  log: Log;
}

/** A push without what the link knows itself. */
export type LinkPush = Omit<Push, 'group' | 'owner' | 'device' | 'holder'>;

export interface Links extends AsyncDisposable {
  exchange(peerId: string): Exchange;
  fs(peerId: string): {
    /** See pushBlocks in protocol/fs-session.ts. */
    push(push: LinkPush): Promise<PushResult>;
    finish(finish: { nonce: Uint8Array; holders: string[] }): Promise<void>;
  };
  audit(peerId: string): { prove(audit: Audit): Promise<Map<BlockId, Verdict>> };
  release(peerId: string): { release(envelope: Envelope): Promise<number> };
}

export function openLinks({ swarm, group, keeper, onHave, log }: LinksNeeds): Links {
  /** By `protocol peerId`. */
  const calling = new Map<string, Promise<Channel>>();
  const serving = new Map<string, Channel>();
  const exchanges = new Map<string, Exchange>();
  const closing = new AbortController();

  const openNew = async (key: string, peerId: string, protocol: LinkProtocol): Promise<Channel> => {
    const signal = AbortSignal.any([closing.signal, AbortSignal.timeout(OPEN_MS)]);
    const channel = openChannel(await swarm.stream(peerId, protocol, { signal }), { frames: FRAMES[protocol] });
    void channel.closed.then((error) => {
      calling.delete(key);
      if (error !== undefined) log.debug({ peer: peerId, protocol, error }, 'a link has ended');
    });
    return channel;
  };
  /** The channel in use, or a new one. */
  const channelTo = (peerId: string, protocol: LinkProtocol): Promise<Channel> => {
    if (closing.signal.aborted) return Promise.reject(new DezentError('CANCELLED', 'the node is stopping'));
    const key = `${protocol} ${peerId}`;
    const open = calling.get(key);
    if (open !== undefined) return open;
    const opening = openNew(key, peerId, protocol);
    calling.set(key, opening);
    opening.catch(() => calling.delete(key));
    return opening;
  };

  const serve = (protocol: LinkProtocol, start: (stream: Stream, peerId: string) => Channel) => {
    swarm.handle(protocol, (stream, peerId) => {
      const key = `${protocol} ${peerId}`;
      serving.get(key)?.abort(new DezentError('UNREACHABLE', 'a newer stream of the peer takes its place'));
      const channel = start(stream, peerId);
      serving.set(key, channel);
      void channel.closed.then((error) => {
        if (serving.get(key) === channel) serving.delete(key);
        if (error?.code === 'BAD_FRAME') log.warn({ peer: peerId, protocol, error }, 'a peer broke the protocol');
      });
    });
  };
  const onFault = (protocol: LinkProtocol, peer?: string) => (error: DezentError) =>
    log.warn({ protocol, ...(peer !== undefined && { peer }), error }, 'a request of a peer could not be answered');

  const fsServer = openFsServer(keeper, { onFault: onFault('fs') });
  serve('exchange', (stream, peerId) =>
    serveExchange(stream, peerId, { get: (id) => keeper.get(id), onHave, onFault: onFault('exchange', peerId) }),
  );
  serve('fs', (stream, peerId) => fsServer.serve(stream, peerId));
  serve('release', (stream, peerId) =>
    serveRelease(stream, { release: (envelope) => keeper.release(envelope), onFault: onFault('release', peerId) }),
  );
  serve('audit', (stream, peerId) =>
    serveAudit(stream, { get: (id) => keeper.get(id), onFault: onFault('audit', peerId) }),
  );

  const stopListening = swarm.onDisconnected((peerId) => {
    const gone = new DezentError('UNREACHABLE', `${peerId} has disconnected`);
    for (const protocol of Object.keys(FRAMES)) serving.get(`${protocol} ${peerId}`)?.abort(gone);
    for (const protocol of Object.keys(FRAMES)) {
      // A channel that is still being opened fails by itself.
      void calling.get(`${protocol} ${peerId}`)?.then(
        (channel) => channel.abort(gone),
        () => undefined,
      );
    }
  });

  return {
    exchange(peerId) {
      const exchange = exchanges.get(peerId) ?? openExchange(() => channelTo(peerId, 'exchange'));
      exchanges.set(peerId, exchange);
      return exchange;
    },
    fs: (peerId) => ({
      async push(push) {
        const { groupIdBytes, ownerId, deviceId } = group;
        const channel = await channelTo(peerId, 'fs');
        return pushBlocks(channel, { ...push, group: groupIdBytes, owner: ownerId, device: deviceId, holder: peerId });
      },
      finish: async (finish) => sendFinish(await channelTo(peerId, 'fs'), finish),
    }),
    audit: (peerId) => ({ prove: async (audit) => proveBlocks(await channelTo(peerId, 'audit'), audit) }),
    release: (peerId) => ({ release: async (envelope) => sendRelease(await channelTo(peerId, 'release'), envelope) }),
    async [Symbol.asyncDispose]() {
      stopListening();
      closing.abort(new DezentError('CANCELLED', 'the node is stopping'));
      const channels = await Promise.allSettled(calling.values());
      const open = channels.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
      await Promise.all([...open, ...serving.values()].map((channel) => channel.close()));
    },
  };
}
