// The walls of the house (docs/design.md, "The house"): what may import what, and how large a file may be.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT: string = fileURLToPath(new URL('..', import.meta.url));
const MAX_FILE_LINES = 400;
const BANNED_NAMES: RegExp = /(?:^|[-/])(?:utils?|helpers?|managers?|handlers?|common)(?:[-.]|$)/;

/** Which folders of src a folder may import; errors.ts is free for all. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  store: ['store'],
  protocol: ['protocol', 'store'],
  remotes: ['remotes', 'store'],
  node: ['node', 'remotes', 'protocol', 'store'],
  cli: ['cli', 'node'],
};
const LIBP2P: RegExp = /^(?:@?libp2p|@chainsafe\/libp2p|datastore-level|@multiformats\/multiaddr)/;
/** What the command line may load of the node before an action runs: types, and where the socket and the log lie. */
const LIGHT_NODE_FILES = ['src/node/control/control-api.ts', 'src/node/home/log-path.ts'];
/** What it may load of npm before an action runs; everything else would slow each command down. */
const LIGHT_PACKAGES = ['commander', 'pretty-bytes', 'pretty-ms'];

interface Import {
  from: string;
  /** A path relative to the project, or the name of a package. */
  to: string;
  kind: 'value' | 'type' | 'lazy';
}

function sourcesBelow(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name));
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(ROOT, file), 'utf8').replaceAll(/^\s*(?:\/\/|\*|\/\*).*$/gm, '');
  const resolve = (target: string): string =>
    target.startsWith('.') ? normalize(join(dirname(file), target)) : target;
  const statics = [...text.matchAll(/^(?:import|export)\s(type\s)?(?:[^'";]*?\sfrom\s)?'([^']+)'/gm)].map(
    ([, type, target = '']): Import => ({
      from: file,
      to: resolve(target),
      kind: type === undefined ? 'value' : 'type',
    }),
  );
  const lazies = [...text.matchAll(/\bimport\('([^']+)'\)/g)].map(([, target = '']): Import => ({
    from: file,
    to: resolve(target),
    kind: 'lazy',
  }));
  return [...statics, ...lazies];
}

const SOURCES: string[] = sourcesBelow('src');
const IMPORTS: Import[] = SOURCES.flatMap(importsOf);

function layerOf(path: string): string {
  return path.split('/')[1] ?? '';
}

test('imports never point up', () => {
  const bad = IMPORTS.filter(({ to }) => to.startsWith('src/') && to !== 'src/errors.ts').filter(
    ({ from, to }) => from !== 'src/index.ts' && MAY_IMPORT[layerOf(from)]?.includes(layerOf(to)) !== true,
  );
  assert.deepEqual(bad, []);
  assert.ok(IMPORTS.length > 100);
});

test('errors.ts imports nothing', () => {
  assert.deepEqual(importsOf('src/errors.ts'), []);
});

test('libp2p is known to node, and to protocol by its types alone', () => {
  const bad = IMPORTS.filter(({ to }) => LIBP2P.test(to)).filter(
    ({ from, kind }) => layerOf(from) !== 'node' && !(layerOf(from) === 'protocol' && kind === 'type'),
  );
  assert.deepEqual(bad, []);
});

test('what a command loads before it acts is light', () => {
  const loaded = new Set(['src/cli/main.ts', 'src/cli/command-line.ts', 'src/cli/program.ts']);
  const packages = new Set<string>();
  for (const file of loaded) {
    for (const { to } of importsOf(file).filter(({ kind }) => kind === 'value')) {
      if (to.startsWith('src/')) loaded.add(to);
      else if (!to.startsWith('node:')) packages.add(to);
    }
  }
  const heavy = [...loaded].filter((file) => layerOf(file) === 'node' && !LIGHT_NODE_FILES.includes(file));
  assert.deepEqual(heavy, []);
  assert.deepEqual(
    [...packages].filter((name) => !LIGHT_PACKAGES.includes(name)),
    [],
  );
});

test('files are short, say what they are, and have a name of their own', () => {
  for (const file of SOURCES) {
    const text = readFileSync(join(ROOT, file), 'utf8');
    const lines = text.split('\n');
    assert.ok(lines.length - 1 <= MAX_FILE_LINES, `${file} has ${lines.length - 1} lines`);
    const head = lines[0]?.startsWith('#!') === true ? lines[1] : lines[0];
    assert.match(head ?? '', /^(?:\/\/|\/\*\*?) ?\S/, `${file} does not say what it is`);
    assert.doesNotMatch(file, BANNED_NAMES);
  }
});
