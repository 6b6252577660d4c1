// Making owner records: the first one, and the next one of a view. A change never drops an epoch or a revocation, and merges whatever fork the
// view has; secrets that the maker could open are sealed anew to devices that lack them.
import { randomBytes } from 'node:crypto';
import { DezentError, isDezentError } from '../errors.ts';
import { EPOCH_ID_BYTES, SECRET_BYTES, type OpenedSecrets } from '../store/secrets.ts';
import type { OwnerKeys } from './owner-keys.ts';
import {
  FIXED_NONCE_BYTES,
  signFixed,
  signOwnerRecord,
  type Device,
  type Fixed,
  type Revoked,
  type SealedEpoch,
  type SealedSecret,
  type SignedOwnerRecord,
} from './owner-record.ts';
import type { OwnerView } from './owner-view.ts';
import { MAX_SEQ } from './record-codec.ts';
import { sealTo, type BoxKey, type SealContext } from './sealed-box.ts';
import { idBytes, peerIdOf, type SigningKey } from './signature.ts';

const SPLIT_AAD = Buffer.from('split');

/** What is to be different in the next record. */
export interface OwnerChange {
  add?: Device[];
  /** Each revocation also makes a new epoch. */
  revoke?: Revoked[];
  newEpoch?: boolean;
}

/** Who makes the next record: the phrase, which may make more devices admins, or an admin device. */
export type OwnerSigner = { phrase: OwnerKeys; newAdmins?: string[] } | { admin: SigningKey };

function contextOf(groupId: Uint8Array, owner: string, aad: Uint8Array): SealContext {
  return { info: Buffer.concat([Buffer.from('dezent/seal/1\0'), groupId, idBytes(owner)]), aad };
}

async function sealSecret(
  secret: Uint8Array,
  recovery: Uint8Array,
  devices: readonly Device[],
  context: SealContext,
): Promise<SealedSecret> {
  const sealed: SealedSecret['sealed'] = [];
  for (const { x25519 } of devices) sealed.push([x25519, await sealTo(x25519, secret, context)]);
  return { recovery: await sealTo(recovery, secret, context), sealed };
}

async function newEpoch(
  groupId: Uint8Array,
  owner: string,
  recovery: Uint8Array,
  devices: readonly Device[],
): Promise<SealedEpoch> {
  const id = new Uint8Array(randomBytes(EPOCH_ID_BYTES));
  return { id, ...(await sealSecret(randomBytes(SECRET_BYTES), recovery, devices, contextOf(groupId, owner, id))) };
}

/** The first record of an owner in a group: one device, which is an admin; fresh split secret and epoch; signed by the phrase. */
export async function foundOwnerRecord(
  groupId: Uint8Array,
  keys: OwnerKeys,
  device: Device,
): Promise<SignedOwnerRecord> {
  const { ownerId: owner, signing } = keys;
  const recovery = keys.recovery.publicKey;
  const { fixed, fixedEnvelope } = state(groupId, keys, 1, [device.peerId]);
  const split = await sealSecret(randomBytes(SECRET_BYTES), recovery, [device], contextOf(groupId, owner, SPLIT_AAD));
  const epochs = [await newEpoch(groupId, owner, recovery, [device])];
  const lists = { devices: [device], revoked: [], guests: [], prev: [] };
  return signOwnerRecord(groupId, { owner, seq: 1, fixed, fixedEnvelope, ...lists, split, epochs }, signing);
}

function state(
  groupId: Uint8Array,
  keys: OwnerKeys,
  term: number,
  admins: string[],
): { fixed: Fixed; fixedEnvelope: Uint8Array } {
  const nonce = new Uint8Array(randomBytes(FIXED_NONCE_BYTES));
  const fixed = {
    term,
    nonce,
    recovery: keys.recovery.publicKey,
    guest: peerIdOf(keys.recoveryGuest.publicKey),
    admins,
  };
  return { fixed, fixedEnvelope: signFixed(groupId, fixed, keys.signing) };
}

/** What the next record builds on: the view, and its secrets as far as the maker can open them. */
export interface OwnerBase {
  groupId: Uint8Array;
  view: OwnerView;
  opened: OpenedSecrets;
}

