// Invites, and the claims by which a guest proves its one narrow right. TYPES FIRST; the functions follow.
import type { Envelope, SigningKey } from './signature.ts';

export type GuestRight = 'join' | 'recover' | 'read';

/** What an invite text says. The guest's seed is in the text only. */
export interface Invite {
  groupId: Uint8Array;
  /** Signs the claim to join. */
  guest: SigningKey;
  /** The inviter's peer id and addresses. */
  peerId: string;
  addrs: string[];
  vault: boolean;
}

/** A machine that keeps blocks for the group and belongs to no owner. */
export interface VaultInfo {
  peerId: string;
  /** X25519 public key, 32 bytes. */
  x25519?: Uint8Array;
  name: string;
  machine: string;
}

/** Signed by the guest's key; Noise binds the connection to `device`, so it cannot be replayed by another. */
export interface Claim {
  right: GuestRight;
  /** Peer ids: who claims, and to whom. */
  device: string;
  to: string;
  /** With right "join" and a vault invite. */
  vault?: VaultInfo;
}

/** A guest whose claim holds. */
export type Guest =
  | { right: 'join'; vault?: VaultInfo }
  | { right: 'recover'; owner: string }
  | { right: 'read'; owner: string };

export declare function signClaim(groupId: Uint8Array, claim: Claim, guest: SigningKey): Envelope;
export declare function verifyClaim(groupId: Uint8Array, envelope: Envelope): Claim & { guest: string };
export declare function encodeInvite(invite: Omit<Invite, 'guest'> & { guestSeed: Uint8Array }): string;
export declare function decodeInvite(text: string): Invite;
