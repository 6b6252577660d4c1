// A group of real Group objects on real databases, joined the way nodes do it, without a network between them.
import { ownerForInvite, foundGroup, nextDevice } from '../../src/node/group/found-group.ts';
import type { Group } from '../../src/node/group/group.ts';
import { decodeInvite, signClaim } from '../../src/protocol/invite.ts';
import { encodeEnvelope } from '../../src/protocol/signature.ts';
import { homeOf, newDeviceOf, phraseOf, type Home } from './people.ts';

export interface TestMember {
  name: string;
  group: Group;
  home: Home;
  phrase: string;
}

export interface TestGroup extends AsyncDisposable {
  groupId: Uint8Array;
  clock: { now: number };
  /** The founder's first device. */
  anna: TestMember;
  /** A new owner with an invite of the first device; named also by `device`. */
  join(name: string): Promise<TestMember>;
  /** A further device of a member's owner, by phrase, with the records that `from` holds. */
  pair(member: TestMember, device: string, options?: { admin?: boolean; from?: TestMember }): Promise<TestMember>;
  /** Closes and opens again. */
  restart(member: TestMember): Promise<void>;
}

export const TTL_MS: number = 3_600_000;

/** Lets both learn what the other holds, until neither learns anything. */
export async function meet(one: TestMember, other: TestMember): Promise<void> {
  for (let changed = true; changed;) {
    const there = await other.group.merge(one.group.records(), one.group.deviceId);
    const back = await one.group.merge(other.group.records(), other.group.deviceId);
    changed = there.changed || back.changed;
  }
}

export async function groupOf(): Promise<TestGroup> {
  const stack = new AsyncDisposableStack();
  const clock = { now: 1_700_000_000_000 };
  const now = (): number => clock.now;
  const open = async (name: string, groupId: Uint8Array, ownerId: string, phrase: string): Promise<TestMember> => {
    const home = stack.use(await homeOf(name));
    return { name, home, phrase, group: await home.open({ groupId, ownerId, now }) };
  };
  const founded = await foundGroup(newDeviceOf('anna'), phraseOf('anna'));
  const { groupId } = founded;
  const anna = await open('anna', groupId, founded.ownerId, founded.phrase);
  await anna.group.merge(founded.records, 'init');

  return {
    groupId,
    clock,
    anna,
    async join(name) {
      const { ownerId, phrase, records } = await ownerForInvite(groupId, newDeviceOf(name), phraseOf(name));
      const member = await open(name, groupId, ownerId, phrase);
      const invite = await anna.group.createInvite({ vault: false, uses: 1, ttlMs: TTL_MS, addrs: [] });
      await anna.group.join({ device: member.group.deviceId, claim: claimOf(invite, member.group.deviceId), records });
      await member.group.merge(anna.group.records(), anna.group.deviceId);
      return member;
    },
    async pair({ phrase, group }, device, { admin = false, from } = {}) {
      const source = from?.group ?? group;
      const next = await nextDevice(phrase, { groupId, records: source.records() }, newDeviceOf(device), { admin });
      const member = await open(device, groupId, next.ownerId, phrase);
      await member.group.merge(next.records, 'init');
      return member;
    },
    async restart(member) {
      member.group = await member.home.open({ groupId, ownerId: member.group.ownerId, now });
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** The claim that the holder of this invite makes. */
export function claimOf(invite: string, device: string): Uint8Array {
  const { groupId, guest, peerId } = decodeInvite(invite);
  return encodeEnvelope(signClaim(groupId, { right: 'join', device, to: peerId }, guest));
}
