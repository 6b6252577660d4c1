import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { machineIdOf } from '../../../src/node/home/machine-id.ts';
import { seedOf } from '../../suites/people.ts';

const groupId = seedOf('group');

async function newHome(t: TestContext): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'dezent-machine-'));
  t.after(() => rm(home, { recursive: true }));
  return home;
}

test('nodes on one machine have one id in a group, and another in another', async (t) => {
  const home = await newHome(t);
  const other = await newHome(t);
  const file = join(home, 'machine');
  await writeFile(file, '0123456789abcdef0123456789abcdef\n');
  const id = await machineIdOf({ groupId, home, files: [file] });
  assert.match(id, /^[a-z2-7]{26}$/);
  assert.equal(await machineIdOf({ groupId, home: other, files: ['/none', file] }), id);
  assert.notEqual(await machineIdOf({ groupId: seedOf('other'), home, files: [file] }), id);
});

test('a given machine counts as it says, and never as the system', async (t) => {
  const home = await newHome(t);
  const one = await machineIdOf({ groupId, home, override: 'one' });
  assert.equal(await machineIdOf({ groupId, home: '/none', override: 'one' }), one);
  assert.notEqual(await machineIdOf({ groupId, home, override: 'two' }), one);
  const file = join(home, 'machine');
  await writeFile(file, 'one');
  assert.notEqual(await machineIdOf({ groupId, home, files: [file] }), one);
});

test('a system without an id gets a random one that stays with the home', async (t) => {
  const home = await newHome(t);
  const file = join(home, 'uninitialized');
  await writeFile(file, 'uninitialized\n');
  const files = ['/none', file];
  const id = await machineIdOf({ groupId, home, files });
  assert.equal(await machineIdOf({ groupId, home, files }), id);
  assert.notEqual(await machineIdOf({ groupId, home: await newHome(t), files }), id);
});

test('this system has an id', async (t) => {
  assert.match(await machineIdOf({ groupId, home: await newHome(t) }), /^[a-z2-7]{26}$/);
});
