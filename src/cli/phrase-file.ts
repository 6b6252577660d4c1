// The file a new recovery phrase is written to: made before the phrase exists, so that no phrase is ever without its place.
import { closeSync, fsyncSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { DezentError, systemCode } from '../errors.ts';

export interface PhraseFile {
  /** Writes the phrase durably and returns the path. */
  keep(phrase: string): string;
  /** Closes the file, and removes it when nothing was kept. */
  close(): void;
}

/** Creates the file, readable by its owner alone; throws NAME_TAKEN when anything has the name, links included (O_EXCL). */
export function openPhraseFile(path: string): PhraseFile {
  const file = createFile(path);
  let isKept = false;
  return {
    keep(phrase) {
      writeSync(file, `${phrase}\n`);
      fsyncSync(file);
      isKept = true;
      return path;
    },
    close() {
      closeSync(file);
      if (!isKept) unlinkSync(path);
    },
  };
}

function createFile(path: string): number {
  try {
    return openSync(path, 'wx', 0o600);
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error;
    throw new DezentError('NAME_TAKEN', `${path} exists already; the phrase does not overwrite anything`, {
      hint: 'Name another file.',
      cause: error,
    });
  }
}
