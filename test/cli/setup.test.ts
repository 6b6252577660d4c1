import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openPhraseFile } from '../../src/cli/phrase-file.ts';
import { MAIN, newDir } from './cli-process.ts';

const SETUP = fileURLToPath(new URL('../../setup', import.meta.url));
/** As root the owner is daemon, an account that every Linux has and that owns nothing. */
const IS_ROOT = process.getuid?.() === 0;
const OWNER_UID = IS_ROOT ? 1 : Number(process.getuid?.());

interface Ran {
  status: number | null;
  stdout: string;
  stderr: string;
}

function setup(top: string, line: readonly string[]): Ran {
  const { DEZENT_HOME: _home, ...rest } = process.env;
  const env = {
    ...rest,
    HOME: join(top, 'me'),
    XDG_DATA_HOME: '',
    XDG_CONFIG_HOME: join(top, 'me', '.config'),
    DESTDIR: join(top, 'dest'),
    SUDO_UID: '',
  };
  return spawnSync(SETUP, line, { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Everything below a directory with what would show a change. */
function snapshot(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .toSorted()
    .map((name) => [name, statSync(join(dir, name)).mtimeMs, statSync(join(dir, name)).size].join(' '));
}

test('unattended: device, phrase file, service definition; a second run changes nothing; uninstalling leaves files and keys', (t) => {
  const top = newDir(t, 'setup');
  mkdirSync(join(top, 'me'));
  const [folder, phrase] = [join(top, 'my files'), join(top, 'phrase.txt')];
  const line = [
    folder,
    '--yes',
    '--phrase-out',
    phrase,
    '--port',
    '18080',
    '--listen',
    '127.0.0.1',
    '--name',
    'setup test',
  ];
  const first = setup(top, line);
  assert.equal(first.status, 0, first.stderr);
  assert.equal(statSync(phrase).mode & 0o777, 0o600);
  const words = readFileSync(phrase, 'utf8').trim();
  assert.equal(words.split(' ').length, 24);
  assert.ok(!first.stdout.includes(words) && !first.stderr.includes(words));
  assert.match(first.stdout, /run the node yourself: .* run\n/);
  const before = snapshot(top);
  const second = setup(top, line);
  assert.equal(second.status, 0, second.stderr);
  assert.deepEqual(snapshot(top), before);
  assert.match(second.stdout, /has its device already/);
  const gone = setup(top, ['--uninstall']);
  assert.equal(gone.status, 0, gone.stderr);
  const left = snapshot(top).map((entry) => entry.split(' ')[0]);
  assert.ok(!left.some((name) => name?.endsWith('.service')));
  assert.ok(existsSync(join(top, 'me/.local/share/dezent/identity.json')));
  assert.ok(existsSync(join(top, 'me/.local/share/dezent/keys')));
  assert.ok(existsSync(folder));
});

test('everything belongs to the owner of the folder; as root that is somebody else, whose command line needs no root', (t) => {
  const top = newDir(t, 'setup-root');
  chmodSync(top, 0o755);
  const [folder, homes] = [join(top, 'files'), join(top, 'homes')];
  for (const dir of [folder, homes]) {
    mkdirSync(dir);
    if (IS_ROOT) chownSync(dir, OWNER_UID, OWNER_UID);
  }
  const home = join(homes, 'dezent');
  const ran = setup(top, [folder, '--home', home, '--yes', '--phrase-out', join(top, 'phrase.txt'), '--port', '18081']);
  assert.equal(ran.status, 0, ran.stderr);
  for (const name of readdirSync(home, { recursive: true, encoding: 'utf8' }))
    assert.equal(statSync(join(home, name)).uid, OWNER_UID, name);
  const asked = spawnSync(process.execPath, [MAIN, 'config', 'get', 'listen.port', '--home', home], {
    encoding: 'utf8',
    ...(IS_ROOT ? { uid: OWNER_UID, gid: OWNER_UID } : {}),
  });
  assert.equal(asked.stdout, '18081\n', asked.stderr);
  const path = /^Wrote (.*)\.$/m.exec(ran.stdout)?.[1] ?? '';
  const unit = readFileSync(path, 'utf8');
  assert.ok(unit.includes(`DEZENT_HOME=${home}`));
  assert.equal(/^User=daemon$/m.test(unit), IS_ROOT);
  assert.match(ran.stdout, IS_ROOT ? /run the node as daemon/ : /run the node yourself/);
});

test('what cannot be done is refused before anything is made', (t) => {
  const top = newDir(t, 'setup-bad');
  mkdirSync(join(top, 'me'));
  const folder = join(top, 'files');
  mkdirSync(folder);
  writeFileSync(join(top, 'file'), '');
  const cases: [string[], RegExp][] = [
    [[folder], /no terminal to ask on/],
    [[folder, '--yes'], /--phrase-out/],
    [[folder, '--yes', '--phrase-out', join(top, 'file')], /exists already/],
    [[join(top, 'file'), '--yes', '--phrase-out', join(top, 'p')], /not a folder/],
    [[folder, '--yes', '--port', '99999', '--phrase-out', join(top, 'p')], /--port cannot be "99999"/],
    [[folder, '--nonsense'], /unknown option '--nonsense'/],
  ];
  for (const [line, message] of cases) {
    const { status, stderr } = setup(top, line);
    assert.match(stderr, message);
    assert.ok(status !== 0);
  }
  assert.deepEqual(readdirSync(join(top, 'me')), []);
  assert.ok(!existsSync(join(top, 'p')));
});

test('the phrase file never overwrites, follows no link, and goes when nothing was kept', (t) => {
  const top = newDir(t, 'phrase');
  const path = join(top, 'phrase');
  openPhraseFile(path).close();
  assert.ok(!existsSync(path));
  symlinkSync(join(top, 'elsewhere'), path);
  assert.throws(() => openPhraseFile(path), { code: 'NAME_TAKEN' });
  const kept = openPhraseFile(join(top, 'kept'));
  kept.keep('one two');
  kept.close();
  assert.equal(readFileSync(join(top, 'kept'), 'utf8'), 'one two\n');
  assert.equal(statSync(join(top, 'kept')).mode & 0o777, 0o600);
});