/** The record that follows all of the view's and makes the change. Throws BAD_RECORD when it breaks a limit or the signer may not. */
export async function nextOwnerRecord(
  base: OwnerBase,
  change: OwnerChange,
  by: OwnerSigner,
): Promise<SignedOwnerRecord> {
  const { groupId, view } = base;
  const { latest, owner, guests } = view;
  const revokedBefore = [...view.revoked.values()];
  const revoked = [...revokedBefore, ...(change.revoke ?? []).filter(({ peerId }) => !view.revoked.has(peerId))];
  const revokedIds = new Set(revoked.map(({ peerId }) => peerId));
  const added = new Map([...view.devices.values(), ...(change.add ?? [])].map((device) => [device.peerId, device]));
  const devices = [...added.values()].filter(({ peerId }) => !revokedIds.has(peerId));
  const { fixed, fixedEnvelope } =
    'phrase' in by
      ? state(
          groupId,
          by.phrase,
          highestTerm(view) + 1,
          [...view.admins, ...(by.newAdmins ?? [])].filter((id) => !revokedIds.has(id)),
        )
      : { fixed: latest.fixed, fixedEnvelope: latest.fixedEnvelope };
  const epochs = await resealEpochs(base, devices);
  if (change.newEpoch === true || revoked.length > revokedBefore.length)
    epochs.push(await newEpoch(groupId, owner, fixed.recovery, devices));
  const split = await reseal(latest.split, base.opened.split, devices, contextOf(groupId, owner, SPLIT_AAD));
  const seq = Math.min(MAX_SEQ, Math.max(...view.records.map((record) => record.seq)) + 1);
  const prev = view.records.map(({ hash }) => hash);
  const record = { owner, seq, prev, fixed, fixedEnvelope, devices, revoked, guests, split, epochs };
  return signOwnerRecord(groupId, record, 'phrase' in by ? by.phrase.signing : by.admin);
}

function highestTerm(view: OwnerView): number {
  return Math.max(...view.records.map(({ fixed }) => fixed.term));
}

async function resealEpochs({ groupId, view, opened }: OwnerBase, devices: readonly Device[]): Promise<SealedEpoch[]> {
  const epochs: SealedEpoch[] = [];
  for (const epoch of view.epochs) {
    const secret = opened.epochs.find(({ id }) => Buffer.compare(id, epoch.id) === 0)?.secret;
    epochs.push({ id: epoch.id, ...(await reseal(epoch, secret, devices, contextOf(groupId, view.owner, epoch.id))) });
  }
  return epochs;
}

/** Boxes of the devices that stay, and new ones for those that have none; the one of the recovery key is never touched. */
async function reseal(
  held: SealedSecret,
  secret: Uint8Array | undefined,
  devices: readonly Device[],
  context: SealContext,
): Promise<SealedSecret> {
  const sealed: SealedSecret['sealed'] = [];
  for (const { x25519 } of devices) {
    const box = held.sealed.find(([to]) => Buffer.compare(to, x25519) === 0)?.[1];
    if (box !== undefined) sealed.push([x25519, box]);
    else if (secret !== undefined) sealed.push([x25519, await sealTo(x25519, secret, context)]);
  }
  return { recovery: held.recovery, sealed };
}

/** True when an admin device should write the next record without any change: there is a fork, or a device lacks a secret. */
export function needsMending(view: OwnerView, opened: OpenedSecrets): boolean {
  const openedIds = new Set(opened.epochs.map(({ id }) => Buffer.from(id).toString('hex')));
  const mendable = view.epochs.filter(({ id }) => openedIds.has(Buffer.from(id).toString('hex')));
  const lacks = ({ sealed }: SealedSecret): boolean =>
    [...view.devices.values()].some(({ x25519 }) => !sealed.some(([to]) => Buffer.compare(to, x25519) === 0));
  return view.records.length > 1 || lacks(view.latest.split) || mendable.some(lacks);
}

/**
 * The secrets that this key (a device's, or the recovery key) can open. Throws KEYS when it cannot open the split secret, or no epoch at all:
 * the device is not listed, or a fork has to be merged by an admin device first.
 */
export async function openSecrets(groupId: Uint8Array, view: OwnerView, key: BoxKey): Promise<OpenedSecrets> {
  const open = async (secrets: readonly SealedSecret[], aad: Uint8Array): Promise<Uint8Array | undefined> => {
    for (const bytes of secrets.flatMap((secret) => boxesFor(secret, key.publicKey))) {
      const opened = await tryUnseal(key, bytes, contextOf(groupId, view.owner, aad));
      if (opened !== undefined) return opened;
    }
    return undefined;
  };
  const split = await open(view.splits, SPLIT_AAD);
  const epochs: { id: Uint8Array; secret: Uint8Array }[] = [];
  for (const epoch of view.epochs) {
    const secret = await open([epoch], epoch.id);
    if (secret !== undefined) epochs.push({ id: epoch.id, secret });
  }
  if (split === undefined || epochs.length === 0)
    throw new DezentError('KEYS', `the record of owner ${view.owner} has no secrets sealed to this key`, {
      hint: 'Let this device meet an admin device of its owner, or recover it with the phrase.',
    });
  return { split, epochs };
}

/** The box of a device's key first; the recovery key is tried last, it fits its own only. */
function boxesFor({ recovery, sealed }: SealedSecret, publicKey: Uint8Array): Uint8Array[] {
  return [...sealed.filter(([to]) => Buffer.compare(to, publicKey) === 0).map(([, bytes]) => bytes), recovery];
}

async function tryUnseal(key: BoxKey, bytes: Uint8Array, context: SealContext): Promise<Uint8Array | undefined> {
  try {
    return await key.unseal(bytes, context);
  } catch (error) {
    if (isDezentError(error, 'KEYS')) return undefined;
    throw error;
  }
}
