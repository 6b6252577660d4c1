import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { once } from 'node:events';
import { loadKernel, type Kernel } from '../../../src/node/files/kernel.ts';
import { isDezentError, systemCode } from '../../../src/errors.ts';

const onLinux = process.platform === 'linux';

async function fresh(t: TestContext): Promise<{ kernel: Kernel; dir: string; file: string }> {
  const dir = await mkdtemp(join(tmpdir(), 'dezent-kernel-'));
  t.after(() => rm(dir, { recursive: true }));
  const file = join(dir, 'a file — ä');
  await writeFile(file, 'here');
  return { kernel: await loadKernel(), dir, file };
}

test('a lease is refused while somebody has the file open, and given when not', async (t) => {
  const { kernel, file } = await fresh(t);
  const fd = openSync(file, 'r');
  const other = openSync(file, 'r');
  assert.equal(kernel.writeLease(fd), onLinux ? 'busy' : 'unsupported');
  closeSync(other);
  const lease = kernel.writeLease(fd);
  if (onLinux) {
    assert.ok(typeof lease === 'object');
    assert.ok(lease.isHeld());
    lease.release();
    assert.ok(!lease.isHeld());
    closeSync(openSync(file, 'r+'));
  }
  closeSync(fd);
});

test('whoever opens a leased file waits for the release, and this process lives on', async (t) => {
  const { kernel, file } = await fresh(t);
  const fd = openSync(file, 'r');
  const lease = kernel.writeLease(fd);
  if (typeof lease !== 'object') return assert.equal(onLinux, false);
  const broken = once(process, 'SIGIO');
  const reader = spawn('cat', [file]);
  const output = reader.stdout.toArray();
  await broken;
  assert.ok(!lease.isHeld());
  assert.equal(reader.exitCode, null);
  lease.release();
  assert.equal(Buffer.concat(await output).toString(), 'here');
  closeSync(fd);
});

test('renameNoReplace renames, and leaves both alone when the name is taken', async (t) => {
  const { kernel, dir, file } = await fresh(t);
  const [to, taken] = [join(dir, 'to'), join(dir, 'taken')];
  await writeFile(taken, 'other');
  if (!onLinux) return assert.equal(kernel.renameNoReplace(file, to), 'unsupported');
  assert.equal(kernel.renameNoReplace(file, taken), 'exists');
  assert.equal(await readFile(taken, 'utf8'), 'other');
  assert.equal(kernel.renameNoReplace(file, to), 'done');
  assert.equal(readFileSync(to, 'utf8'), 'here');
  assert.throws(
    () => kernel.renameNoReplace(file, join(dir, 'new')),
    (error) => systemCode(error) === 'ENOENT',
  );
  assert.throws(
    () => kernel.renameNoReplace(`${to}\0x`, file),
    (error) => isDezentError(error, 'USAGE'),
  );
});

test('user attributes are listed, read and set, within their caps, and not through links', async (t) => {
  const { kernel, dir, file } = await fresh(t);
  if (kernel.listXattrs(file) === 'unsupported') return;
  assert.deepEqual(kernel.listXattrs(file), []);
  assert.equal(kernel.getXattr(file, 'user.none'), undefined);
  assert.equal(kernel.setXattr(file, 'user.b', Buffer.from('value')), 'done');
  assert.equal(kernel.setXattr(file, 'user.a', new Uint8Array()), 'done');
  assert.deepEqual(kernel.listXattrs(file), ['user.a', 'user.b']);
  assert.deepEqual(kernel.getXattr(file, 'user.b'), Uint8Array.from(Buffer.from('value')));
  assert.deepEqual(kernel.getXattr(file, 'user.a'), new Uint8Array());
  assert.throws(
    () => kernel.setXattr(file, 'security.x', new Uint8Array()),
    (error) => isDezentError(error, 'USAGE'),
  );
  assert.throws(
    () => kernel.listXattrs(join(dir, 'absent')),
    (error) => systemCode(error) === 'ENOENT',
  );
  const link = join(dir, 'link');
  await symlink(file, link);
  assert.deepEqual(kernel.listXattrs(link), []);
});

test('more attributes than are kept are refused, never cut', async (t) => {
  const { kernel, file } = await fresh(t);
  if (kernel.listXattrs(file) === 'unsupported') return;
  for (let number = 0; number < 65; number++) kernel.setXattr(file, `user.${number}`, new Uint8Array());
  assert.throws(
    () => kernel.listXattrs(file),
    (error) => isDezentError(error, 'UNSAFE'),
  );
});
