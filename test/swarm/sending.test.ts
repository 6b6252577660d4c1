// What is sent to a holder that goes away in the middle: it goes on from there, and nothing that has arrived is sent again.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import type { WhereisValue } from '../../src/node/control/control-api.ts';
import { openRealNodes, QUICK, until, untilState, type RealNode } from '../suites/real-nodes.ts';

const LARGE_BYTES = 150_000_000;
/** So much has arrived when the holder is killed. */
const ARRIVED_BYTES = 20_000_000;

interface Upload {
  time: string;
  peer: string;
  bytes: number;
  msg: string;
}

/** Every upload to this peer that has ended, as the log tells it. */
function uploadsTo(node: RealNode, peer: string): Upload[] {
  const lines = node
    .log()
    .split('\n')
    .filter((line) => line.includes('"direction":"upload"'));
  return lines.map((line) => JSON.parse(line) as Upload).filter((upload) => upload.peer === peer);
}

test('a push that is broken off by a kill goes on where it was', async (t) => {
  const [ada, ben] = (await openRealNodes(t).makeGroup(['ada', 'ben', 'cleo'], {
    settings: { ...QUICK, 'offload.auto': false },
  })) as [RealNode, RealNode];
  writeFileSync(ada.path('large.bin'), randomBytes(LARGE_BYTES));
  await until('some of it to arrive', async () => (await ben.status()).store.usedBytes > ARRIVED_BYTES);
  await ben.kill();
  await ben.run();
  const backAt = new Date().toISOString();
  const kept = (await ben.status()).store.usedBytes;
  assert.ok(kept > ARRIVED_BYTES / 2 && kept < LARGE_BYTES, `${kept} bytes survived the kill`);
  await untilState(ada, ['large.bin'], 'protected');
  const { copies, holders } = await ada.must<WhereisValue>('whereis', 'large.bin');
  assert.equal(copies, 2);
  assert.ok(holders.some(({ deviceId }) => deviceId === ben.deviceId));

  // One session or several: together they sent what was lacking.
  const later = await until('the log to tell of the rest', () => {
    const uploads = uploadsTo(ada, ben.deviceId).filter(({ time }) => time > backAt);
    return uploads.at(-1)?.msg === 'upload done' && uploads;
  });
  const sentBytes = later.reduce((sum, { bytes }) => sum + bytes, 0);
  assert.ok(
    sentBytes > 0 && sentBytes <= LARGE_BYTES * 1.04 - kept,
    `${sentBytes} bytes were sent after ${kept} had been kept`,
  );
});
