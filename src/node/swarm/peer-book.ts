// The peer book: where every member was last met and when, durably; told to others so that two members find each other through a third.
// A peer's own word about itself beats hearsay. All of it is a hint: Noise proves who answers at an address.
import { isMultiaddr, multiaddr } from '@multiformats/multiaddr';
import { MAX_ADDRS_PER_PEER, type PeerAddrs } from '../../protocol/records.ts';
import { openTable, type StateDb } from '../home/state.ts';
import { readSound } from '../home/sound-table.ts';

/** Beyond this, hearsay would only cost dials. */
const MAX_HEARD_ADDRS = 8;

interface Page {
  /** As the peer itself said. */
  announced: string[];
  /** As others said. */
  heard: string[];
  /** Where our last dial succeeded. */
  dialled?: string;
  /** Milliseconds since 1970; 0 = never met. */
  seenAt: number;
}

export interface PeerBook {
  /** Addresses to try, the best first; without `/p2p/…`. */
  addrsOf(peerId: string): string[];
  lastSeenAt(peerId: string): Date | undefined;
  /** Connected now, or just gone; `addr` where our own dial succeeded. */
  met(peerId: string, addr?: string): Promise<void>;
  /** Takes over what `from` says about itself and others; returns the peers that have a new address. Unlisted ones are left out. */
  learn(from: string, peers: readonly PeerAddrs[]): Promise<string[]>;
  /** All pages, for other members. */
  pages(): PeerAddrs[];
  forget(peerId: string): Promise<void>;
}

/** Reads the book; pages of peers that `isListed` denies are neither told nor taken. */
export async function openPeerBook(db: StateDb, isListed: (peerId: string) => boolean): Promise<PeerBook> {
  const table = openTable<Page>(db, 'peers');
  const pages = await readSound(table);

  const pageOf = (peerId: string): Page => pages.get(peerId) ?? { announced: [], heard: [], seenAt: 0 };
  const write = async (peerId: string, page: Page): Promise<void> => {
    pages.set(peerId, page);
    await table.put(peerId, page);
  };
  const learnOne = async (from: string, peer: PeerAddrs): Promise<boolean> => {
    const page = pageOf(peer.peerId);
    const known = new Set([...page.announced, ...page.heard]);
    const addrs = peer.addrs.filter(isDialable).slice(0, MAX_ADDRS_PER_PEER);
    const own = peer.peerId === from;
    if (own && addrs.length === 0) return false;
    const next: Page = own
      ? { ...page, announced: addrs, seenAt: Date.now() }
      : {
          ...page,
          heard: unique([...addrs, ...page.heard]).slice(0, MAX_HEARD_ADDRS),
          seenAt: Math.max(page.seenAt, Math.min(peer.seenAt, Date.now())),
        };
    if (JSON.stringify(next) !== JSON.stringify(page)) await write(peer.peerId, next);
    return addrs.some((addr) => !known.has(addr));
  };

  return {
    addrsOf(peerId) {
      const page = pageOf(peerId);
      const dialled = page.dialled === undefined ? [] : [page.dialled];
      return unique([...dialled, ...page.announced, ...page.heard]).slice(0, MAX_ADDRS_PER_PEER);
    },
    lastSeenAt(peerId) {
      const { seenAt } = pageOf(peerId);
      return seenAt === 0 ? undefined : new Date(seenAt);
    },
    async met(peerId, addr) {
      const dialled = addr === undefined || !isDialable(addr) ? {} : { dialled: addr };
      await write(peerId, { ...pageOf(peerId), ...dialled, seenAt: Date.now() });
    },
    async learn(from, peers) {
      const fresh: string[] = [];
      for (const peer of peers) {
        if (isListed(peer.peerId) && (await learnOne(from, peer))) fresh.push(peer.peerId);
      }
      return fresh;
    },
    pages: () =>
      [...pages.keys()].filter(isListed).map((peerId) => ({
        peerId,
        addrs: unique([...pageOf(peerId).announced, ...pageOf(peerId).heard]).slice(0, MAX_ADDRS_PER_PEER),
        seenAt: pageOf(peerId).seenAt,
      })),
    async forget(peerId) {
      pages.delete(peerId);
      await table.del(peerId);
    },
  };
}

/** Notes addresses before there is a swarm (init): `db` is the sublevel that the swarm gets later. */
export async function rememberPeers(db: StateDb, peers: readonly PeerAddrs[]): Promise<void> {
  const book = await openPeerBook(db, () => true);
  await book.learn('', peers);
}

/** An IP address with a TCP port and nothing else; names would let a peer make us ask DNS for anything. */
export function isDialable(text: string): boolean {
  try {
    const address = multiaddr(text);
    const names = address.getComponents().map(({ name }) => name);
    return (
      isMultiaddr(address) && names.length === 2 && (names[0] === 'ip4' || names[0] === 'ip6') && names[1] === 'tcp'
    );
  } catch (error) {
    if (error instanceof Error) return false;
    throw error;
  }
}

function unique(texts: readonly string[]): string[] {
  return [...new Set(texts)];
}
