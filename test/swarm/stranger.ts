// An unlisted libp2p node with every service that a member has, which does not wait to be let in.
import { identify } from '@libp2p/identify';
import type { Libp2p, Stream } from '@libp2p/interface';
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht';
import { ping } from '@libp2p/ping';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { noise } from '@chainsafe/libp2p-noise';
import { createLibp2p } from 'libp2p';

export async function newStranger(groupId: string): Promise<Libp2p> {
  return createLibp2p({
    addresses: { listen: [] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionMonitor: { enabled: false },
    services: {
      identify: identify({ runOnConnectionOpen: false }),
      ping: ping(),
      dht: kadDHT({
        protocol: `/dezent/${groupId}/kad/1.0.0`,
        clientMode: true,
        peerInfoMapper: passthroughMapper,
        allowQueryWithZeroPeers: true,
      }),
    },
  });
}

/** Sends these bytes and counts what comes back until the stream ends; also tells how it ended. */
export async function answerTo(stream: Stream, bytes: Uint8Array): Promise<{ receivedBytes: number; reset: boolean }> {
  let receivedBytes = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  stream.addEventListener('message', ({ data }) => (receivedBytes += data.byteLength));
  stream.addEventListener('close', () => resolve());
  if (stream.status === 'open') stream.send(bytes);
  else resolve();
  await promise;
  return { receivedBytes, reset: stream.status === 'reset' };
}
