import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { buildProgram } from '../src/cli/program.ts';
import { SETTINGS } from '../src/node/home/settings.ts';
import { errorsDoc } from './tools/errors-doc.ts';

const ROOT: string = fileURLToPath(new URL('..', import.meta.url));
const DOCS: string[] = readdirSync(join(ROOT, 'docs')).map((name) => join('docs', name));
const PAGES: string[] = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...DOCS].filter((name) =>
  name.endsWith('.md'),
);

function read(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8');
}

test('docs/errors.md is made from the table of codes', () => {
  assert.equal(read('docs/errors.md'), errorsDoc());
});

test('docs/cli.md names every command and option that exists, and every setting', () => {
  const text = read('docs/cli.md');
  for (const command of buildProgram().commands) {
    assert.ok(text.includes(`\`${command.name()}`), command.name());
    for (const { long } of command.options) assert.ok(text.includes(long ?? ''), `${command.name()} ${long}`);
  }
  for (const key of Object.keys(SETTINGS)) assert.ok(text.includes(`\`${key}\``), key);
});

test('docs/dependencies.md has a line for each runtime dependency and no other', () => {
  const { dependencies, optionalDependencies } = JSON.parse(read('package.json')) as Record<
    string,
    Record<string, string>
  >;
  const wanted = Object.keys({ ...dependencies, ...optionalDependencies }).toSorted();
  const named = [...read('docs/dependencies.md').matchAll(/^\| `([^`]+)`((?:, `[^`]+`)*) \|/gm)].flatMap(
    ([, first = '', rest = '']) => [first, ...[...rest.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name)],
  );
  assert.deepEqual(named.toSorted(), wanted);
});

test('links between pages lead somewhere', () => {
  const broken = PAGES.flatMap((page) =>
    [...read(page).matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)/g)]
      .map(([, target = '']) => target)
      .filter((target) => !existsSync(join(ROOT, dirname(page), target)))
      .map((target) => `${page}: ${target}`),
  );
  assert.deepEqual(broken, []);
});
