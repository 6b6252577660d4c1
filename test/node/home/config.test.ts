import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { openConfig } from '../../../src/node/home/config.ts';

function newHome(context: TestContext, content?: string): string {
  const home = mkdtempSync(join(tmpdir(), 'dezent-config-'));
  context.after(() => rmSync(home, { recursive: true }));
  if (content !== undefined) writeFileSync(join(home, 'config.json'), content);
  return home;
}

test('defaults hold where nothing was set, and depend on the disk', (t) => {
  const config = openConfig(newHome(t));
  assert.equal(config.get('copies.min'), 2);
  assert.equal(config.get('offload.stubMinBytes'), 4096);
  assert.equal(config.get('open.trigger'), 'auto');
  assert.ok(config.get('store.reserveBytes') >= 2 ** 30);
  assert.ok(config.get('pipeline.workers') >= 1);
});

test('a change is checked, stored, announced and there after opening again', async (t) => {
  const home = newHome(t);
  const config = openConfig(home);
  const heard: unknown[] = [];
  const forget = config.onChange((key, value) => heard.push([key, value]));
  assert.deepEqual(await config.set('offload.auto', 'false'), { key: 'offload.auto', value: false });
  await Promise.all([config.set('copies.target', '5'), config.set('copies.min', 4)]);
  forget();
  await config.set('transfer.hours', '22:00-06:00');
  assert.deepEqual(heard, [
    ['offload.auto', false],
    ['copies.target', 5],
    ['copies.min', 4],
  ]);
  const again = openConfig(home);
  assert.equal(again.get('offload.auto'), false);
  assert.equal(again.get('copies.min'), 4);
  assert.equal(again.get('transfer.hours'), '22:00-06:00');
  assert.deepEqual(readdirSync(home), ['config.json']);
});

test('text that looks like JSON stays text where text is wanted', async (t) => {
  const config = openConfig(newHome(t));
  assert.equal((await config.set('bootstrap.file', '12')).value, '12');
  assert.deepEqual((await config.set('listen.addresses', '["127.0.0.1","::1"]')).value, ['127.0.0.1', '::1']);
});

test('the target never lies below the minimum', async (t) => {
  const config = openConfig(newHome(t));
  await config.set('copies.min', 5);
  assert.equal(config.get('copies.target'), 5);
  await assert.rejects(config.set('copies.target', 4), { code: 'CONFIG', message: /less than copies.min 5/ });
});

test('bad keys and values are refused with what is allowed, and change nothing', async (t) => {
  const home = newHome(t);
  const config = openConfig(home);
  await assert.rejects(config.set('copies.mni', 1), { code: 'CONFIG', message: /copies\.mni/ });
  await assert.rejects(config.set('settle', 1), { code: 'CONFIG', hint: /watch\.settleMs/ });
  for (const bad of [-1, 1.5, '1e999', 'two', null, '']) {
    await assert.rejects(config.set('copies.min', bad), { code: 'CONFIG', message: /copies\.min .*0 to 50/ });
  }
  await assert.rejects(config.set('open.onMissing', 'explode'), { code: 'CONFIG', message: /stub, error/ });
  await assert.rejects(config.set('constructor', 1), { code: 'CONFIG' });
  await assert.rejects(config.set('listen.addresses', '["example.org"]'), { code: 'CONFIG' });
  assert.throws(() => config.show('nope'), { code: 'CONFIG' });
  assert.deepEqual(readdirSync(home), []);
});

test('a broken file is refused by name and left alone', (t) => {
  const cases: [string, RegExp][] = [
    ['{"copies.min": 2', /not valid JSON/],
    ['[1]', /not a JSON object/],
    ['{"copies.max": 2}', /copies\.max.*config\.json/],
    ['{"copies.min": "many"}', /copies\.min.*allowed/],
    [`"${'x'.repeat(2 ** 20)}"`, /bytes/],
  ];
  for (const [content, message] of cases) {
    const home = newHome(t, content);
    assert.throws(() => openConfig(home), { code: 'CONFIG', message });
    assert.equal(readFileSync(join(home, 'config.json'), 'utf8'), content);
  }
});
