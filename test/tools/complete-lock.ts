// Completes package-lock.json with the native packages of platforms that the registry in reach did not offer when it was written
// (npm run lock:complete). Without them `npm ci` refuses the lock; with them each machine installs its own platform's.
import { readFileSync, writeFileSync } from 'node:fs';

interface Entry {
  version?: string;
  dev?: boolean;
  optional?: boolean;
  os?: string[];
  cpu?: string[];
  libc?: string[];
  optionalDependencies?: Record<string, string>;
}

export interface Lock {
  packages: Record<string, Entry>;
}

interface Missing {
  name: string;
  version: string;
  dev: boolean;
}

const SYSTEMS = ['aix', 'android', 'darwin', 'freebsd', 'linux', 'netbsd', 'openbsd', 'openharmony', 'sunos', 'win32'];
const PROCESSORS = ['arm', 'arm64', 'ia32', 'loong64', 'mips64el', 'ppc64', 'riscv64', 's390x', 'wasm32', 'x64'];
const LIBC: Readonly<Record<string, string>> = { gnu: 'glibc', musl: 'musl' };

export function readLock(): Lock {
  return JSON.parse(readFileSync(lockFile(), 'utf8')) as Lock;
}

/** Optional dependencies that some package of the lock names and the lock does not have. */
export function missingFromLock({ packages }: Lock): Missing[] {
  return Object.entries(packages).flatMap(([place, { dev = false, optionalDependencies = {} }]) =>
    Object.entries(optionalDependencies)
      .filter(([name]) => !placesAbove(place).some((above) => `${above}node_modules/${name}` in packages))
      .map(([name, version]) => ({ name, version, dev })),
  );
}

/** Where Node would look for a dependency of the package at `place`, nearest first. */
function placesAbove(place: string): string[] {
  const above = place.lastIndexOf('/node_modules/');
  if (place === '') return [''];
  return [`${place}/`, ...(above < 0 ? [''] : placesAbove(place.slice(0, above)))];
}

function entryFor({ name, version, dev }: Missing): Entry {
  const words = name.split(/[-/]/);
  const [os, cpu] = [SYSTEMS.filter((word) => words.includes(word)), PROCESSORS.filter((word) => words.includes(word))];
  if (os.length !== 1 || cpu.length !== 1 || !/^\d+\.\d+\.\d+$/.test(version))
    throw new Error(`which platform is ${name} ${version} for?`);
  const libc = words.flatMap((word) => LIBC[word] ?? []);
  return { version, cpu, ...(dev ? { dev } : {}), ...(libc.length > 0 ? { libc } : {}), optional: true, os };
}

function lockFile(): URL {
  return new URL('../../package-lock.json', import.meta.url);
}

if (import.meta.main) {
  const lock = readLock();
  const added = missingFromLock(lock);
  for (const missing of added) lock.packages[`node_modules/${missing.name}`] = entryFor(missing);
  const sorted = Object.entries(lock.packages).toSorted(([a], [b]) => a.localeCompare(b, 'en'));
  writeFileSync(lockFile(), `${JSON.stringify({ ...lock, packages: Object.fromEntries(sorted) }, undefined, 2)}\n`);
  console.log(`${added.length} added`);
}
