// Opening stubs with no local block left, while holders are away, lie, or are all gone.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import type { OpenedFile } from '../../src/node/control/control-api.ts';
import { startLyingNode } from '../suites/lying-node.ts';
import { assertSameFiles, snapshotOf } from '../suites/real-files.ts';
import { openRealNodes, QUICK, untilConnected, untilState, type RealNode } from '../suites/real-nodes.ts';

/** Kept inline in a manifest, in one block, and in several. */
const SIZES: Readonly<Record<string, number>> = { 'inline.bin': 9000, 'block.bin': 300_000, 'blocks.bin': 12_000_000 };
const NAMES: readonly string[] = Object.keys(SIZES);

/** Three nodes; ada's files are stubs with their blocks at ben and cleo alone. */
async function newScene(nodes: readonly RealNode[]): Promise<Awaited<ReturnType<typeof snapshotOf>>> {
  const [ada] = nodes as [RealNode];
  for (const [name, bytes] of Object.entries(SIZES)) writeFileSync(ada.path(name), randomBytes(bytes));
  const originals = await snapshotOf(ada.folder);
  await ada.must('add', ada.folder);
  await freeAll(ada);
  return originals;
}

async function freeAll(node: RealNode): Promise<void> {
  await node.must('free', node.folder);
  await untilState(node, NAMES, 'stubbed');
  assert.ok((await node.status()).store.usedBytes < 100_000, 'blocks are left on this machine');
}

async function openAll(node: RealNode): Promise<Set<string>> {
  const from = new Set<string>();
  for (const name of NAMES) {
    const opened = await node.must<OpenedFile>('open', `${name}.f`);
    assert.equal(opened.sizeBytes, SIZES[name]);
    assert.notDeepEqual(opened.from, [], `${name} did not come from a peer`);
    for (const peerId of opened.from) from.add(peerId);
  }
  return from;
}

test('stubs open through whoever is left; a liar is named; without holders nothing is damaged', async (t) => {
  const nodes = await openRealNodes(t).makeGroup(['ada', 'ben', 'cleo'], { settings: QUICK });
  const [ada, ben, cleo] = nodes as [RealNode, RealNode, RealNode];
  const originals = await newScene(nodes);

  await t.test('one of two holders is stopped: every stub opens and names the other', async () => {
    await ben.stop();
    assert.deepEqual(await openAll(ada), new Set([cleo.deviceId]));
    assertSameFiles(await snapshotOf(ada.folder), originals);
    await ben.run();
    await untilConnected(nodes);
    await freeAll(ada);
  });

  await t.test('a holder is killed: the same', async () => {
    await cleo.kill();
    assert.deepEqual(await openAll(ada), new Set([ben.deviceId]));
    assertSameFiles(await snapshotOf(ada.folder), originals);
    await cleo.run();
    await untilConnected(nodes);
    await freeAll(ada);
  });

  await t.test(
    'no holder: exit 4, who has it and when they were seen; nothing is damaged; it works once they are back',
    async () => {
      const stubs = NAMES.map((name) => readFileSync(ada.path(`${name}.f`)));
      await Promise.all([ben.stop(), cleo.kill()]);
      for (const name of NAMES) {
        const { code, json } = await ada.cli('open', `${name}.f`);
        const { error } = json as { error: { code: string; message: string; hint: string } };
        assert.deepEqual([code, error.code], [4, 'UNREACHABLE'], error.message);
        for (const { name: holder, deviceId } of [ben, cleo])
          assert.match(error.message, new RegExp(`${holder} \\(${deviceId}, last seen 20\\d\\d-[^)]*Z\\)`));
      }
      assert.deepEqual(
        NAMES.map((name) => readFileSync(ada.path(`${name}.f`))),
        stubs,
      );
      assert.deepEqual(readdirSync(ada.folder).sort(), ['.dezent', ...NAMES.map((name) => `${name}.f`)].sort());
      const refused = await ada.cli('restore', '--all');
      assert.equal(refused.code, 4, refused.stdout);
      await Promise.all([ben.run(), cleo.run()]);
      await untilConnected(nodes);
      await openAll(ada);
      assertSameFiles(await snapshotOf(ada.folder), originals);
      await freeAll(ada);
    },
  );

  await t.test('a holder gives wrong bytes: every stub opens, the liar is named in warnings and log', async () => {
    await ben.stop();
    await using liar = await startLyingNode(ben.home);
    await untilConnected([ada], 2);
    assert.deepEqual(await openAll(ada), new Set([cleo.deviceId]));
    assertSameFiles(await snapshotOf(ada.folder), originals);
    assert.ok(liar.lies() > 0, 'the liar was not asked');
    const { warnings } = await ada.status();
    assert.ok(
      warnings.some((text) => text.startsWith('ben ') && text.includes('gave wrong bytes')),
      warnings.join('\n'),
    );
    assert.match(ada.log(), new RegExp(`"peer":"${ben.deviceId}".*a holder gave wrong bytes`));
  });
});
