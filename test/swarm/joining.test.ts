// Who gets in: an invite lets in as many as it says, the same joiner may ask again, it expires; and members that joined while others were
// away find each other without the one who let them in.
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { InitValue, InviteValue, PeerValue } from '../../src/node/control/control-api.ts';
import { freePort, openRealNodes, QUICK, untilConnected, type CliResult, type RealNode } from '../suites/real-nodes.ts';

interface Failure {
  error: { code: string; message: string };
}

test('an invite works once, also for a joiner that was cut off and asks again, and it expires', async (t) => {
  const nodes = openRealNodes(t);
  const ada = await nodes.make('ada', { settings: QUICK });
  const { invite } = await ada.must<InviteValue>('invite');
  const ben = await nodes.make('ben', { invite, run: false });

  // ben's init was cut off before its last step: it asks again with the same key.
  rmSync(join(ben.home, 'identity.json'));
  const again = await init(ben, ['--invite', invite]);
  assert.equal(again.code, 0, again.stdout);
  assert.deepEqual((again.json as InitValue).deviceId, ben.deviceId);
  await ben.run();
  await untilConnected([ada, ben]);

  // Somebody else comes too late.
  const cleo = await nodes.make('cleo', { run: false });
  await assertRefused(cleo, invite, /used/);
  // Not by asking ben instead of ada either; and an invite that was altered is none.
  await assertRefused(cleo, `${invite.slice(0, -4)}aaaa`, /./);
  const short = await ada.must<InviteValue>('invite', '--ttl', '1s');
  await untilExpired(short);
  await assertRefused(cleo, short.invite, /expired/);

  assert.deepEqual(await names(ada), ['ben']);
  assert.deepEqual(await names(ben), ['ada']);
});

test('C is away while D joins through A, then A goes away: C and D find each other', async (t) => {
  const nodes = openRealNodes(t);
  const [ada, cleo] = (await nodes.makeGroup(['ada', 'cleo'], { settings: QUICK })) as [RealNode, RealNode];
  await cleo.stop();
  const { invite } = await ada.must<InviteValue>('invite');
  const dora = await nodes.make('dora', { settings: QUICK, invite });
  await untilConnected([ada, dora]);
  await ada.kill();
  await cleo.run();
  await untilConnected([cleo, dora]);
  assert.deepEqual(await names(cleo), ['ada', 'dora']);
  assert.deepEqual(await names(dora), ['ada', 'cleo']);
  // They also come together again by themselves, whoever starts last.
  await dora.stop();
  await dora.run();
  await untilConnected([cleo, dora]);
});

test('the next device of an owner, by phrase: also when it was cut off and asks again', async (t) => {
  const nodes = openRealNodes(t);
  const ada = await nodes.make('ada', { settings: QUICK });
  const phraseFile = join(nodes.top, 'phrase');
  writeFileSync(phraseFile, ada.phrase ?? assert.fail('no phrase'), { mode: 0o600 });
  const byPhrase = ['--phrase-file', phraseFile, '--peer', `/ip4/127.0.0.1/tcp/${ada.port}/p2p/${ada.deviceId}`];
  const second = await nodes.make('second', { settings: QUICK, init: byPhrase, run: false });
  assert.deepEqual([second.ownerId, second.groupId, second.phrase], [ada.ownerId, ada.groupId, undefined]);
  rmSync(join(second.home, 'identity.json'));
  const again = await init(second, byPhrase);
  assert.equal(again.code, 0, again.stdout);
  assert.equal((again.json as InitValue).deviceId, second.deviceId);
  await second.run();
  await untilConnected([ada, second]);
  // A phrase that is nobody's here is refused in words, and so is one with a wrong word.
  const stranger = await nodes.make('stranger', { run: false });
  rmSync(stranger.home, { recursive: true });
  writeFileSync(phraseFile, stranger.phrase ?? assert.fail('no phrase'));
  const unknown = await init(stranger, byPhrase);
  assert.deepEqual([unknown.code, (unknown.json as Failure).error.code], [3, 'NOT_ALLOWED'], unknown.stdout);
  writeFileSync(phraseFile, 'twelve words are not enough');
  const wrong = await init(stranger, byPhrase);
  assert.deepEqual([wrong.code, (wrong.json as Failure).error.code], [2, 'BAD_PHRASE'], wrong.stdout);
});

/** A second `init` over what an earlier one left. */
async function init(node: RealNode, by: string[]): Promise<CliResult> {
  const place = [
    '--port',
    String(await freePort()),
    '--listen',
    '127.0.0.1',
    '--machine',
    node.name,
    '--name',
    node.name,
  ];
  return node.cli('init', node.folder, ...place, ...by);
}

/** `init` of a fresh home with this invite is refused with exit 4, and nothing of it counts. */
async function assertRefused(node: RealNode, invite: string, reason: RegExp): Promise<void> {
  rmSync(node.home, { recursive: true, force: true });
  mkdirSync(node.folder, { recursive: true });
  const { code, json, stdout } = await init(node, ['--invite', invite]);
  const { error } = json as Failure;
  assert.deepEqual([code, error.code], [4, 'INVITE'], stdout);
  assert.match(error.message, reason);
  assert.equal((await node.cli('run')).code, 4);
}

async function untilExpired({ expiresAt }: InviteValue): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setTimeout(resolve, Date.parse(expiresAt) - Date.now() + 1);
  await promise;
}

async function names(node: RealNode): Promise<string[]> {
  return (await node.must<PeerValue[]>('peers')).map(({ name }) => name).sort();
}
