// What a commit will write: changes, in order, against what is in the index, become records to append and index entries to set.
import type { BlockId } from './block.ts';
import { RECORD_HEADER_BYTES, recordBytes, type PackId, type Place, type RecordHead } from './pack-file.ts';
import { countBlock, type IndexChange, type Location, type PackState } from './pack-index.ts';
import type { LoadedPacks } from './pack-load.ts';
import { newPackState } from './pack-rebuild.ts';
import type { NewRecord } from './pack-writer.ts';

export type Change =
  | { kind: 'put'; id: BlockId; bytes: Uint8Array; owner: Uint8Array }
  | { kind: 'delete'; id: BlockId }
  /** The same block from an old place to the end, unless it is no longer there. */
  | { kind: 'move'; id: BlockId; bytes: Uint8Array; from: Location }
  /** A tombstone that is still needed, from a pack that will go. */
  | { kind: 'keep'; id: BlockId; target: Place }
  /** A record that another thread has appended to a pack of its own. */
  | ({ kind: 'adopt'; id: BlockId; loan: number } & Location);

export interface Plan {
  /** Packs of adopted records: to be synced before the index names these. */
  adopted: PackId[];
  records: NewRecord[];
  changes: IndexChange[];
  /** As they will be. */
  states: PackState[];
}

const NO_BYTES: Uint8Array = new Uint8Array();

/** The plan for appending at this place. */
export async function planOf(packs: LoadedPacks, place: Place, all: readonly Change[]): Promise<Plan> {
  const records: NewRecord[] = [];
  const adopted = new Set<PackId>();
  const changes = new Map<BlockId, Location | undefined>();
  const states = new Map<string, PackState>();
  const known = await locationsOf(packs, all);
  let end = place.offset;

  const locationOf = (id: BlockId): Location | undefined => (changes.has(id) ? changes.get(id) : known.get(id));

  function stateOf(pack: string): PackState {
    const state = states.get(pack) ?? { ...(packs.states.get(pack) ?? newPackState(pack, 0)) };
    states.set(pack, state);
    return state;
  }

  function append(head: RecordHead, bytes: Uint8Array): number {
    const offset = end;
    records.push({ head, bytes });
    end += recordBytes(head);
    const state = stateOf(place.pack);
    state.end = end;
    if (head.kind === 'tombstone') state.tombstoneBytes += recordBytes(head);
    return offset;
  }

  function keep(id: BlockId, bytes: Uint8Array, owner: Uint8Array): void {
    const offset = append({ kind: 'block', id, owner, length: bytes.length }, bytes);
    countBlock(stateOf(place.pack), RECORD_HEADER_BYTES + bytes.length, 1);
    changes.set(id, { pack: place.pack, offset, length: bytes.length, owner });
  }

  function leave(id: BlockId, location: Location): void {
    countBlock(stateOf(location.pack), RECORD_HEADER_BYTES + location.length, -1);
    changes.set(id, undefined);
  }

  function bury(id: BlockId, location: Location): void {
    append({ kind: 'tombstone', id, target: { pack: location.pack, offset: location.offset } }, NO_BYTES);
    leave(id, location);
  }

  /** Where the block is kept already, the new record is dead from the beginning. */
  function adopt({ id, pack, offset, length, owner }: { id: BlockId } & Location): void {
    const state = stateOf(pack);
    const location = locationOf(id);
    adopted.add(pack);
    state.end = Math.max(state.end, offset + RECORD_HEADER_BYTES + length);
    if (location?.pack === pack && location.offset === offset) return;
    if (location && !packs.damaged.has(id)) {
      append({ kind: 'tombstone', id, target: { pack, offset } }, NO_BYTES);
      return;
    }
    if (location) bury(id, location);
    countBlock(state, RECORD_HEADER_BYTES + length, 1);
    changes.set(id, { pack, offset, length, owner });
  }

  function apply(change: Change): void {
    const location = locationOf(change.id);
    if (change.kind === 'adopt') adopt(change);
    else if (change.kind === 'put') {
      const damaged = packs.damaged.has(change.id) && !changes.has(change.id);
      if (location && !damaged) return;
      if (location) bury(change.id, location);
      keep(change.id, change.bytes, change.owner);
    } else if (change.kind === 'delete') {
      if (location) bury(change.id, location);
    } else if (change.kind === 'move') {
      if (location?.pack !== change.from.pack || location.offset !== change.from.offset) return;
      leave(change.id, location);
      keep(change.id, change.bytes, location.owner);
    } else if (packs.states.has(change.target.pack)) {
      append({ kind: 'tombstone', id: change.id, target: change.target }, NO_BYTES);
    }
  }

  for (const change of all) apply(change);
  return {
    adopted: [...adopted],
    records,
    changes: [...changes].map(([id, location]) => ({ id, location })),
    states: [...states.values()],
  };
}

async function locationsOf(
  { index }: LoadedPacks,
  all: readonly Change[],
): Promise<Map<BlockId, Location | undefined>> {
  const ids = [...new Set(all.map(({ id }) => id))];
  const [only] = ids;
  if (only !== undefined && ids.length === 1) return new Map([[only, index.get(only)]]);
  const locations = await index.getMany(ids);
  return new Map(ids.map((id, at) => [id, locations[at]]));
}
