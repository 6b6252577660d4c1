// Recovery at start: every operation that the journal knows is undone or completed. What the journal does not know stays where it is and is
// said; nothing is deleted on a guess.
import { quarantineIds } from './swap.ts';
import type { Folder } from '../files/folder.ts';
import type { Journal, JournalRecord } from './journal.ts';
import type { LayOut } from './lay-out.ts';
import type { PathLocks } from '../files/path-locks.ts';
import type { Quarantine } from './quarantine.ts';
import type { Restore } from './restore.ts';
import type { Warnings } from '../home/warnings.ts';

export interface RecoverNeeds {
  folder: Folder;
  journal: Journal;
  locks: PathLocks;
  quarantine: Quarantine;
  restore: Restore;
  layOut: LayOut;
  warnings: Warnings;
  onRecovered(what: { op: string; path: string }): void;
}

export async function recoverFiles({
  folder,
  journal,
  locks,
  quarantine,
  restore,
  layOut,
  warnings,
  onRecovered,
}: RecoverNeeds): Promise<void> {
  // What leaves temporary files alone comes last: an interrupted restore knows its own by them.
  const records = journal.all().sort((a, b) => Number(a.op === 'lay-out') - Number(b.op === 'lay-out'));
  for (const record of records) {
    try {
      const path = await recoverOne(record);
      if (path !== undefined) onRecovered({ op: record.op, path });
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      warnings.raise(
        `recover:${record.id}`,
        `an interrupted ${record.op} could not be settled and is tried at the next start: ${why}`,
      );
    }
  }

  /** The path, when there was something to do. */
  async function recoverOne(record: JournalRecord): Promise<string | undefined> {
    if (record.op === 'lay-out') {
      await layOut.settle(record);
      return record.root;
    }
    if (record.op === 'restore') {
      await restore.settle(record);
      return record.target;
    }
    if (record.step === 'intent') {
      await locks.run(record.path, () => quarantine.settle(record));
      return record.path;
    }
    return (await locks.run(record.path, () => quarantine.resume(record))) === 'waits' ? undefined : record.path;
  }

  const known = new Set([...journal.offloads()].map(({ id }) => id));
  const unknown = (await quarantineIds(await folder.quarantine())).filter((id) => !known.has(id));
  if (unknown.length > 0) {
    warnings.raise(
      'quarantine',
      `${unknown.length} originals lie in ${await folder.quarantine()} that the journal does not know; they stay there until you take them`,
    );
  }
}
