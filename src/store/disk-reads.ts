// The reading half of the disk store. What it reads is checked by id: a damaged block is an error, never absence and never wrong bytes.
import { blockIdOf, type BlockId } from './block.ts';
import type { BlockStore, CallOptions, LocalStore } from './block-store.ts';
import { decodeRecordHeader, RECORD_HEADER_BYTES } from './pack-file.ts';
import type { Location } from './pack-index.ts';
import type { LoadedPacks, Notify } from './pack-load.ts';
import type { PackReader } from './pack-reader.ts';
import type { PackSession } from './pack-session.ts';
import { asDezentError, DezentError, isDezentError, systemCode } from '../errors.ts';

export interface ReadNeeds {
  session: PackSession;
  reader: PackReader;
  notify: Notify;
}

/** A question that found the index damaged or being replaced is put again, so often. */
const ATTEMPTS = 3;

/** Asks the loaded packs; where the index is damaged it is rebuilt, and where it is being replaced the new one is asked. */
export async function ask<T>(
  session: PackSession,
  options: CallOptions | undefined,
  question: (packs: LoadedPacks) => T | Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    options?.signal?.throwIfAborted();
    const packs = await session.loaded();
    try {
      return await question(packs);
    } catch (error) {
      if (attempt === ATTEMPTS) throw error;
      if (isDezentError(error, 'BAD_INDEX')) await session.rebuild(packs);
      else if (packs === (await session.loaded())) throw error;
    }
  }
}

export function openDiskReads(needs: ReadNeeds): Pick<LocalStore, 'get' | 'has' | 'hasMany' | 'stat' | 'ids'> {
  const { session } = needs;
  return {
    get: (id, options) => get(needs, id, options),
    has: (id, options) =>
      ask(session, options, (packs) => {
        assertCertain(packs, id);
        return isHere(packs, id, packs.index.get(id));
      }),
    hasMany: (ids, options) =>
      ask(session, options, async (packs) => {
        for (const id of ids) assertCertain(packs, id);
        const locations = await packs.index.getMany(ids);
        return new Set(ids.filter((id, at) => isHere(packs, id, locations[at])));
      }),
    stat: async (id, options) => {
      const location = await locate(session, id, options);
      return location && { owner: location.owner.slice(), length: location.length };
    },
    ids: (options) => listIds(session, options),
  };
}

async function get(needs: ReadNeeds, id: BlockId, options: CallOptions | undefined): ReturnType<BlockStore['get']> {
  let location = await locate(needs.session, id, options);
  while (location) {
    const bytes = await read(needs.reader, id, location);
    options?.signal?.throwIfAborted();
    if (bytes instanceof Uint8Array) return bytes;
    const now = await locate(needs.session, id, options);
    // Only what is still said to lie there is damaged; else a compaction has moved it meanwhile.
    if (now?.pack === location.pack && now.offset === location.offset) throw await markDamaged(needs, id, bytes);
    location = now;
  }
  return undefined;
}

function locate(session: PackSession, id: BlockId, options: CallOptions | undefined): Promise<Location | undefined> {
  return ask(session, options, (packs) => {
    assertCertain(packs, id);
    return packs.index.get(id);
  });
}

/** The block's bytes, or why they are not there. */
async function read(reader: PackReader, id: BlockId, location: Location): Promise<Uint8Array | DezentError> {
  let record: Uint8Array;
  try {
    record = await reader.read(location.pack, location.offset, RECORD_HEADER_BYTES + location.length);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw asDezentError(error);
    return new DezentError('IO', `pack ${location.pack} with block ${id} is not there`, { cause: error });
  }
  const head = decodeRecordHeader(location, record);
  const bytes = record.subarray(RECORD_HEADER_BYTES);
  const isWhole =
    head?.kind === 'block' && head.id === id && bytes.length === location.length && blockIdOf(bytes) === id;
  return isWhole
    ? bytes
    : new DezentError('BAD_BLOCK', `block ${id} is damaged in pack ${location.pack} at ${location.offset}`);
}

/** From now on the block is not here for `has`, and a `put` keeps it anew. */
async function markDamaged({ session, notify }: ReadNeeds, id: BlockId, error: DezentError): Promise<DezentError> {
  (await session.loaded()).damaged.add(id);
  notify({ what: 'bad-block', message: error.message, id, error });
  return error;
}

function isHere({ damaged }: LoadedPacks, id: BlockId, location: Location | undefined): boolean {
  return location !== undefined && !damaged.has(id);
}

function assertCertain({ uncertain }: LoadedPacks, id: BlockId): void {
  if (uncertain.has(id))
    throw new DezentError('IO', `a change of block ${id} failed half-way`, { cause: uncertain.get(id) });
}

/** A page at a time, so that nothing is held open in between. */
async function* listIds(session: PackSession, options: CallOptions = {}): AsyncIterable<BlockId> {
  let last: BlockId | undefined;
  for (;;) {
    const page = await ask(session, options, ({ index }) => index.page(last));
    if (page.length === 0) return;
    for (const id of page) {
      options.signal?.throwIfAborted();
      yield id;
    }
    last = page.at(-1);
  }
}
