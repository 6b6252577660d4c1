// Provider records of manifests in the DHT, within a daily budget: one costs 9–29 ms of CPU here and at the peers, 178–461 s per 10,000.
// The newest manifests go first; filed ones are repeated before they expire (kad-dht: 48 h), and the oldest make room for new ones.
import type { BlockId } from '../../store/block.ts';
import { readSound } from '../home/sound-table.ts';
import { openTable, type StateDb } from '../home/state.ts';

/** design.md §4, Announcing. */
export const PROVIDER_BUDGET_PER_DAY = 10_000;
const DAY_MS = 24 * 60 * 60 * 1000;
/** Before kad-dht's own sweep would repeat them (24 h before they expire). */
const REPEAT_AFTER_MS = 22 * 60 * 60 * 1000;
/** Between two records, so that filing thousands stays unnoticed: at most about a third of one core. */
const GAP_MS = 50;
/** After a failure, and while there is nothing to do. */
const IDLE_MS = 60_000;
const PROVIDE_TIMEOUT_MS = 60_000;

interface Filing {
  addedAt: number;
  /** 0: not yet. */
  filedAt: number;
}

export interface ProvideQueueNeeds {
  db: StateDb;
  provide(id: BlockId, signal: AbortSignal): Promise<void>;
  withdraw(id: BlockId): Promise<void>;
  /** Without a peer a record would stay here. */
  hasPeers(): boolean;
  now(): number;
  onError(error: unknown): void;
}

export interface ProvideQueue extends AsyncDisposable {
  add(ids: Iterable<BlockId>): void;
  /** A peer has come: there may be something to do. */
  wake(): void;
}

export async function openProvideQueue(
  needs: ProvideQueueNeeds,
  budgetPerDay: number = PROVIDER_BUDGET_PER_DAY,
): Promise<ProvideQueue> {
  const table = openTable<Filing>(needs.db, 'provided');
  const budget = openTable<{ day: number; used: number }>(needs.db, 'provide-budget');
  const filings: Map<BlockId, Filing> = new Map(
    [...(await readSound(table))].map(([id, filing]) => [id as BlockId, filing]),
  );
  let spent = (await readSound(budget)).get('spent') ?? { day: 0, used: 0 };
  const stopping = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> | undefined;
  let writing: Promise<void> = Promise.resolve();

  const write = async (id: BlockId, filing: Filing): Promise<void> => {
    filings.set(id, filing);
    await table.put(id, filing);
  };
  /** Those that are too many go, the oldest first. */
  const makeRoom = async (): Promise<void> => {
    for (const [id, { filedAt }] of oldest(filings, filings.size - budgetPerDay)) {
      filings.delete(id);
      await table.del(id);
      if (filedAt > 0) await needs.withdraw(id);
    }
  };
  const fileOne = async (): Promise<boolean> => {
    const day = Math.floor(needs.now() / DAY_MS);
    if (spent.day !== day) spent = { day, used: 0 };
    await makeRoom();
    const next = spent.used < budgetPerDay && needs.hasPeers() ? nextOf(filings, needs.now()) : undefined;
    if (next === undefined) return false;
    const [id, filing] = next;
    spent = { day, used: spent.used + 1 };
    await budget.put('spent', spent);
    await needs.provide(id, AbortSignal.any([stopping.signal, AbortSignal.timeout(PROVIDE_TIMEOUT_MS)]));
    await write(id, { ...filing, filedAt: needs.now() });
    return true;
  };
  const round = async (): Promise<void> => {
    let more = false;
    try {
      more = await fileOne();
    } catch (error) {
      if (!stopping.signal.aborted) needs.onError(error);
    }
    running = undefined;
    schedule(more ? GAP_MS : IDLE_MS);
  };
  const schedule = (delayMs: number): void => {
    if (stopping.signal.aborted || running !== undefined) return;
    clearTimeout(timer);
    timer = setTimeout(() => {
      running = round();
    }, delayMs);
  };

  schedule(0);
  return {
    add(ids) {
      const fresh = [...new Set(ids)].filter((id) => !filings.has(id));
      for (const id of fresh) filings.set(id, { addedAt: needs.now(), filedAt: 0 });
      const writes = fresh.map((key) => ({ type: 'put' as const, key, value: { addedAt: needs.now(), filedAt: 0 } }));
      writing = writing.then(() => table.batch(writes)).catch(needs.onError);
      schedule(0);
    },
    wake: () => schedule(0),
    async [Symbol.asyncDispose]() {
      stopping.abort();
      clearTimeout(timer);
      await running;
      await writing;
    },
  };
}

/** The newest that was never filed, else the one whose record is the oldest and due. */
function nextOf(filings: ReadonlyMap<BlockId, Filing>, now: number): [BlockId, Filing] | undefined {
  let best: [BlockId, Filing] | undefined;
  for (const [id, filing] of filings) {
    const due = filing.filedAt === 0 || now - filing.filedAt > REPEAT_AFTER_MS;
    if (due && (best === undefined || goesBefore(filing, best[1]))) best = [id, filing];
  }
  return best;
}

function goesBefore(a: Filing, b: Filing): boolean {
  if (a.filedAt === 0 && b.filedAt === 0) return a.addedAt > b.addedAt;
  return a.filedAt < b.filedAt;
}

function oldest(filings: ReadonlyMap<BlockId, Filing>, count: number): [BlockId, Filing][] {
  if (count <= 0) return [];
  return [...filings].toSorted(([, a], [, b]) => a.addedAt - b.addedAt).slice(0, count);
}
