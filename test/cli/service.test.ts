import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { assert as check, property, string } from 'fast-check';
import { homeIn, launchdPlist, systemdUnit, windowsTask, type ServicePlan } from '../../src/cli/service-files.ts';
import { quoteWindows, systemdWord, unquoteSystemd, xmlText, xmlUnescape } from '../../src/cli/service-quoting.ts';
import { newDir, runCli } from './cli-process.ts';

const PLAN: ServicePlan = {
  folder: '/srv/ada/my files',
  home: '/home/ada/.local/share/dezent',
  command: ['/usr/bin/node', '/opt/dezent/src/cli/main.ts'],
  port: 8080,
  account: { name: 'ada', group: 'users', uid: 1000 },
};
const ODD = `/srv/50 % "of" $HOME/it's a \\ path/ü`;

function golden(name: string): string {
  return readFileSync(new URL(`../fixtures/${name}`, import.meta.url), 'utf8');
}

test('the definitions are the ones that were reviewed', () => {
  assert.equal(systemdUnit(PLAN), golden('dezent.service'));
  assert.equal(systemdUnit({ ...PLAN, account: undefined }), golden('dezent-user.service'));
  assert.equal(launchdPlist(PLAN), golden('org.dezent.node.plist'));
  assert.equal(
    windowsTask({
      ...PLAN,
      home: 'C:\\Users\\Ada B\\dezent',
      command: ['C:\\node\\node.exe', 'C:\\Program Files\\dezent\\main.js'],
    }),
    golden('dezent-task.xml'),
  );
});

test('systemd-analyze verify finds nothing to say, whatever the paths', (t) => {
  const top = newDir(t, 'unit');
  const program = join(top, `node $x "y" %h \\ é`);
  writeFileSync(program, '#!/bin/sh\n', { mode: 0o755 });
  const plans: ServicePlan[] = [
    { ...PLAN, command: [program, '/opt/main.ts'], account: { name: 'root', group: 'root', uid: 0 } },
    {
      ...PLAN,
      command: [program, ODD],
      folder: ODD,
      home: join(ODD, '.home'),
      port: 80,
      account: { name: 'daemon', group: 'daemon', uid: 1 },
    },
    { ...PLAN, command: [program, ODD], folder: '/tmp/a', home: '/var/tmp/b', account: undefined },
  ];
  for (const [index, plan] of plans.entries()) {
    const unit = join(top, `dezent-${index}.service`);
    writeFileSync(unit, systemdUnit(plan));
    const { status, stderr, stdout } = spawnSync('systemd-analyze', ['verify', '--man=no', unit], { encoding: 'utf8' });
    assert.deepEqual({ status, said: `${stderr}${stdout}` }, { status: 0, said: '' }, plan.folder);
  }
});

test('what hardens is there, and gives way only where it must', () => {
  const unit = systemdUnit(PLAN);
  for (const line of [
    'ProtectSystem=strict',
    'NoNewPrivileges=yes',
    'PrivateTmp=yes',
    'Restart=on-failure',
    'User=ada',
    'CapabilityBoundingSet=',
  ]) {
    assert.ok(unit.split('\n').includes(line), line);
  }
  assert.ok(unit.includes('ReadWritePaths="/srv/ada/my files" "/home/ada/.local/share/dezent"\n'));
  assert.ok(systemdUnit({ ...PLAN, folder: '/tmp/x' }).includes('PrivateTmp=no'));
  assert.ok(systemdUnit({ ...PLAN, port: 443 }).includes('AmbientCapabilities=CAP_NET_BIND_SERVICE'));
});

test('every definition tells its home again', () => {
  for (const home of [PLAN.home, ODD, 'C:\\Users\\Ada B\\dezent', '/a&b<c>', 'C:\\plain']) {
    const plan = { ...PLAN, home };
    assert.equal(homeIn(systemdUnit(plan)), home);
    assert.equal(homeIn(launchdPlist(plan)), home);
    if (!home.includes('"')) assert.equal(homeIn(windowsTask(plan)), home);
  }
  assert.equal(homeIn('[Service]\nExecStart=/bin/true\n'), undefined);
});

test('quoting is undone by its inverse', () => {
  check(
    property(string({ unit: 'grapheme' }), (text) => {
      assert.equal(unquoteSystemd(systemdWord(text).slice(1, -1)), text);
      assert.equal(xmlUnescape(xmlText(text)), text);
    }),
  );
  assert.equal(systemdWord('a $b %c "d" \\e\n', true), '"a $$b %%c \\"d\\" \\\\e\\x0a"');
  assert.equal(quoteWindows('C:\\a b\\'), '"C:\\a b\\\\"');
});

test('install writes once, keeps quiet the second time, and uninstall leaves the home alone', async (t) => {
  const top = newDir(t, 'service');
  const [home, folder] = [join(top, 'home'), join(top, 'files')];
  mkdirSync(home);
  mkdirSync(folder);
  const env = { DESTDIR: join(top, 'dest'), HOME: top, XDG_CONFIG_HOME: join(top, 'config') };
  const run = async (...line: string[]): Promise<unknown> =>
    JSON.parse((await runCli(['service', ...line, '--json', '--home', home], { env })).stdout);
  assert.equal(((await run('install')) as { error: { code: string } }).error.code, 'NOT_FOUND');
  writeFileSync(join(home, 'identity.json'), JSON.stringify({ folder }));
  const planned = (await run('install', '--dry-run')) as { path: string; text: string };
  assert.ok(!existsSync(planned.path));
  const first = (await run('install')) as { unit: string; path: string; changed: boolean; started: boolean };
  assert.equal(first.path, planned.path);
  assert.deepEqual([first.changed, first.started], [true, false]);
  assert.equal(readFileSync(first.path, 'utf8'), planned.text);
  assert.equal(((await run('install')) as { changed: boolean }).changed, false);
  assert.equal(((await run('status')) as { home: string }).home, home);
  const other = join(top, 'other');
  mkdirSync(other);
  writeFileSync(join(other, 'identity.json'), JSON.stringify({ folder }));
  const refused = await runCli(['service', 'install', '--json', '--home', other], { env });
  assert.match(refused.stdout, /ALREADY_RUNNING/);
  assert.deepEqual(((await run('uninstall')) as { removed: boolean }).removed, true);
  assert.deepEqual(((await run('uninstall')) as { removed: boolean }).removed, false);
  assert.ok(existsSync(join(home, 'identity.json')));
});
