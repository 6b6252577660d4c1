// Everything that content is split, hashed and sealed with, derived from two kinds of secrets: the owner's split secret, made once, and
// one secret per epoch. Every key is HKDF-SHA256(secret, label "dezent/1/…"), so no two purposes ever share one.
import { hkdfSync } from 'node:crypto';
import { Blake3Hasher } from '@napi-rs/blake-hash';
import { DezentError } from '../errors.ts';

export const SECRET_BYTES = 32;
export const EPOCH_ID_BYTES = 8;

/** As the owner record hands them out, oldest epoch first; the last one is current. */
export interface OpenedSecrets {
  split: Uint8Array;
  epochs: readonly { id: Uint8Array; secret: Uint8Array }[];
}

/** The secrets of one generation. New content is sealed under the current one; old ones open what was sealed before. */
export interface EpochKeys {
  /** 8 random bytes. */
  id: Uint8Array;
  frameHash: Buffer;
  blockKey: Buffer;
  manifest: { saltHash: Buffer; key: Buffer };
  catalog: { saltHash: Buffer; key: Buffer };
  stub: Buffer;
}

export interface ContentKeys {
  /** 256 random words: the keyed gear table that decides where files are cut. Equal for all epochs, so that dedup survives. */
  gear: Uint32Array;
  contentHash: Buffer;
  plainHash: Buffer;
  /** Oldest first; the last one is current. */
  epochs: readonly EpochKeys[];
  current: EpochKeys;
  /** The epoch with this id; throws NEWER_VERSION-like BAD_BLOCK when this device does not know it. */
  epoch(id: Uint8Array): EpochKeys;
}

/** HKDF-SHA256 of `secret` under the label `dezent/1/<label>`. */
export function derive(secret: Uint8Array, label: string, bytes: number = SECRET_BYTES): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, new Uint8Array(0), `dezent/1/${label}`, bytes));
}

/** One hasher for each key: making one takes 9 µs, three times as long as hashing 4 KiB. */
const hashers = new WeakMap<Buffer, Blake3Hasher>();

/** Keyed blake3, 32 bytes, over the parts in their order. */
export function keyedHash(key: Buffer, ...parts: readonly Uint8Array[]): Buffer {
  const hasher = hashers.get(key) ?? Blake3Hasher.newKeyed(key);
  hashers.set(key, hasher);
  hasher.reset();
  for (const part of parts) hasher.update(part);
  return hasher.digestBuffer();
}

function epochKeysOf(id: Uint8Array, secret: Uint8Array): EpochKeys {
  return {
    id,
    frameHash: derive(secret, 'block/frame-hash'),
    blockKey: derive(secret, 'block/key'),
    manifest: { saltHash: derive(secret, 'manifest/salt-hash'), key: derive(secret, 'manifest/key') },
    catalog: { saltHash: derive(secret, 'catalog/salt-hash'), key: derive(secret, 'catalog/key') },
    stub: derive(secret, 'stub/mac'),
  };
}

/** All content keys of an owner. */
export function contentKeysOf(secrets: OpenedSecrets): ContentKeys {
  const table = derive(secrets.split, 'split/gear', 1024);
  return contentKeysFrom({
    gear: new Uint32Array(256).map((_, index) => table.readUInt32LE(index * 4)),
    contentHash: derive(secrets.split, 'split/content-hash'),
    plainHash: derive(secrets.split, 'split/plain-index'),
    epochs: secrets.epochs.map(({ id, secret }) => epochKeysOf(id, secret)),
  });
}

/** Content keys without the way to look epochs up: plain data, which another thread can be given. */
export type PlainKeys = Pick<ContentKeys, 'gear' | 'contentHash' | 'plainHash' | 'epochs'>;

export function plainKeysOf({ gear, contentHash, plainHash, epochs }: ContentKeys): PlainKeys {
  return { gear, contentHash, plainHash, epochs };
}

/** The inverse of {@link plainKeysOf}. */
export function contentKeysFrom(plain: PlainKeys): ContentKeys {
  const byId = new Map(plain.epochs.map((epoch) => [Buffer.from(epoch.id).toString('hex'), epoch]));
  const current = [...byId.values()].at(-1);
  if (current === undefined) throw new DezentError('KEYS', 'the owner record holds no epoch that this device can open');
  return {
    ...plain,
    current,
    epoch(id) {
      const hex = Buffer.from(id).toString('hex');
      const keys = byId.get(hex);
      if (keys === undefined) {
        throw new DezentError('BAD_BLOCK', `sealed under epoch ${hex}, which this device does not know`, {
          hint: 'Let this device meet its peers, so that it gets the latest owner record.',
        });
      }
      return keys;
    },
  };
}
