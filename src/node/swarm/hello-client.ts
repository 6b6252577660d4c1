// hello from a device that is no member yet: a short-lived libp2p node that dials with the device's key, speaks hello and nothing else.
// For `init` and `recover`; what it brings back is as signed by others and must go through the group's own checks.
import type { Libp2p } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import { DezentError } from '../../errors.ts';
import type { GroupRecords } from '../../protocol/group-records.ts';
import {
  HELLO_PROTOCOL,
  HELLO_TIMEOUT_MS,
  NO_RECORDS,
  sayHello,
  type HelloAnswer,
  type HelloRequest,
} from '../../protocol/hello.ts';
import { signClaim, type Claim, type Invite, type VaultInfo } from '../../protocol/invite.ts';
import type { PeerAddrs } from '../../protocol/records.ts';
import { encodeEnvelope, type SigningKey } from '../../protocol/signature.ts';
import { withoutPeer } from './addresses.ts';
import { cutPeer, peerOfAddr } from './bootstrap.ts';
import { createDialer } from './libp2p-node.ts';

/** What a member gave. */
export interface Welcome {
  groupId: Uint8Array;
  records: GroupRecords;
  /** Members' addresses, those that were dialled with success included: for rememberPeers (peer-book.ts). */
  peers: PeerAddrs[];
}

export interface Caller {
  /** 32 bytes: the ed25519 seed of the device key. */
  deviceSeed: Uint8Array;
  signal: AbortSignal;
}

/**
 * Joins by an invite; `records` holds the joiner's own owner record (none for a vault). When it resolves, this device is listed.
 * Throws INVITE with the inviter's reason (unknown, used, expired), UNREACHABLE naming the addresses tried.
 */
export async function joinByInvite(
  invite: Invite,
  records: GroupRecords,
  caller: Caller & { vault?: VaultInfo },
): Promise<Welcome> {
  await using dialer = await openDialer(caller);
  const vault = caller.vault === undefined ? {} : { vault: caller.vault };
  const claim = claimOf(
    { right: 'join', device: dialer.peerId, to: invite.peerId, ...vault },
    invite.groupId,
    invite.guest,
  );
  const target = { peerId: invite.peerId, addrs: invite.addrs.map(cutPeer) };
  const { answer, addr } = await dialer.hello(target, { group: invite.groupId, records, claim });
  if (!answer.admitted) throw new DezentError('INVITE', `the inviter refused: ${answer.reason}`);
  return welcomeOf(answer, invite.peerId, addr);
}

/**
 * Asks members for the group's records with the owner's recovery guest key (owner-keys.ts). All that answer are heard, as one may be behind.
 * `peers` are multiaddrs ending in `/p2p/…`. Throws UNREACHABLE naming them when none answers, NOT_ALLOWED when all refuse.
 */
export async function recoverFrom(peers: readonly string[], guest: SigningKey, caller: Caller): Promise<Welcome> {
  await using dialer = await openDialer(caller);
  return await askEach(peers, 'give this owner’s records', async (target) => {
    // The claim is signed for the group, which a recovering device learns from a first hello.
    const first = await dialer.hello(target, { group: undefined, records: NO_RECORDS, claim: undefined });
    const { group } = first.answer;
    const claim = claimOf({ right: 'recover', device: dialer.peerId, to: target.peerId }, group, guest);
    return dialer.hello(target, { group, records: NO_RECORDS, claim });
  });
}

/**
 * Shows records that list this device to members, so that they know it from now on. Throws UNREACHABLE, NOT_ALLOWED like recoverFrom.
 */
export async function presentRecords(
  peers: readonly string[],
  shown: { groupId: Uint8Array; records: GroupRecords },
  caller: Caller,
): Promise<Welcome> {
  await using dialer = await openDialer(caller);
  const request = { group: shown.groupId, records: shown.records, claim: undefined };
  return await askEach(peers, 'let this device in', (target) => dialer.hello(target, request));
}

interface Target {
  peerId: string;
  /** Without `/p2p/…`. */
  addrs: string[];
}

interface Heard {
  answer: HelloAnswer;
  /** Where the peer answered. */
  addr: string;
}

