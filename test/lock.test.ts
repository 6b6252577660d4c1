import assert from 'node:assert/strict';
import { test } from 'node:test';
import { missingFromLock, readLock } from './tools/complete-lock.ts';

test('the lock is complete for all platforms, so that npm ci accepts it everywhere (npm run lock:complete)', () => {
  const lock = readLock();
  assert.deepEqual(missingFromLock(lock), []);
  delete lock.packages['node_modules/@napi-rs/blake-hash-win32-x64-msvc'];
  assert.deepEqual(missingFromLock(lock), [
    { name: '@napi-rs/blake-hash-win32-x64-msvc', version: '1.3.6', dev: false },
  ]);
});
