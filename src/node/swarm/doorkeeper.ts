// The answering side's decision on a hello: listed peers are in; a stranger gets in with records that list it or with a good claim.
// A stranger that is refused learns the group id and a reason. Strangers' signatures are verified one hello at a time.
import pLimit from 'p-limit';
import { DezentError } from '../../errors.ts';
import { refusal, tellable, type HelloAnswer, type HelloRequest } from '../../protocol/hello.ts';
import type { Connection } from '@libp2p/interface';
import type { GroupRecords } from '../../protocol/group-records.ts';
import type { PeerAddrs } from '../../protocol/records.ts';
import type { Gate, SwarmGroup } from './gate.ts';
import type { Log } from '../home/log.ts';

/** 256 KiB of envelopes cost about 0.1 s to verify, and hello ends after 5 s. */
const MAX_WAITING_STRANGERS = 16;

export type Doorkeeper = (connection: Connection, request: HelloRequest) => Promise<HelloAnswer>;

export interface DoorkeeperNeeds {
  group: SwarmGroup;
  gate: Gate;
  /** Members' addresses for whoever is let in. */
  addrsFor(connection: Connection): PeerAddrs[];
  log: Log;
}

export function openDoorkeeper({ group, gate, addrsFor, log }: DoorkeeperNeeds): Doorkeeper {
  const oneAtATime = pLimit(1);
  const id = group.groupIdBytes;

  /** Lets a stranger in if its records or claim are good; for a guest that stays one, the records it may have. */
  const examine = async (peerId: string, { records, claim }: HelloRequest): Promise<GroupRecords | undefined> => {
    if (claim === undefined) {
      await group.merge({ ...records, heads: [] }, peerId);
      return undefined;
    }
    const { right } = group.guestOf(claim, peerId);
    if (right === 'recover') return group.records();
    if (right !== 'join')
      throw new DezentError('NOT_ALLOWED', `a guest with the right to ${right} is served elsewhere`);
    await group.join({ device: peerId, claim, records });
    return undefined;
  };

  return async (connection, request) => {
    const peerId = connection.remotePeer.toString();
    if (request.group !== undefined && !sameBytes(request.group, id))
      return refusal(id, 'this node belongs to another group');
    try {
      if (oneAtATime.pendingCount >= MAX_WAITING_STRANGERS)
        throw new DezentError('NOT_ALLOWED', 'too many at once, try again');
      // A listed device with a claim is one whose `init` was cut off after it was let in: it comes again, perhaps as a new owner.
      const isKnown = gate.isListed(peerId) && request.claim === undefined;
      const guestRecords = isKnown ? undefined : await oneAtATime(() => examine(peerId, request));
      if (guestRecords !== undefined)
        return { group: id, admitted: false, reason: '', records: guestRecords, peers: addrsFor(connection) };
    } catch (error) {
      log.info({ peer: peerId, error }, 'a stranger was refused');
      return refusal(id, tellable(error));
    }
    if (!gate.isListed(peerId)) return refusal(id, 'this device is not on the member list');
    const records = lacking(request.records, group.records());
    if (request.claim === undefined)
      return { group: id, admitted: true, reason: '', records: { ...records, heads: [] }, peers: [] };
    // A joining device speaks nothing but hello yet; others get heads and addresses by the records protocol.
    return { group: id, admitted: true, reason: '', records, peers: addrsFor(connection) };
  };
}

/** What of `held` is not in `shown`. */
function lacking(shown: GroupRecords, held: GroupRecords): GroupRecords {
  const known = new Set([...shown.entries, ...shown.owners].map(keyOf));
  const isNew = (envelope: Uint8Array): boolean => !known.has(keyOf(envelope));
  return { entries: held.entries.filter(isNew), owners: held.owners.filter(isNew), heads: held.heads };
}

export function countOf(records: GroupRecords): number {
  return records.entries.length + records.owners.length + records.heads.length;
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

function keyOf(envelope: Uint8Array): string {
  return Buffer.from(envelope.buffer, envelope.byteOffset, envelope.length).toString('latin1');
}
