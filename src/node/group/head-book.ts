// The heads held: one for each device and incarnation. A head counts only while its device does: that of a revoked device up to where its
// revocation froze it, that of an unlisted one not at all.
import type { GroupState } from '../../protocol/group-state.ts';
import { verifyHead, type Head } from '../../protocol/head.ts';
import { MAX_INCARNATIONS } from '../../protocol/owner-record.ts';
import type { Envelope } from '../../protocol/signature.ts';

export interface HeldHead {
  /** Where it is kept: `<peer id>/<incarnation as hex>`. */
  key: string;
  head: Head;
  envelope: Envelope;
}

/** "new": to be kept; "same": held already; else why it is left out. */
export type HeadVerdict = { take: 'new' | 'same' } | { take: 'no'; why: string };

/** Throws BAD_RECORD unless the head's device signed it for this group. */
export function readHead(groupId: Uint8Array, envelope: Envelope): HeldHead {
  const head = verifyHead(groupId, envelope);
  return { key: headKey(head.device, head.incarnation), head, envelope };
}

export function headKey(device: string, incarnation: Uint8Array): string {
  return `${device}/${Buffer.from(incarnation).toString('hex')}`;
}

/** Judges one verified head against what is held. */
export function judgeHead(state: GroupState, held: ReadonlyMap<string, HeldHead>, offered: HeldHead): HeadVerdict {
  const { key, head } = offered;
  if (!counts(state, head))
    return {
      take: 'no',
      why: `head ${head.seq} of ${head.device}: the device is not listed, or was revoked before it`,
    };
  const known = held.get(key);
  if (known === undefined) {
    const incarnations = [...held.keys()].filter((other) => other.startsWith(`${head.device}/`)).length;
    return incarnations < MAX_INCARNATIONS
      ? { take: 'new' }
      : { take: 'no', why: `${head.device} has too many incarnations` };
  }
  if (head.seq > known.head.seq || !counts(state, known.head)) return { take: 'new' };
  if (head.seq < known.head.seq)
    return { take: 'no', why: `head ${head.seq} of ${head.device}: ${known.head.seq} is held` };
  const same = Buffer.compare(known.envelope.payload, offered.envelope.payload) === 0;
  return same ? { take: 'same' } : { take: 'no', why: `${head.device} signed two different heads ${head.seq}` };
}

/** True while the head's device is listed, or revoked only after this head. */
export function counts({ owners, list }: GroupState, head: Head): boolean {
  for (const [owner, { devices, revoked }] of owners) {
    if (list?.owners.has(owner) !== true) continue;
    if (devices.has(head.device)) return true;
    const frozen = revoked
      .get(head.device)
      ?.heads.find((end) => Buffer.compare(end.incarnation, head.incarnation) === 0);
    if (frozen !== undefined && head.seq <= frozen.seq) return true;
  }
  return false;
}
