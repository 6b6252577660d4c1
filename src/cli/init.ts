// init: home, keys and config of this device: alone, in somebody's group by invite, or as an owner's next device by phrase.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { text as textOf } from 'node:stream/consumers';
import type { Command } from 'commander';
import { DezentError, systemCode } from '../errors.ts';
import type { InitOptions, InitValue } from '../node/control/control-api.ts';
import { cliOf, collect, declare } from './command.ts';
import { whole } from './numbers.ts';
import { safeText } from './text.ts';

export interface InitLine {
  port: number;
  listen?: string[];
  name?: string;
  machine?: string;
  invite?: string;
  phraseFile?: string;
  peer?: string[];
  copiesMin: number;
  copiesTarget: number;
}

const PORT = { name: '--port', least: 0, most: 65_535 };
const copies = (name: string): ReturnType<typeof whole> => whole({ name, least: 0, most: 50 });
/** 24 words of at most 8 letters; more is another file. */
const MAX_PHRASE_CHARS = 1024;

/** The options that `init` and `setup` share. */
export function addInitOptions(command: Command): Command {
  return command
    .option('--port <n>', 'TCP port for peers; 0: any free one', whole(PORT), 8080)
    .option('--listen <ip>', 'listen only on this address (repeats)', collect)
    .option('--name <name>', "what others call this device (default: the machine's name)")
    .option(
      '--machine <id>',
      "instead of the machine's own identity: nodes on one machine that shall count as distinct",
    )
    .option('--invite <code>', 'join the group of the device that made this code')
    .option('--phrase-file <file>', "with --invite or --peer: this is the phrase owner's next device (- reads stdin)")
    .option('--peer <multiaddr>', "a device of the owner's own group, ending in /p2p/ID (repeats)", collect)
    .option(
      '--copies-min <n>',
      'copies on other machines before a file gives its space back',
      copies('--copies-min'),
      2,
    )
    .option('--copies-target <n>', 'copies that repair restores', copies('--copies-target'), 3);
}

export function defineInit(program: Command): void {
  const command = declare(program, {
    usage: 'init <folder>',
    summary: 'make this device: home, keys and config for a folder',
    examples: [
      'dezent init ~/files',
      'dezent init ~/files --invite dezent-invite-1…',
      'dezent init ~/files --phrase-file phrase.txt --peer /ip4/192.0.2.7/tcp/8080/p2p/12D3Koo…',
    ],
  });
  addInitOptions(command).action(async (folder: string, line: InitLine, self: Command) => {
    const cli = cliOf(self);
    const { initHome } = await import('../node/init.ts');
    const made = await initHome(await initOptions(cli.home, folder, line));
    cli.answer(made, () => initText(made));
  });
}

async function initOptions(home: string, folder: string, line: InitLine): Promise<InitOptions> {
  const { port, listen = [], name, machine, invite, phraseFile, peer = [], copiesMin, copiesTarget } = line;
  if (peer.length > 0 && phraseFile === undefined)
    throw new DezentError('USAGE', '--peer reaches your own group: it needs --phrase-file too');
  if (phraseFile !== undefined && invite === undefined && peer.length === 0) {
    throw new DezentError('USAGE', '--phrase-file needs --peer or --invite: a device of the group to ask');
  }
  if (copiesTarget < copiesMin)
    throw new DezentError('USAGE', `--copies-target ${copiesTarget} would be less than --copies-min ${copiesMin}`);
  return {
    home,
    folder: resolve(folder),
    port,
    listen,
    ...(name === undefined ? {} : { name }),
    ...(machine === undefined ? {} : { machine }),
    ...(invite === undefined ? {} : { invite: invite.trim() }),
    ...(phraseFile === undefined ? {} : { phrase: await readPhrase(phraseFile) }),
    peers: peer,
    copiesMin,
    copiesTarget,
  };
}

async function readPhrase(file: string): Promise<string> {
  const text = file === '-' ? await textOf(process.stdin) : await readPhraseFile(file);
  const words = text.trim().split(/\s+/).join(' ');
  if (words.length > MAX_PHRASE_CHARS) throw new DezentError('BAD_PHRASE', `${file} holds more than a phrase`);
  return words;
}

async function readPhraseFile(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT')
      throw new DezentError('NOT_FOUND', `there is no phrase file ${file}`, { cause: error });
    throw error;
  }
}

/** True once `init` has finished for this home (its last file is there). */
export function isInitialised(home: string): boolean {
  return existsSync(join(home, 'identity.json'));
}

function initText({ deviceId, folder, port, phrase }: InitValue): string {
  const made = `This device is ${deviceId}, for ${safeText(folder)}, port ${port}.`;
  const next = 'Start it with:  dezent run\n(or as a service:  dezent service install)';
  return phrase === undefined ? `${made}\n\n${next}` : `${made}\n\n${phraseText(phrase)}\n\n${next}`;
}

/** The phrase as numbered words in four columns, with what it is for. */
export function phraseText(phrase: string): string {
  const words = phrase.split(' ').map((word, index) => `${String(index + 1).padStart(2)} ${word}`.padEnd(14));
  const rows = Array.from(
    { length: Math.ceil(words.length / 4) },
    (_, row) =>
      `  ${words
        .slice(row * 4, row * 4 + 4)
        .join('')
        .trimEnd()}`,
  );
  return [
    'YOUR RECOVERY PHRASE. Write it down now: it is shown once and stored nowhere.',
    'Whoever has it can read all your files; without it nobody can bring them back when your devices are lost.',
    '',
    ...rows,
  ].join('\n');
}
