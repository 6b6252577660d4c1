// A group for tests of the swarm alone: an entry is the text "GROUP: member PEER" or "GROUP: removed PEER", and the group's name is its
// signature. What the swarm relies on is here: merging, roles, changes, invites. The real group has tests of its own.
import { createHash } from 'node:crypto';
import { DezentError } from '../../src/errors.ts';
import type { SwarmGroup } from '../../src/node/swarm/gate.ts';
import { verifyClaim } from '../../src/protocol/invite.ts';
import { decodeEnvelope, idText, peerIdOf, type SigningKey } from '../../src/protocol/signature.ts';

export interface FakeGroup extends SwarmGroup {
  add(peerId: string): void;
  remove(peerId: string): void;
  /** Lets whoever has the guest key in, with this right. */
  invite(guest: SigningKey): void;
  heads(): string[];
}

const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8');
const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'utf8'));

export function fakeGroup(name: string, deviceId: string, members: readonly string[]): FakeGroup {
  const groupIdBytes = new Uint8Array(createHash('sha256').update(name).digest());
  const entries = new Set(members.map((peerId) => `${name}: member ${peerId}`));
  const heads = new Set<string>();
  const guests = new Set<string>();
  const listeners = new Set<Parameters<SwarmGroup['onChange']>[0]>();
  const isListed = (peerId: string): boolean =>
    entries.has(`${name}: member ${peerId}`) && !entries.has(`${name}: removed ${peerId}`);
  const listed = (): string[] => [...entries].map((entry) => entry.split(' ').at(-1) ?? '').filter(isListed);
  const put = (kept: Set<string>, texts: readonly string[]): boolean => {
    const fresh = texts.filter((text) => !kept.has(text));
    for (const text of fresh) kept.add(text);
    return fresh.length > 0;
  };
  const tell = (): void => {
    for (const listener of listeners) listener('members');
  };

  return {
    groupId: idText(groupIdBytes),
    groupIdBytes,
    deviceId,
    roleOf: (peerId) =>
      isListed(peerId) ? { role: 'member', owner: 'o', name: peerId, machine: peerId, admin: false } : undefined,
    members: () =>
      [...new Set(listed())].map((peerId) => ({
        peerId,
        owner: 'o',
        name: '',
        machine: peerId,
        role: 'device',
        admin: false,
      })),
    records: () => ({ entries: [...entries].map(bytesOf), owners: [], heads: [...heads].map(bytesOf) }),
    async merge(records) {
      const given = records.entries.map(textOf);
      if (!given.every((entry) => entry.startsWith(`${name}: `))) throw new DezentError('BAD_RECORD', 'a forged entry');
      const newEntries = put(entries, given);
      const changed = put(heads, records.heads.map(textOf)) || newEntries;
      if (changed) tell();
      return { changed, refused: [] };
    },
    async putHead({ payload }) {
      if (textOf(payload) === 'old') throw new DezentError('BAD_RECORD', 'a later head is held');
      if (put(heads, [textOf(payload)])) tell();
    },
    guestOf(claim, device) {
      const { right, guest, device: claimed } = verifyClaim(groupIdBytes, decodeEnvelope(claim));
      if (!guests.has(guest) || claimed !== device) throw new DezentError('INVITE', 'the invite is unknown');
      return right === 'join' ? { right } : { right, owner: 'o' };
    },
    async join({ device }) {
      if (put(entries, [`${name}: member ${device}`])) tell();
      return 'admitted';
    },
    onChange(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    add(peerId) {
      if (put(entries, [`${name}: member ${peerId}`])) tell();
    },
    remove(peerId) {
      if (put(entries, [`${name}: removed ${peerId}`])) tell();
    },
    invite: (guest) => void guests.add(peerIdOf(guest.publicKey)),
    heads: () => [...heads],
  };
}
