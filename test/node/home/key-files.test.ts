import assert from 'node:assert/strict';
import {
  chmod,
  link,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { inspect } from 'node:util';
import { createKeys, openKeys } from '../../../src/node/home/key-files.ts';
import { signingKeyFromSeed } from '../../../src/protocol/signature.ts';

const refused = { code: 'KEYS' };

async function newHome(t: TestContext): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'dezent-keys-'));
  t.after(() => rm(home, { recursive: true }));
  return home;
}

test('keys are made for this user alone and are the same when opened', async (t) => {
  const home = await newHome(t);
  const made = await createKeys(home);
  const opened = await openKeys(home);
  assert.deepEqual(opened.device.publicKey, made.device.publicKey);
  assert.deepEqual(opened.box.publicKey, made.box.publicKey);
  assert.deepEqual(signingKeyFromSeed(opened.device.seed).publicKey, made.device.publicKey);
  assert.deepEqual(Buffer.from(opened.device.seed), await readFile(join(home, 'keys/device.key')));
  assert.equal((await stat(join(home, 'keys'))).mode & 0o777, 0o700);
  for (const name of ['device.key', 'box.key']) {
    const { mode, size } = await stat(join(home, 'keys', name));
    assert.deepEqual([mode & 0o777, size], [0o600, 32]);
  }
  assert.deepEqual(await readdir(home), ['keys']);
});

test('keys are never made over others', async (t) => {
  const home = await newHome(t);
  const { device } = await createKeys(home);
  await assert.rejects(createKeys(home), refused);
  assert.deepEqual((await openKeys(home)).device.publicKey, device.publicKey);
  assert.deepEqual(await readdir(home), ['keys']);
});

test('what is missing, wider, cut, too long or a link is refused', async (t) => {
  const home = await newHome(t);
  await assert.rejects(openKeys(home), refused);
  await createKeys(home);
  const key = join(home, 'keys/box.key');
  const whole = await readFile(key);
  const spoil: [what: string, how: () => Promise<unknown>][] = [
    ['group may read it', () => chmod(key, 0o640)],
    ['others may read it', () => chmod(key, 0o604)],
    ['directory open to others', () => chmod(join(home, 'keys'), 0o701)],
    ['cut', () => truncate(key, 31)],
    ['too long', () => writeFile(key, Buffer.concat([whole, whole]))],
    ['missing', () => rm(key)],
    ['a link', () => rename(key, `${key}.real`).then(() => symlink(`${key}.real`, key))],
    ['a directory', () => rm(key).then(() => mkdir(key, { mode: 0o700 }))],
  ];
  for (const [what, how] of spoil) {
    await rm(key, { recursive: true, force: true });
    await writeFile(key, whole, { mode: 0o600 });
    await chmod(join(home, 'keys'), 0o700);
    await openKeys(home);
    await how();
    await assert.rejects(openKeys(home), refused, what);
  }
});

test('a link in place of the directory is refused', async (t) => {
  const home = await newHome(t);
  await createKeys(home);
  await rename(join(home, 'keys'), join(home, 'elsewhere'));
  await symlink(join(home, 'elsewhere'), join(home, 'keys'));
  await assert.rejects(openKeys(home), refused);
});

test('a home whose parent is missing is an error of the system, not of the keys', async (t) => {
  const home = await newHome(t);
  await assert.rejects(createKeys(join(home, 'none')), { code: 'ENOENT' });
});

test('keys show no secret when printed or encoded', async (t) => {
  const home = await newHome(t);
  const keys = await createKeys(home);
  const shown = inspect(keys, { depth: Infinity, showHidden: true }) + JSON.stringify(keys);
  for (const name of ['device.key', 'box.key']) {
    const secret = await readFile(join(home, 'keys', name));
    for (const form of [
      secret.toString('hex'),
      secret.toString('base64'),
      [...secret.subarray(0, 6)].join(', '),
      [...secret.subarray(0, 6)].map((byte, at) => `"${at}":${byte}`).join(','),
    ])
      assert.equal(shown.includes(form), false, name);
  }
  assert.deepEqual(Object.keys({ ...keys.device }), ['publicKey', 'sign']);
});

test('a second name for a key file does not matter', async (t) => {
  const home = await newHome(t);
  await createKeys(home);
  await link(join(home, 'keys/box.key'), join(home, 'backup'));
  await openKeys(home);
});
