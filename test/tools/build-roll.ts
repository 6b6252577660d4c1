// Builds src/store/wasm/roll.as into src/store/wasm/roll-module.ts, which is committed: whoever installs dezent needs no compiler. The same source
// and the pinned compiler give the same bytes, which a test holds.
//   node test/tools/build-roll.ts
import { readFile, writeFile } from 'node:fs/promises';
import { main as asc } from 'assemblyscript/asc';

const SOURCE: URL = new URL('../../src/store/wasm/roll.as', import.meta.url);
const MODULE: URL = new URL('../../src/store/wasm/roll-module.ts', import.meta.url);
const OPTIONS = [
  '-O3',
  '--converge',
  '--noAssert',
  '--runtime',
  'stub',
  '--initialMemory',
  '2',
  '--maximumMemory',
  '2',
];
/** The compiler takes files that end in .ts only; ours does not, so that no tool takes it for TypeScript. */
const NAME = 'roll.ts';

/** The module's bytes; throws with the compiler's words. */
export async function buildRoll(): Promise<Uint8Array> {
  const source = await readFile(SOURCE, 'utf8');
  let bytes: Uint8Array | undefined;
  const words: string[] = [];
  const stderr = { write: (text: string | Uint8Array) => void words.push(Buffer.from(text).toString()) };
  const { error } = await asc([NAME, '--outFile', 'roll.wasm', ...OPTIONS], {
    readFile: (name) => (name === NAME ? source : null),
    writeFile: (_name, contents) => void (bytes = contents as Uint8Array),
    listFiles: () => [],
    stderr,
  });
  if (error !== null || bytes === undefined) throw new Error(words.join(''), { cause: error });
  return bytes;
}

if (import.meta.main) {
  const text = Buffer.from(await buildRoll()).toString('base64');
  const lines = [
    '// Made from roll.as by test/tools/build-roll.ts: WebAssembly, base64.',
    'export const ROLL_MODULE: string =',
    `  '${text}';`,
    '',
  ];
  await writeFile(MODULE, lines.join('\n'));
}
