// Recovery at start: every operation that the journal knows is undone or completed. What the journal does not know stays where it is and is
// said; nothing is deleted on a guess.
import { quarantineIds } from './swap.ts';
import type { Folder } from './folder.ts';
import type { Journal } from './journal.ts';
import type { PathLocks } from './path-locks.ts';
import type { Quarantine } from './quarantine.ts';
import type { Restore } from './restore.ts';
import type { Warnings } from './warnings.ts';

export interface RecoverNeeds {
  folder: Folder;
  journal: Journal;
  locks: PathLocks;
  quarantine: Quarantine;
  restore: Restore;
  warnings: Warnings;
  onRecovered(what: { op: string; path: string }): void;
}

export async function recoverFiles({
  folder,
  journal,
  locks,
  quarantine,
  restore,
  warnings,
  onRecovered,
}: RecoverNeeds): Promise<void> {
  for await (const record of journal.all()) {
    if (record.op === 'restore') {
      await restore.settle(record);
      onRecovered({ op: record.op, path: record.target });
    } else if (record.step === 'intent') {
      await locks.run(record.path, () => quarantine.settle(record));
      onRecovered({ op: record.op, path: record.path });
    } else if ((await locks.run(record.path, () => quarantine.resume(record))) !== 'waits') {
      onRecovered({ op: record.op, path: record.path });
    }
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