interface Dialer extends AsyncDisposable {
  readonly peerId: string;
  hello(target: Target, request: HelloRequest): Promise<Heard>;
}

async function openDialer({ deviceSeed, signal }: Caller): Promise<Dialer> {
  const node = await createDialer(deviceSeed);
  return {
    peerId: node.peerId.toString(),
    hello: (target, request) => helloOnce(node, target, request, signal),
    [Symbol.asyncDispose]: async () => node.stop(),
  };
}

/** On a connection of its own: a peer closes it after a refusal. */
async function helloOnce(node: Libp2p, target: Target, request: HelloRequest, outer: AbortSignal): Promise<Heard> {
  const addrs = target.addrs.map((addr) => multiaddr(`${addr}/p2p/${target.peerId}`));
  try {
    const connection = await node.dial(addrs, { signal: outer });
    try {
      const signal = AbortSignal.any([outer, AbortSignal.timeout(HELLO_TIMEOUT_MS)]);
      const stream = await connection.newStream(HELLO_PROTOCOL, { signal });
      return { answer: await sayHello(stream, request, signal), addr: withoutPeer(connection.remoteAddr) };
    } finally {
      // All is said. A graceful close hangs when the peer, which ends the connection after a refusal, is faster.
      connection.abort(new DezentError('CANCELLED', 'the hello is over'));
    }
  } catch (error) {
    outer.throwIfAborted();
    const why = error instanceof Error ? error.message : String(error);
    throw new DezentError('UNREACHABLE', `no answer at ${addrs.join(', ')}: ${why}`, { cause: error });
  }
}

/** Asks all peers; what those that agree gave, together. */
async function askEach(
  peers: readonly string[],
  what: string,
  ask: (target: Target) => Promise<Heard>,
): Promise<Welcome> {
  const welcomes: Welcome[] = [];
  const failures: DezentError[] = [];
  for (const [peerId, addrs] of Map.groupBy(peers, peerOfAddr)) {
    try {
      const { answer, addr } = await ask({ peerId, addrs: addrs.map(cutPeer) });
      const gave = answer.admitted || answer.records.owners.length > 0;
      if (gave) welcomes.push(welcomeOf(answer, peerId, addr));
      else failures.push(new DezentError('NOT_ALLOWED', `${peerId} does not ${what}: ${answer.reason}`));
    } catch (error) {
      if (!(error instanceof DezentError)) throw error;
      failures.push(error);
    }
  }
  const [first] = welcomes;
  if (first === undefined) throw worst(failures);
  const sameGroup = welcomes.filter(({ groupId }) => Buffer.compare(groupId, first.groupId) === 0);
  return { groupId: first.groupId, records: together(sameGroup), peers: sameGroup.flatMap(({ peers }) => peers) };
}

/** A refusal says more than silence. */
function worst(failures: readonly DezentError[]): DezentError {
  const refused = failures.find(({ code }) => code === 'NOT_ALLOWED');
  if (refused !== undefined) return refused;
  const told = failures.map(({ message }) => message).join('; ');
  return new DezentError('UNREACHABLE', told === '' ? 'no peer was named' : told, { cause: failures[0] });
}

function together(welcomes: readonly Welcome[]): GroupRecords {
  const all = (kind: keyof GroupRecords): Uint8Array[] => {
    const byText = new Map(
      welcomes.flatMap(({ records }) => records[kind]).map((e) => [Buffer.from(e).toString('latin1'), e]),
    );
    return [...byText.values()];
  };
  return { entries: all('entries'), owners: all('owners'), heads: all('heads') };
}

function welcomeOf(answer: HelloAnswer, peerId: string, addr: string): Welcome {
  const own = answer.peers.find((page) => page.peerId === peerId)?.addrs ?? [];
  const page: PeerAddrs = { peerId, addrs: [...new Set([addr, ...own])], seenAt: Date.now() };
  return {
    groupId: answer.group,
    records: answer.records,
    peers: [page, ...answer.peers.filter((other) => other.peerId !== peerId)],
  };
}

function claimOf(claim: Claim, groupId: Uint8Array, guest: SigningKey): Uint8Array {
  return encodeEnvelope(signClaim(groupId, claim, guest));
}
