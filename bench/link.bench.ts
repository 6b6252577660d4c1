// How fast blocks go to a peer: MiB/s of pushBlocks beside a bare libp2p stream that sends the same bytes, in the same run and with the
// receiver in a thread of its own. Both memory stores, loopback, tcp + Noise + Yamux. Prints one JSON line each; `rounds` medians.
import { randomBytes } from 'node:crypto';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { noise } from '@chainsafe/libp2p-noise';
import type { Libp2p, Stream } from '@libp2p/interface';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { openChannel, type Channel } from '../src/protocol/channel.ts';
import { FS_FRAMES, openFsServer, pushBlocks } from '../src/protocol/fs-session.ts';
import type { FsKeeper } from '../src/protocol/fs-session.ts';
import { digestOfIds, newReceiptNonce, signReceipt } from '../src/protocol/receipt.ts';
import { idText, signingKeyFromSeed, peerIdOf } from '../src/protocol/signature.ts';
import { blockIdOf } from '../src/store/block.ts';
import type { BlockId } from '../src/store/block.ts';
import { openMemoryStore } from '../src/store/memory-store.ts';

const BLOCKS = 256;
const BLOCK_BYTES = 1024 * 1024;
const ROUNDS = 5;
const BARE_SEND_BYTES = 256 * 1024;
const GROUP = new Uint8Array(32).fill(7);
const holderKey = signingKeyFromSeed(new Uint8Array(32).fill(1));
const HOLDER = peerIdOf(holderKey.publicKey);

function startNode(listen: string[]): Promise<Libp2p> {
  return createLibp2p({
    addresses: { listen },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux({ streamOptions: { maxStreamWindowSize: 2 * 1024 * 1024 } })],
  });
}

/** Keeps in memory, forgets at each session so that every round sends all. */
function memoryKeeper(): FsKeeper {
  return {
    async begin({ owner, device, blocks }) {
      const store = openMemoryStore();
      return {
        missing: new Set(blocks.map(({ id }) => id)),
        keep: (batch) => store.putMany(batch),
        async sign() {
          const ids = digestOfIds(blocks.map(({ id }) => id));
          const bytes = blocks.reduce((sum, { length }) => sum + length, 0);
          const receipt = { owner, device, holder: HOLDER, nonce: newReceiptNonce(), ids, count: blocks.length, bytes };
          return signReceipt(GROUP, { ...receipt, issuedAt: Date.now() }, holderKey);
        },
        end() {},
      };
    },
    async finish() {},
  };
}

async function receive(): Promise<void> {
  const node = await startNode(['/ip4/127.0.0.1/tcp/0']);
  const server = openFsServer(memoryKeeper());
  await node.handle('/bench/fs', (stream, connection) => void server.serve(stream, connection.remotePeer.toString()));
  await node.handle('/bench/bare', (stream) => {
    let left = BLOCKS * BLOCK_BYTES;
    stream.addEventListener('message', (event) => {
      left -= event.data.byteLength;
      if (left > 0) return;
      left += BLOCKS * BLOCK_BYTES;
      stream.send(new Uint8Array(1));
    });
  });
  parentPort?.postMessage(node.getMultiaddrs().map(String), []);
}

async function sendBare(stream: Stream, blocks: readonly Uint8Array[]): Promise<void> {
  const answered = new Promise<void>((resolve) => stream.addEventListener('message', () => resolve(), { once: true }));
  for (const block of blocks) {
    for (let at = 0; at < block.length; at += BARE_SEND_BYTES) {
      if (!stream.send(block.subarray(at, at + BARE_SEND_BYTES))) await stream.onDrain();
    }
  }
  await answered;
}

async function sendBlocks(channel: Channel, blocks: ReadonlyMap<BlockId, Uint8Array>): Promise<void> {
  const result = await pushBlocks(channel, {
    group: GROUP,
    owner: idText(GROUP),
    device: HOLDER,
    holder: HOLDER,
    blocks: [...blocks].map(([id, bytes]) => ({ id, length: bytes.length })),
    read: async (id) => blocks.get(id) ?? new Uint8Array(),
  });
  if ('refused' in result) throw new Error(result.refused);
}

async function timed(work: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await work();
  return (BLOCKS * BLOCK_BYTES) / (1024 * 1024) / ((performance.now() - start) / 1000);
}

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;

async function main(): Promise<void> {
  const worker = new Worker(new URL(import.meta.url));
  const [addr] = await new Promise<string[]>((resolve) => worker.once('message', resolve));
  const node = await startNode([]);
  const connection = await node.dial(multiaddr(addr));
  const bytes = Array.from({ length: BLOCKS }, () => new Uint8Array(randomBytes(BLOCK_BYTES)));
  const blocks = new Map(bytes.map((block) => [blockIdOf(block), block]));
  const figures = { bare: [] as number[], push: [] as number[] };
  const bareStream = await connection.newStream('/bench/bare');
  const channel = openChannel(await connection.newStream('/bench/fs'), { frames: FS_FRAMES });
  for (let round = 0; round < ROUNDS; round++) {
    figures.bare.push(await timed(() => sendBare(bareStream, bytes)));
    figures.push.push(await timed(() => sendBlocks(channel, blocks)));
  }
  const bare = median(figures.bare);
  const push = median(figures.push);
  console.log(
    JSON.stringify({
      bench: 'link',
      what: 'bare stream',
      mibPerS: Math.round(bare),
      rounds: figures.bare.map(Math.round),
    }),
  );
  console.log(
    JSON.stringify({
      bench: 'link',
      what: 'pushBlocks',
      mibPerS: Math.round(push),
      rounds: figures.push.map(Math.round),
      ofBare: Math.round((push / bare) * 100) / 100,
    }),
  );
  await node.stop();
  await worker.terminate();
}

await (isMainThread ? main() : receive());
