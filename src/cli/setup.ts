// What ./setup runs once Node is there: asks or takes options, makes the device, installs the service. A second run changes nothing.
// As root everything is done as the owner of the folder, so that home, keys and socket are theirs and the CLI needs no root.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { Command, CommanderError } from 'commander';
import { DezentError, ERROR_CODES, asDezentError, type ErrorCode } from '../errors.ts';
import type { InitValue } from '../node/control/control-api.ts';
import { accountOf, type Account } from './accounts.ts';
import { dataHome } from './home.ts';
import { addInitOptions, isInitialised, type InitLine } from './init.ts';
import { printError } from './output.ts';
import { openPhraseFile } from './phrase-file.ts';
import { entryFile, folderOf, installService, planService, runLine, uninstallService } from './service-install.ts';
import { askWhatIsMissing, showPhrase } from './setup-questions.ts';

export interface SetupLine extends InitLine {
  home?: string;
  yes?: boolean;
  phraseOut?: string;
  uninstall?: boolean;
}

/** Who the node will run as; undefined: whoever runs setup. */
type Actor = Account | undefined;

process.exitCode = await main(process.argv.slice(2));

async function main(line: string[]): Promise<number> {
  const command = addInitOptions(
    new Command('setup').argument('[folder]', 'the folder to keep (made when it is not there)'),
  )
    .description('Sets this machine up: the device, its keys, and the service that runs it.')
    .option('--home <dir>', 'keys, store and config (default: the data directory of the owner of the folder)')
    .option('--yes', 'ask nothing; take the defaults for what is not given')
    .option(
      '--phrase-out <file>',
      'where the recovery phrase of a new owner is written (must not exist yet; mode 0600)',
    )
    .option('--uninstall', 'stop and remove the service; files and keys stay')
    .exitOverride()
    .configureOutput({ outputError: () => undefined })
    .addHelpText(
      'after',
      '\nExamples:\n  $ ./setup\n  $ ./setup ~/files --yes --phrase-out ~/phrase.txt\n  $ ./setup --uninstall',
    );
  try {
    command.parse(line, { from: 'user' });
    const options = command.opts<SetupLine>();
    if (options.uninstall === true) uninstall();
    else await setUp(command.args[0], options);
    return 0;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    const known =
      error instanceof CommanderError
        ? new DezentError('USAGE', error.message.replace(/^error: /, ''), { hint: 'See ./setup --help.' })
        : asDezentError(error);
    return printError(known, { json: false, color: process.stderr.isTTY });
  }
}

function uninstall(): void {
  const { removed, path } = uninstallService();
  say(removed ? `Removed ${path}. Your files and keys are where they were.` : 'No service is installed.');
}

async function setUp(folderGiven: string | undefined, given: SetupLine): Promise<void> {
  const silent = given.yes === true || !process.stdin.isTTY;
  if (silent && given.yes !== true)
    throw new DezentError('USAGE', 'there is no terminal to ask on; give --yes and the options that differ');
  const userDir = personOf(undefined)?.homeDir ?? homedir();
  const suggested = folderGiven ?? join(userDir, 'dezent');
  const before = knownHome(given, suggested);
  const { folder: named, line } =
    silent || before !== undefined ? { folder: suggested, line: given } : await askWhatIsMissing(suggested, given);
  const folder = before !== undefined && folderGiven === undefined ? folderOf(before) : resolve(named);
  const actor = makeFolder(folder);
  const home = before ?? homeFor(line, actor);
  if (isInitialised(home)) refuseOtherFolder(home, folder);
  else await makeDevice({ folder, home, line, actor, silent });
  const planned = planService(home);
  const { changed, started, hint } = installService(planned);
  say(changed ? `Wrote ${planned.path}.` : `${planned.path} is as it should be.`);
  if (started) say('The node runs.');
  if (hint !== '') say(started ? hint : runHint(hint, home, actor));
}

/** The home that an earlier setup made, if this run is about the same one. */
function knownHome(given: SetupLine, folder: string): string | undefined {
  const actor = existsSync(folder) ? personOf(statSync(folder).uid) : personOf(undefined);
  const home = homeFor(given, actor);
  return isInitialised(home) ? home : undefined;
}

function homeFor({ home }: SetupLine, actor: Actor): string {
  const named = home ?? (process.env['DEZENT_HOME'] === '' ? undefined : process.env['DEZENT_HOME']);
  if (named !== undefined) return resolve(named);
  return actor === undefined ? dataHome(process.env, homedir()) : dataHome({}, actor.homeDir);
}

/** The account to act as: for root, the owner of the folder, or who called sudo; else undefined. */
function personOf(ownerUid: number | undefined): Actor {
  if (process.getuid?.() !== 0) return undefined;
  const uid = ownerUid ?? Number(process.env['SUDO_UID'] ?? 0);
  return uid === 0 ? undefined : accountOf(uid);
}

