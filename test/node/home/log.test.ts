import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { DezentError } from '../../../src/errors.ts';
import { openLog, type LogReader } from '../../../src/node/home/log.ts';
import { openLogFile } from '../../../src/node/home/log-file.ts';
import { logPath, logPaths } from '../../../src/node/home/log-path.ts';

function newHome(context: TestContext): string {
  const home = mkdtempSync(join(tmpdir(), 'dezent-log-'));
  context.after(() => rmSync(home, { recursive: true }));
  return home;
}

function reader(options: { isTTY?: boolean; writableLength?: number } = {}): LogReader & { text(): string } {
  const lines: string[] = [];
  return {
    isTTY: options.isTTY ?? false,
    writableLength: options.writableLength ?? 0,
    write: (line) => lines.push(line) > 0,
    text: () => lines.join(''),
  };
}

const PHRASE =
  'abandon ability able about above absent absorb abstract absurd abuse access accident account accuse achieve acid acoustic acquire across act action actor actress actual';

test('a record is one JSON line with time, level, fields and words, in the file and on stderr', (t) => {
  const home = newHome(t);
  const stderr = reader();
  const log = openLog(home, { level: 'info', stderr });
  log.info({ direction: 'upload', path: 'a b.txt', peer: 'laptop', bytes: 12 }, 'sent');
  log.debug({}, 'not wanted');
  log.flush();
  const text = readFileSync(logPath(home), 'utf8');
  assert.equal(text, stderr.text());
  const { time, ...rest } = JSON.parse(text) as Record<string, unknown>;
  assert.match(String(time), /^\d{4}-\d\d-\d\dT/);
  assert.deepEqual(rest, {
    level: 'info',
    direction: 'upload',
    path: 'a b.txt',
    peer: 'laptop',
    bytes: 12,
    msg: 'sent',
  });
  assert.equal(statSync(logPath(home)).mode & 0o777, 0o600);
});

test('no secret reaches the log, by name, by shape, or as bytes', (t) => {
  const home = newHome(t);
  const log = openLog(home, { level: 'info', stderr: reader() });
  const key = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
  const cause = new Error(`deep: dezent-invite-1-abcdefgh234567`);
  log.info(
    { options: { phrase: PHRASE, recoveryPhrase: PHRASE, keys: [key], bytes: key, list: [key] } },
    `got ${PHRASE} and dezent-invite-1-qqqqq`,
  );
  log.error(
    { error: new DezentError('INVITE', `no: ${PHRASE}`, { cause }), deviceSeed: key.toString('hex'), text: PHRASE },
    'failed',
  );
  log.flush();
  const text = readFileSync(logPath(home), 'utf8');
  for (const secret of ['abandon', 'actual', 'abcdefgh2', 'qqqqq', '00112233', '[0,17', key.toString('base64')]) {
    assert.ok(!text.includes(secret), `${secret} in ${text}`);
  }
  assert.match(text, /\[16 bytes\]/);
  assert.match(text, /"code":"INVITE"/);
});

test('an ordinary sentence is not taken for a phrase', (t) => {
  const home = newHome(t);
  const log = openLog(home, { level: 'info', stderr: reader() });
  log.info({ path: 'notes/on the way to the sea.txt' }, 'the file is kept by two devices and its space is given back');
  log.flush();
  assert.doesNotMatch(readFileSync(logPath(home), 'utf8'), /secret/);
});

test('on a terminal it is readable, and a reader that does not read loses lines, not the file', (t) => {
  const home = newHome(t);
  const terminal = reader({ isTTY: true });
  openLog(home, { level: 'info', stderr: terminal }).info({ path: 'x' }, 'stored');
  assert.match(terminal.text(), /INFO.*stored/);
  assert.throws(() => JSON.parse(terminal.text()) as unknown);
  const stuck = reader({ writableLength: 2 ** 21 });
  const log = openLog(home, { level: 'info', stderr: stuck });
  log.info({}, 'still here');
  log.flush();
  assert.equal(stuck.text(), '');
  assert.match(readFileSync(logPath(home), 'utf8'), /still here/);
});

test('the file is capped; one older file stays', (t) => {
  const home = newHome(t);
  const file = openLogFile(home, (error) => assert.fail(error), 1000);
  for (let index = 0; index < 100; index += 1) file.write(`${JSON.stringify({ index, pad: 'x'.repeat(80) })}\n`);
  file.flush();
  const [older, newer] = logPaths(home).map((path) => readFileSync(path, 'utf8'));
  assert.ok(older !== undefined && newer !== undefined);
  assert.ok(older.length <= 2200 && newer.length <= 2200);
  assert.match(newer, /"index":99,/);
  const kept = `${older}${newer}`
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { index: number }).index);
  assert.deepEqual(
    kept,
    Array.from({ length: kept.length }, (_, offset) => 100 - kept.length + offset),
  );
});

test('a disk that refuses the log is told on stderr and stops nothing', (t) => {
  const failures: string[] = [];
  const home = newHome(t);
  const file = openLogFile(home, (error) => failures.push(error.message), 10);
  rmSync(join(home, 'log'), { recursive: true });
  file.write('something longer than ten bytes\n');
  file.flush();
  assert.ok(failures.length > 0);
});
