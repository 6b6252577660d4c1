// How peers are named in messages: by the name their owner gave them and when they were last here, not by their id alone.
import type { Group } from '../group/group.ts';
import type { Swarm } from './swarm.ts';

export interface PeerNames {
  /** "laptop", or the id of a peer that is no member. */
  nameOf(peerId: string): string;
  /** "laptop (12D3Koo…xyz, last seen 2026-11-20T10:00:00.000Z)". */
  describe(peerId: string): string;
}

export function openPeerNames(group: Pick<Group, 'roleOf'>, swarm: Pick<Swarm, 'peers'>): PeerNames {
  function nameOf(peerId: string): string {
    const role = group.roleOf(peerId);
    return role !== undefined && 'name' in role ? role.name : peerId;
  }
  return {
    nameOf,
    describe(peerId) {
      const peer = swarm.peers().find((one) => one.peerId === peerId);
      const seen = peer?.lastSeenAt === undefined ? 'never seen' : `last seen ${peer.lastSeenAt.toISOString()}`;
      return `${nameOf(peerId)} (${peerId}, ${peer?.connected === true ? 'connected' : seen})`;
    },
  };
}
