// Two libp2p nodes on loopback, in this process, and as many streams between them as a test asks for: both ends of each.
import { noise } from '@chainsafe/libp2p-noise';
import type { Connection, Stream } from '@libp2p/interface';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { createLibp2p, type Libp2p } from 'libp2p';

export interface StreamPair {
  /** The end that opened the stream. */
  caller: Stream;
  server: Stream;
}

export interface Pairs extends AsyncDisposable {
  open(): Promise<StreamPair>;
  /** Breaks the connection under all streams; `open` makes a new one. */
  breakConnection(): Promise<void>;
}

const PROTOCOL = '/test/pair/1.0.0';

function startNode(listen: string[]): Promise<Libp2p> {
  return createLibp2p({
    addresses: { listen },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux({ streamOptions: { maxStreamWindowSize: 2 * 1024 * 1024 } })],
    connectionMonitor: { enabled: false },
  });
}

export async function openPairs(): Promise<Pairs> {
  const [listener, dialler] = await Promise.all([startNode(['/ip4/127.0.0.1/tcp/0']), startNode([])]);
  const arrivals: ((stream: Stream) => void)[] = [];
  await listener.handle(PROTOCOL, (stream) => arrivals.shift()?.(stream), { maxInboundStreams: 100 });
  const connect = (): Promise<Connection> => dialler.dial(listener.getMultiaddrs());
  let connection = await connect();

  return {
    async open() {
      if (connection.status !== 'open') connection = await connect();
      const arrival = new Promise<Stream>((resolve) => arrivals.push(resolve));
      const caller = await connection.newStream(PROTOCOL, { maxOutboundStreams: 100 });
      return { caller, server: await arrival };
    },
    async breakConnection() {
      connection.abort(new Error('the test pulls the plug'));
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([dialler.stop(), listener.stop()]);
    },
  };
}
