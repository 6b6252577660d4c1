// Counting copies, held against a second way to count that is too simple to be wrong.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { countCopies, type CountedMember } from '../../../src/node/copies/copies.ts';

const SELF: CountedMember = { peerId: 'self', owner: 'me', machine: 'here' };

const member = fc.record(
  {
    peerId: fc.constantFrom('p1', 'p2', 'p3', 'p4', 'p5', 'p6'),
    owner: fc.constantFrom('me', 'ann', 'bob', null),
    machine: fc.constantFrom('here', 'm1', 'm2', 'm3'),
  },
  { noNullPrototype: true },
);
const members = fc.uniqueArray(member, { selector: ({ peerId }) => peerId });
const holders = fc.array(fc.constantFrom('self', 'p1', 'p2', 'p3', 'p4', 'p5', 'p6', 'gone'));

test('own devices and vaults count by machine, others by owner, this machine and strangers not', () => {
  fc.assert(
    fc.property(members, holders, (others, holding) => {
      const there = others.filter(({ peerId, machine }) => holding.includes(peerId) && machine !== 'here');
      const ownMachines = new Set(
        there.filter(({ owner }) => owner === 'me' || owner === null).map(({ machine }) => machine),
      );
      const otherOwners = new Set(
        there.filter(({ owner }) => owner === 'ann' || owner === 'bob').map(({ owner }) => owner),
      );
      assert.equal(countCopies(holding, [...others, SELF], 'self'), ownMachines.size + otherOwners.size);
    }),
  );
});

test('one more holder adds at most one copy, and order and repetition do not matter', () => {
  fc.assert(
    fc.property(members, holders, fc.constantFrom('p1', 'p2', 'gone'), (others, holding, one) => {
      const count = (peers: string[]): number => countCopies(peers, [SELF, ...others], 'self');
      const more = count([...holding, one]) - count(holding);
      assert.ok(more === 0 || more === 1);
      assert.equal(count([...holding, ...holding].reverse()), count(holding));
    }),
  );
});

test('a device that is not listed itself counts nothing', () => {
  assert.equal(countCopies(['p1'], [{ peerId: 'p1', owner: 'ann', machine: 'm1' }], 'self'), 0);
});
