import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { base32 } from 'multiformats/bases/base32';
import * as fc from 'fast-check';
import {
  decodeInvite,
  encodeInvite,
  guestKeyOf,
  INVITE_MAX_ADDRS,
  newGuestSeed,
  signClaim,
  verifyClaim,
} from '../../src/protocol/invite.ts';
import { peerIdOf, signingKeyFromSeed } from '../../src/protocol/signature.ts';
import { deviceIdOf, machineOf, seedOf } from '../suites/people.ts';

const groupId = seedOf('group');
const guestSeed = seedOf('guest').slice(0, 16);
const peerId = deviceIdOf('inviter');
const device = deviceIdOf('joiner');
const addrs = ['/ip4/192.168.1.7/tcp/8080', '/ip6/fd00::1/tcp/8080'];
const text = encodeInvite({ groupId, guestSeed, peerId, addrs, vault: false });

test('an invite says what was put in', () => {
  const addr = fc.stringMatching(/^\/ip4\/[0-9.]{1,20}$/);
  fc.assert(
    fc.property(fc.array(addr, { maxLength: INVITE_MAX_ADDRS }), fc.boolean(), (some, vault) => {
      const { guest, ...rest } = decodeInvite(encodeInvite({ groupId, guestSeed, peerId, addrs: some, vault }));
      assert.deepEqual(rest, { groupId, peerId, addrs: some, vault });
      assert.deepEqual(guest.publicKey, guestKeyOf(guestSeed).publicKey);
    }),
  );
});

test('it is one word to copy, in any case and over several lines', () => {
  assert.match(text, /^dezent-invite-1-[a-z2-7]+$/);
  assert.deepEqual(decodeInvite(` ${text.slice(0, 40)}\n  ${text.slice(40).toUpperCase()}\n`).addrs, addrs);
});

test('more addresses than fit are left out', () => {
  const many = Array.from({ length: 30 }, (_, index) => `/ip4/10.0.0.${index}/tcp/8080`);
  assert.deepEqual(
    decodeInvite(encodeInvite({ groupId, guestSeed, peerId, addrs: many, vault: false })).addrs,
    many.slice(0, INVITE_MAX_ADDRS),
  );
});

test('a cut or mistyped invite is refused', () => {
  const letters = text.split('');
  for (let at = 0; at < letters.length; at += 3) {
    const changed = letters.with(at, letters[at] === 'a' ? 'c' : 'a').join('');
    assert.throws(
      () => decodeInvite(changed),
      (error: { code?: string }) => error.code === 'INVITE' || error.code === 'NEWER_VERSION',
      changed,
    );
    assert.throws(() => decodeInvite(text.slice(0, at)), { code: 'INVITE' });
  }
  for (const other of [
    '',
    'hello',
    'dezent-invite-1-',
    `${text}aa`,
    'a'.repeat(1e6),
    `dezent-invite-1-${base32.baseEncode(new Uint8Array(9))}`,
  ])
    assert.throws(() => decodeInvite(other), { code: 'INVITE' });
});

test('an invite of a later version asks for an update', () => {
  assert.throws(() => decodeInvite(text.replace('-1-', '-2-')), { code: 'NEWER_VERSION' });
});

test('a decoded invite does not show the seed', () => {
  const shown = inspect(decodeInvite(text), { depth: Infinity, showHidden: true }) + JSON.stringify(decodeInvite(text));
  assert.equal(shown.includes(guestSeed.slice(0, 5).join(', ')), false);
  assert.equal(shown.includes(text.slice(70, 90)), false);
  assert.notDeepEqual(newGuestSeed(), newGuestSeed());
});

test('a claim holds for its group, device and addressee', () => {
  const guest = guestKeyOf(guestSeed);
  const vault = { peerId: device, name: 'nas', machine: machineOf('nas'), x25519: seedOf('box') };
  for (const claim of [
    { right: 'join', device, to: peerId } as const,
    { right: 'join', device, to: peerId, vault } as const,
    { right: 'recover', device, to: peerId } as const,
  ])
    assert.deepEqual(verifyClaim(groupId, signClaim(groupId, claim, guest)), {
      ...claim,
      guest: peerIdOf(guest.publicKey),
    });
  const envelope = signClaim(groupId, { right: 'join', device, to: peerId }, guest);
  assert.throws(() => verifyClaim(seedOf('other'), envelope), { code: 'BAD_RECORD' });
  assert.throws(() => verifyClaim(groupId, { ...envelope, signer: signingKeyFromSeed(seedOf('other')).publicKey }), {
    code: 'BAD_RECORD',
  });
});

test('a claim cannot make another machine a vault, or a vault of a recovery', () => {
  const guest = guestKeyOf(guestSeed);
  const vault = { peerId, name: 'nas', machine: machineOf('nas') };
  assert.throws(() => verifyClaim(groupId, signClaim(groupId, { right: 'join', device, to: peerId, vault }, guest)), {
    code: 'BAD_RECORD',
  });
  const recovering = { right: 'recover', device, to: peerId, vault: { ...vault, peerId: device } } as const;
  assert.throws(() => verifyClaim(groupId, signClaim(groupId, recovering, guest)), { code: 'BAD_RECORD' });
});
