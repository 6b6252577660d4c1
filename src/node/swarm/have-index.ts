// What other members say they have: block → peers, on disk, asked synchronously. Hints: a peer may have lost what it announced.
// A peer's whole list replaces its old one at once, because each whole list gets a fresh number; entries under old numbers are ignored and swept out.
import pLimit from 'p-limit';
import { DezentError } from '../../errors.ts';
import type { HaveBatch } from '../../protocol/exchange.ts';
import type { BlockId } from '../../store/block.ts';
import { readSound } from '../home/sound-table.ts';
import { openTable, type StateDb } from '../home/state.ts';

/** 8 TiB of blocks of 1 MiB from one peer; more is refused, so that a peer cannot fill the disk. */
const MAX_IDS_PER_PEER: number = 8 * 1024 * 1024;
const SWEEP_BATCH = 1_000;
const NUMBER_BYTES = 4;

interface Numbered {
  /** Of the peer's last whole list. */
  number: number;
  /** Ids taken in since; those named twice count twice. */
  ids: number;
}

export interface HaveIndex {
  /** Takes a peer's news in. Throws PEER_REFUSED when the peer announces more than is kept. */
  heard(peerId: string, batch: HaveBatch): Promise<void>;
  /** Peers that said they have it. */
  locate(id: BlockId): string[];
  /** Removes what is void by now. Stops early when the signal fires. */
  sweep(signal: AbortSignal): Promise<void>;
}

export async function openHaveIndex(db: StateDb): Promise<HaveIndex> {
  const peers = openTable<Numbered>(db, 'have-peers');
  const index = db.sublevel<string, Uint8Array>('have-index', { valueEncoding: 'view' });
  const numbered = await readSound(peers);
  const peerOf = new Map([...numbered].map(([peerId, { number }]) => [number, peerId]));
  await index.open();
  /** Reading and writing an entry must not interleave with another change of it. */
  const inTurn = pLimit(1);

  const note = async (peerId: string, entry: Numbered): Promise<void> => {
    const old = numbered.get(peerId);
    if (old !== undefined) peerOf.delete(old.number);
    numbered.set(peerId, entry);
    peerOf.set(entry.number, peerId);
    await peers.put(peerId, entry);
  };
  const change = async (ids: readonly BlockId[], edit: (numbers: Set<number>) => void): Promise<void> => {
    const values = await index.getMany([...ids]);
    const writes = ids.map((key, at) => {
      const numbers = new Set(numbersIn(values[at]).filter((number) => peerOf.has(number)));
      edit(numbers);
      return numbers.size === 0
        ? { type: 'del' as const, key }
        : { type: 'put' as const, key, value: bytesOf(numbers) };
    });
    await index.batch(writes);
  };
  const take = async (peerId: string, { full, added, removed }: HaveBatch): Promise<void> => {
    const known = full ? undefined : numbered.get(peerId);
    const next = Math.max(0, ...peerOf.keys()) + 1;
    const entry = { number: known?.number ?? next, ids: (known?.ids ?? 0) + added.length };
    if (entry.ids > MAX_IDS_PER_PEER)
      throw new DezentError('PEER_REFUSED', `${peerId} announces more than ${MAX_IDS_PER_PEER} blocks`);
    await note(peerId, entry);
    await change(added, (numbers) => void numbers.add(entry.number));
    await change(removed, (numbers) => void numbers.delete(entry.number));
  };

  return {
    heard: (peerId, batch) => inTurn(() => take(peerId, batch)),
    locate: (id) => numbersIn(index.getSync(id)).flatMap((number) => peerOf.get(number) ?? []),
    async sweep(signal) {
      let stale: BlockId[] = [];
      const flush = async (): Promise<void> => {
        const ids = stale;
        stale = [];
        await inTurn(() => change(ids, () => undefined));
      };
      for await (const [id, value] of index.iterator()) {
        if (signal.aborted) return;
        if (numbersIn(value).every((number) => peerOf.has(number))) continue;
        stale.push(id as BlockId);
        if (stale.length >= SWEEP_BATCH) await flush();
      }
      await flush();
    },
  };
}

/** Numbers as u32le, one after the other. */
function bytesOf(numbers: ReadonlySet<number>): Uint8Array {
  const bytes = Buffer.allocUnsafe(numbers.size * NUMBER_BYTES);
  let at = 0;
  for (const number of numbers) at = bytes.writeUInt32LE(number, at);
  return bytes;
}

function numbersIn(value: Uint8Array | undefined): number[] {
  if (value === undefined) return [];
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.length);
  return Array.from({ length: Math.floor(bytes.length / NUMBER_BYTES) }, (_, at) =>
    bytes.readUInt32LE(at * NUMBER_BYTES),
  );
}