/** Makes the folder where it is missing, as the one who will own it; returns who to act as from here on. */
function makeFolder(folder: string): Actor {
  if (!existsSync(folder)) {
    const person = personOf(undefined);
    const made = runAs(person, ['-e', 'require("node:fs").mkdirSync(process.argv[1], { recursive: true })', folder]);
    if (made.status !== 0)
      throw new DezentError('FOLDER', `${folder} cannot be made${person === undefined ? '' : ` by ${person.name}`}`);
    say(`Made ${folder}.`);
  }
  if (!statSync(folder).isDirectory()) throw new DezentError('FOLDER', `${folder} is not a folder`);
  return personOf(statSync(folder).uid);
}

interface Device {
  folder: string;
  home: string;
  line: SetupLine;
  actor: Actor;
  silent: boolean;
}

async function makeDevice({ folder, home, line, actor, silent }: Device): Promise<void> {
  const isNewOwner = line.phraseFile === undefined;
  if (isNewOwner && silent && line.phraseOut === undefined) {
    throw new DezentError('USAGE', 'the recovery phrase needs a place: --phrase-out FILE', {
      hint: 'It is the only way back to the files when all devices are lost.',
    });
  }
  const phraseFile = isNewOwner && line.phraseOut !== undefined ? openPhraseFile(resolve(line.phraseOut)) : undefined;
  try {
    const made = runInit({ folder, home, line, actor });
    say(`This device is ${made.deviceId}, for ${folder}, port ${made.port}.`);
    if (made.phrase === undefined) return;
    if (phraseFile === undefined) await showPhrase(made.phrase);
    else
      say(`The recovery phrase is in ${phraseFile.keep(made.phrase)}. Print it or copy it out, then delete the file.`);
  } finally {
    phraseFile?.close();
  }
}

/** `init` as the account; the phrase travels through a pipe, because the account may not be able to read the file. */
function runInit({ folder, home, line, actor }: Omit<Device, 'silent'>): InitValue {
  const { stdout, stderr, status } = runAs(
    actor,
    [entryFile(), ...initWords(folder, home, line)],
    phraseInput(line.phraseFile),
  );
  const answer = parseAnswer(stdout);
  if (status === 0 && answer !== undefined && 'deviceId' in answer) return answer;
  if (answer === undefined || !('error' in answer)) {
    const who = actor === undefined ? '' : ` as ${actor.name} (can that user read ${dirname(entryFile())}?)`;
    throw new DezentError('IO', `init could not run${who}: ${stderr.trim().slice(-500)}`);
  }
  const { code, message, hint } = answer.error;
  throw new DezentError(Object.hasOwn(ERROR_CODES, code) ? (code as ErrorCode) : 'INTERNAL', message, { hint });
}

function initWords(folder: string, home: string, line: SetupLine): string[] {
  const { port, listen = [], name, machine, invite, phraseFile, peer = [], copiesMin, copiesTarget } = line;
  const options: [string, string | number | undefined][] = [
    ['--home', home],
    ['--port', port],
    ['--name', name],
    ['--machine', machine],
    ['--invite', invite],
    ['--phrase-file', phraseFile === undefined ? undefined : '-'],
    ['--copies-min', copiesMin],
    ['--copies-target', copiesTarget],
    ...listen.map((ip): [string, string] => ['--listen', ip]),
    ...peer.map((address): [string, string] => ['--peer', address]),
  ];
  return [
    'init',
    '--json',
    ...options.flatMap(([key, value]) => (value === undefined ? [] : [key, String(value)])),
    '--',
    folder,
  ];
}

function phraseInput(file: string | undefined): string {
  if (file === undefined) return '';
  return readFileSync(file === '-' ? 0 : file, 'utf8');
}

type InitAnswer = InitValue | { error: { code: string; message: string; hint: string } };

function parseAnswer(text: string): InitAnswer | undefined {
  try {
    return JSON.parse(text) as InitAnswer;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Runs Node as the account (with its rights alone), and returns what it said. */
function runAs(
  actor: Actor,
  words: readonly string[],
  input = '',
): { status: number | null; stdout: string; stderr: string } {
  const { DEZENT_HOME: _home, ...own } = process.env;
  const env =
    actor === undefined
      ? own
      : { PATH: process.env['PATH'], LANG: process.env['LANG'], HOME: actor.homeDir, USER: actor.name };
  const identity = actor === undefined ? {} : { uid: actor.uid, gid: actor.gid, cwd: '/' };
  return spawnSync(process.execPath, words, { ...identity, env, input, encoding: 'utf8' });
}

function refuseOtherFolder(home: string, folder: string): void {
  const known = folderOf(home);
  if (known === folder) return say(`${home} has its device already, for ${folder}.`);
  throw new DezentError('CONFIG', `${home} keeps ${known}, not ${folder}`, {
    hint: 'Name another --home for a second folder.',
  });
}

function runHint(hint: string, home: string, actor: Actor): string {
  if (actor === undefined) return hint;
  return `No service manager runs here; run the node as ${actor.name}: runuser -u ${actor.name} -- ${runLine(home)}`;
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
