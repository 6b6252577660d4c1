// The state behind group.ts: signed records judged together, made durable before anybody sees them, one change at a time.
import type { DeviceKeys } from '../home/key-files.ts';
import { openGroupStore } from './group-store.ts';
import { counts, judgeHead, type HeldHead } from './head-book.ts';
import type { StateWrite } from './invite-book.ts';
import type { StateDb } from '../home/state.ts';
import { DezentError, isDezentError } from '../../errors.ts';
import { take, type GroupState, type Taken } from '../../protocol/group-state.ts';
import type { SignedEntry } from '../../protocol/member-list.ts';
import { openSecrets } from '../../protocol/owner-changes.ts';
import type { SignedOwnerRecord } from '../../protocol/owner-record.ts';
import type { OwnerView } from '../../protocol/owner-view.ts';
import { idBytes, peerIdOf } from '../../protocol/signature.ts';
import type { OpenedSecrets } from '../../store/secrets.ts';

export interface GroupNeeds {
  /** A sublevel of its own. */
  db: StateDb;
  keys: DeviceKeys;
  /** Milliseconds since 1970; for invites. Default: the system's clock. */
  now?: () => number;
}

export interface GroupSettings {
  /** Texts, as in identity.json. `ownerId` is empty on a vault. */
  groupId: string;
  ownerId: string;
}

export type Change = 'members' | 'heads';

export interface GroupCore {
  readonly groupId: Uint8Array;
  readonly ownerId: string;
  readonly deviceId: string;
  readonly keys: DeviceKeys;
  readonly damaged: readonly string[];
  now(): number;
  state(): GroupState;
  /** Heads that count, by their key. */
  heads(): Map<string, HeldHead>;
  /** The own owner's records; undefined on a vault and before there are any. */
  ownView(): OwnerView | undefined;
  /** Throws KEYS or NOT_ALLOWED, see group.ts. */
  secrets(): OpenedSecrets;
  /** Runs after all work given before; everything that changes the state goes through here. */
  serially<T>(work: () => Promise<T>): Promise<T>;
  /** Judges new records against the state; changes nothing. */
  judge(entries: readonly SignedEntry[], ownerRecords: readonly SignedOwnerRecord[]): Taken;
  /** Makes judged records and heads durable, then the state. Only inside serially. */
  keep(taken: Taken, heads: readonly HeldHead[], also?: StateWrite): Promise<{ changed: boolean; refused: string[] }>;
  onChange(listener: (what: Change) => void): () => void;
}

/** Secrets that may be passed on but do not show when something prints or encodes them. */
function hidden({ split, epochs }: OpenedSecrets): OpenedSecrets {
  const hide = <T extends object, K extends string>(shown: T, name: K, value: Uint8Array): T & Record<K, Uint8Array> =>
    Object.defineProperty(shown, name, { enumerable: false, get: () => value }) as T & Record<K, Uint8Array>;
  return hide({ epochs: epochs.map(({ id, secret }) => hide({ id }, 'secret', secret)) }, 'split', split);
}

async function openOrUndefined(
  groupId: Uint8Array,
  view: OwnerView | undefined,
  keys: DeviceKeys,
): Promise<OpenedSecrets | undefined> {
  if (view === undefined) return undefined;
  try {
    return hidden(await openSecrets(groupId, view, keys.box));
  } catch (error) {
    if (isDezentError(error, 'KEYS')) return undefined;
    throw error;
  }
}

function sameRecords(a: OwnerView | undefined, b: OwnerView | undefined): boolean {
  return (
    a?.records.length === b?.records.length &&
    a?.records.every((record, index) => record === b?.records[index]) !== false
  );
}

function inTurn(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const mine = last.then(work, work);
    last = mine;
    return mine;
  };
}

export async function openGroupCore(
  { db, keys, now = Date.now }: GroupNeeds,
  settings: GroupSettings,
): Promise<GroupCore> {
  const groupId = idBytes(settings.groupId);
  const store = await openGroupStore(db, groupId);
  const { heads } = store;
  const listeners = new Set<(what: Change) => void>();
  let state = store.state;
  let opened = await openOrUndefined(groupId, state.owners.get(settings.ownerId), keys);

  const notify = (what: Change): void => {
    for (const listener of listeners) listener(what);
  };

  const adopt = (taken: Taken, next: OpenedSecrets | undefined, newHeads: readonly HeldHead[]): void => {
    state = taken.state;
    opened = next;
    for (const held of newHeads) heads.set(held.key, held);
  };

  const keep: GroupCore['keep'] = async (taken, offered, also) => {
    const before = state.owners.get(settings.ownerId);
    const after = taken.state.owners.get(settings.ownerId);
    const next = sameRecords(before, after) ? opened : await openOrUndefined(groupId, after, keys);
    const { newHeads, refused } = sortHeads(taken.state, heads, offered);
    await store.save(taken, newHeads, also);
    const members = taken.entries.length + taken.ownerRecords.length + taken.replaced.length > 0;
    if (members || newHeads.length > 0) adopt(taken, next, newHeads);
    if (members) notify('members');
    if (newHeads.length > 0) notify('heads');
    return { changed: members || newHeads.length > 0, refused: [...taken.refused, ...refused] };
  };

  return {
    groupId,
    ownerId: settings.ownerId,
    deviceId: peerIdOf(keys.device.publicKey),
    keys,
    damaged: store.damaged,
    now,
    state: () => state,
    heads: () => new Map([...heads].filter(([, { head }]) => counts(state, head))),
    ownView: () => state.owners.get(settings.ownerId),
    secrets() {
      if (settings.ownerId === '')
        throw new DezentError('NOT_ALLOWED', 'a vault has no secrets: it belongs to no owner');
      if (opened !== undefined) return opened;
      throw new DezentError('KEYS', 'no owner record held has secrets sealed to this device', {
        hint: 'Let this device meet an admin device of its owner, or recover it with the phrase.',
      });
    },
    serially: inTurn(),
    judge: (entries, ownerRecords) => take(state, entries, ownerRecords),
    keep,
    onChange(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

function sortHeads(
  state: GroupState,
  held: ReadonlyMap<string, HeldHead>,
  offered: readonly HeldHead[],
): { newHeads: HeldHead[]; refused: string[] } {
  const known = new Map(held);
  const newHeads = new Map<string, HeldHead>();
  const refused: string[] = [];
  for (const one of offered) {
    const verdict = judgeHead(state, known, one);
    if (verdict.take === 'no') refused.push(verdict.why);
    if (verdict.take !== 'new') continue;
    known.set(one.key, one);
    newHeads.set(one.key, one);
  }
  return { newHeads: [...newHeads.values()], refused };
}
