// What ./setup asks on a terminal, and how it shows a new owner the recovery phrase once and makes sure it was written down.
import { randomInt } from 'node:crypto';
import { isCancel, log, select, text } from '@clack/prompts';
import { DezentError } from '../errors.ts';
import { phraseText } from './init.ts';
import { parseWhole } from './numbers.ts';
import type { SetupLine } from './setup.ts';

const PORT = { name: 'the port', least: 0, most: 65_535 };

/** Asks for folder, port and group; what was given as an option is the suggestion. */
export async function askWhatIsMissing(folder: string, given: SetupLine): Promise<{ folder: string; line: SetupLine }> {
  const chosen = answered(
    await text({
      message: 'Which folder shall be kept?',
      initialValue: folder,
      validate: (value) => ((value ?? '') === '' ? 'A folder is needed.' : undefined),
    }),
  );
  const port = answered(
    await text({ message: 'Which TCP port is for the peers?', initialValue: String(given.port), validate: isPort }),
  );
  const line = { ...given, port: Number(port) };
  if (given.invite !== undefined || given.phraseFile !== undefined) return { folder: chosen, line };
  const group = answered(
    await select({
      message: 'Is there a group already?',
      options: [
        { value: 'new', label: 'No, start a new one', hint: 'invite others later with: dezent invite' },
        { value: 'join', label: 'Yes, I have an invite' },
      ],
    }),
  );
  if (group === 'new') return { folder: chosen, line };
  const invite = answered(
    await text({
      message: 'Paste the invite',
      validate: (value) =>
        value?.trim().startsWith('dezent-invite-') === true ? undefined : 'An invite begins with dezent-invite-.',
    }),
  );
  return { folder: chosen, line: { ...line, invite: invite.trim() } };
}

/** Shows the phrase once, then asks two of its words back until they are right. */
export async function showPhrase(phrase: string): Promise<void> {
  process.stdout.write(`\n${phraseText(phrase)}\n\n`);
  const words = phrase.split(' ');
  const first = randomInt(words.length - 1);
  for (const index of [first, randomInt(first + 1, words.length)]) {
    answered(
      await text({
        message: `To be sure it is written down: what is word ${index + 1}?`,
        validate: (value) =>
          value?.trim().toLowerCase() === words[index] ? undefined : 'Not that word; look at what you wrote down.',
      }),
    );
  }
  log.success('The phrase is yours now. It is stored nowhere on this machine.');
}

function isPort(value: string | undefined): string | undefined {
  try {
    parseWhole(value ?? '', PORT);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

function answered<T>(value: T): Exclude<T, symbol> {
  if (isCancel(value)) throw new DezentError('CANCELLED', 'setup was cancelled; run it again when you like');
  return value as Exclude<T, symbol>;
}
