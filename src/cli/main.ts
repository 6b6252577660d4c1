#!/usr/bin/env node
// The entry of the program. It turns the compile cache on before anything else is loaded: with it a command starts in a third of the time.
import { enableCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';

// Beside the code, so that only who may change the code may change its cache; the default lies in the shared temporary directory.
enableCompileCache(fileURLToPath(new URL('../../node_modules/.cache/dezent', import.meta.url)));
const { runLine } = await import('./command-line.ts');
process.exitCode = await runLine(process.argv.slice(2));
