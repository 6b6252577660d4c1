// The group as this node knows it: member list, owner records and heads, durable; who may do what, and who is let in.
// Everything asked of it is judged from the signed records held, so the order in which they came does not matter.
import type { GroupRecords } from '../protocol/group-records.ts';
import type { Head } from '../protocol/head.ts';
import type { Guest } from '../protocol/invite.ts';
import type { Envelope } from '../protocol/signature.ts';
import type { OpenedSecrets } from '../store/secrets.ts';

/** What a peer is to this group. */
export type Role =
  | { role: 'member'; owner: string; name: string; machine: string; admin: boolean }
  | { role: 'vault'; owner: null; name: string; machine: string }
  | { role: 'guest'; right: 'read'; owner: string };

export interface Member {
  peerId: string;
  /** Owner id; null for a vault. */
  owner: string | null;
  name: string;
  /** Keyed hash of the machine's identity: equal for nodes on one machine. */
  machine: string;
  role: 'device' | 'vault';
  /** An admin device of its owner. */
  admin: boolean;
}

export interface MergeResult {
  changed: boolean;
  /** Why single records were not taken over: older than held, signer not (yet) known. For the log. */
  refused: string[];
}

export interface InviteRequest {
  /** The invited device keeps blocks but no files of an owner. */
  vault: boolean;
  /** How many owners (or vaults) may use it. */
  uses: number;
  ttlMs: number;
  /** Multiaddrs of this node, with or without /p2p/. */
  addrs: string[];
}

export interface JoinRequest {
  /** Peer id proven by Noise. */
  device: string;
  /** Encoded envelope: the guest's claim (invite.ts). */
  claim: Uint8Array;
  /** The joiner's owner record; empty for a vault. */
  records: GroupRecords;
}

export interface Group {
  /** Text (multibase base32) and bytes (32). */
  readonly groupId: string;
  readonly groupIdBytes: Uint8Array;
  /** This device's owner; empty text on a vault. */
  readonly ownerId: string;
  /** This device's peer id. */
  readonly deviceId: string;
  /** The role of a peer by the records held; undefined: none, it gets hello only. Revoked devices have none. */
  roleOf(peerId: string): Role | undefined;
  /** All devices and vaults, this one included, ascending by peer id. */
  members(): Member[];
  /** The own owner's secrets; throws KEYS while no owner record held can be opened by this device, NOT_ALLOWED on a vault. */
  secrets(): OpenedSecrets;
  /** What other members should have: for records and for a recovery guest. */
  records(): GroupRecords;
  /**
   * Verifies everything, keeps what is new, durably, before it returns; all of it or, when it rejects, nothing.
   * Records that are older or cannot be judged are left out and named. Throws BAD_RECORD for what is forged, malformed or too
   * much, NEWER_VERSION. Anybody may offer records: each stands by its signatures.
   */
  merge(records: GroupRecords, from: string): Promise<MergeResult>;
  /** Keeps the head, durably. Throws BAD_RECORD when its seq is lower than held, or equal with other bytes, or its device is no member. */
  putHead(envelope: Envelope): Promise<void>;
  heads(): Head[];
  headOf(device: string, incarnation: Uint8Array): Head | undefined;
  /** The text of a new invite. Throws NOT_ALLOWED, naming who can, unless this is an admin device of the founder or an admin owner. */
  createInvite(request: InviteRequest): Promise<string>;
  /** Checks a guest's claim made by `device` to this device. Throws INVITE (unknown, expired, used) or BAD_RECORD. */
  guestOf(claim: Uint8Array, device: string): Guest;
  /** Marks the invite used for this owner and device and appends to the member list, durably in one; the same may ask again. Throws INVITE, BAD_RECORD. */
  join(request: JoinRequest): Promise<'admitted'>;
  /** After every change of what is held; returns the way to stop. A listener must not throw. */
  onChange(listener: () => void): () => void;
}
