// The invites that this device has handed out: by the guest's public key, never its seed; until when, for how many, and who has used them.
// A use is written in the same batch as the change to the member list it lets in.
import { DezentError } from '../../errors.ts';
import { openTable, SYNC, type StateDb, type Table } from '../home/state.ts';

/** Used and expired invites are remembered, so that who asks again late hears why not. */
const REMEMBER_MS: number = 30 * 24 * 3600 * 1000;
const MAX_USES = 1000;
/** A year: longer would be a standing door. */
const MAX_TTL_MS: number = 366 * 24 * 3600 * 1000;

export interface StoredInvite {
  /** ms since 1970. */
  until: number;
  uses: number;
  vault: boolean;
  /** `owner` is the owner id; empty for a vault. */
  usedBy: { owner: string; device: string }[];
}

export interface InviteUser {
  owner: string;
  device: string;
}

/** One write for a batch of `level`. */
export type StateWrite = { type: 'put'; sublevel: Table<StoredInvite>; key: string; value: StoredInvite };

export interface InviteBook {
  /** Keeps a new invite, durably. Throws USAGE for uses or ttl out of range. */
  add(guest: string, invite: { vault: boolean; uses: number; ttlMs: number }): Promise<void>;
  /** Throws INVITE when this guest has no invite, or it has expired or is used up; but a device that has used it may ask again. */
  check(guest: string, device: string): StoredInvite;
  /**
   * The write that marks it used, in place of what the same device used it for before (`previous`): an `init` that was cut off comes again
   * with the same device key, perhaps for a new owner. Throws like check. Call kept() once it is written.
   */
  use(guest: string, user: InviteUser): { previous: InviteUser | undefined; write: StateWrite };
  kept(write: StateWrite): void;
}

export async function openInviteBook(db: StateDb, now: () => number): Promise<InviteBook> {
  const table = openTable<StoredInvite>(db, 'invites');
  const invites = new Map(await table.iterator().all());

  const forgetOld = async (): Promise<void> => {
    for (const [guest, { until }] of invites) {
      if (until + REMEMBER_MS > now()) continue;
      await table.del(guest);
      invites.delete(guest);
    }
  };

  const check = (guest: string, device: string): StoredInvite => {
    const invite = invites.get(guest);
    if (invite === undefined) throw new DezentError('INVITE', 'this invite is not known here');
    if (invite.usedBy.some((user) => user.device === device)) return invite;
    if (now() >= invite.until)
      throw new DezentError('INVITE', `the invite expired at ${new Date(invite.until).toISOString()}`);
    if (invite.usedBy.length >= invite.uses) throw new DezentError('INVITE', 'the invite has been used');
    return invite;
  };

  return {
    check,
    async add(guest, { vault, uses, ttlMs }) {
      if (!Number.isInteger(uses) || uses < 1 || uses > MAX_USES)
        throw new DezentError('USAGE', `an invite has 1 to ${MAX_USES} uses`);
      if (!(ttlMs > 0 && ttlMs <= MAX_TTL_MS))
        throw new DezentError('USAGE', 'an invite lasts longer than nothing and at most 366 days');
      await forgetOld();
      const invite = { until: Math.floor(now() + ttlMs), uses, vault, usedBy: [] };
      await table.put(guest, invite, SYNC);
      invites.set(guest, invite);
    },
    use(guest, user) {
      const invite = check(guest, user.device);
      const previous = invite.usedBy.find(({ device }) => device === user.device);
      const value = { ...invite, usedBy: [...invite.usedBy.filter((other) => other !== previous), user] };
      return { previous, write: { type: 'put', sublevel: table, key: guest, value } };
    },
    kept: ({ key, value }) => void invites.set(key, value),
  };
}
