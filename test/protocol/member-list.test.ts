import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { judgeList, type ListView } from '../../src/protocol/list-view.ts';
import { foundList, signEntry, verifyEntry, type ListState, type SignedEntry } from '../../src/protocol/member-list.ts';
import { foundOwnerRecord, nextOwnerRecord, openSecrets } from '../../src/protocol/owner-changes.ts';
import { ownerKeysOf, type OwnerKeys } from '../../src/protocol/owner-keys.ts';
import { judgeOwner, type OwnerView } from '../../src/protocol/owner-view.ts';
import { decodeEnvelope, encodeEnvelope, hashOf, idText, publicKeyOf, sign } from '../../src/protocol/signature.ts';
import { deviceIdOf, deviceKeysOf, listedDevice, machineOf, phraseOf, seedOf } from '../suites/people.ts';

const people = ['anna', 'bert', 'carl', 'dora', 'emil'];
const keys = Object.fromEntries(people.map((name) => [name, ownerKeysOf(phraseOf(name))])) as Record<string, OwnerKeys>;
const idOf = (name: string): string => keys[name]?.ownerId ?? '';
const { groupId, entry: root } = foundList(ownerKeysOf(phraseOf('anna')).signing);
const refused = { code: 'BAD_RECORD' };

/** Each owner has devices `<name>1` (admin) and, for anna, `anna2` (admin) and `anna3`. */
async function allViews(): Promise<Map<string, OwnerView>> {
  const views = new Map<string, OwnerView>();
  for (const name of people) {
    const own = ownerKeysOf(phraseOf(name));
    const record = await foundOwnerRecord(groupId, own, listedDevice(groupId, own.ownerId, `${name}1`));
    views.set(own.ownerId, judgeOwner([record]));
  }
  const anna = ownerKeysOf(phraseOf('anna'));
  const view = views.get(anna.ownerId) as OwnerView;
  const opened = await openSecrets(groupId, view, anna.recovery);
  const add = ['anna2', 'anna3'].map((name) => listedDevice(groupId, anna.ownerId, name));
  const record = await nextOwnerRecord(
    { groupId, view, opened },
    { add },
    { phrase: anna, newAdmins: [deviceIdOf('anna2')] },
  );
  return views.set(anna.ownerId, judgeOwner([record]));
}
const views = await allViews();

/** The same, after a device of anna's was revoked by another. */
async function viewsWithout(revoked: string, by: string): Promise<Map<string, OwnerView>> {
  const view = views.get(idOf('anna')) as OwnerView;
  const opened = await openSecrets(groupId, view, ownerKeysOf(phraseOf('anna')).recovery);
  const revoke = [{ peerId: deviceIdOf(revoked), by: null, heads: [] }];
  const record = await nextOwnerRecord({ groupId, view, opened }, { revoke }, { admin: deviceKeysOf(by).device });
  return new Map(views).set(idOf('anna'), judgeOwner([...view.records, record]));
}

type Edit = (state: ListState) => void;
const add =
  (...names: string[]): Edit =>
  ({ owners }) =>
    names.forEach((name) => owners.set(idOf(name), { admin: false }));
const promote =
  (name: string): Edit =>
  ({ owners }) =>
    void owners.set(idOf(name), { admin: true });
const remove =
  (name: string): Edit =>
  ({ owners, removed }) => {
    owners.delete(idOf(name));
    removed.add(idOf(name));
  };

/** Signed by device `by`, whose owner is its name without the number. */
function entry(parents: SignedEntry[], by: string, ...edits: Edit[]): SignedEntry {
  const [first, ...others] = parents;
  const state: ListState = {
    owners: new Map(first?.owners),
    vaults: new Map(first?.vaults),
    removed: new Set(first?.removed),
  };
  for (const other of others) {
    for (const id of other.removed) state.removed.add(id);
    for (const [owner, mark] of other.owners) state.owners.set(owner, mark);
  }
  for (const id of state.removed) state.owners.delete(id);
  for (const edit of edits) edit(state);
  return signEntry(groupId, parents, state, { by: idOf(by.slice(0, 4)), key: deviceKeysOf(by).device });
}

function judge(entries: SignedEntry[], by: ReadonlyMap<string, OwnerView> = views): ListView {
  const list = judgeList(entries, by);
  assert.ok(list);
  return list;
}

function names(list: ListState): string[] {
  return people.filter((name) => list.owners.has(idOf(name)));
}

test('the group id is the hash of the first entry, which its founder signs', () => {
  assert.deepEqual(hashOf(root.envelope.payload), groupId);
  assert.deepEqual(names(judge([root])), ['anna']);
  const bert = ownerKeysOf(phraseOf('bert')).signing;
  assert.throws(() => verifyEntry(groupId, sign('member-list', groupId, root.envelope.payload, bert)), refused);
  assert.throws(() => verifyEntry(seedOf('other'), root.envelope), refused);
  assert.notDeepEqual(foundList(ownerKeysOf(phraseOf('anna')).signing).groupId, groupId);
});

test('an entry is decoded to what was encoded', () => {
  fc.assert(
    fc.property(fc.subarray(people.slice(1)), fc.subarray(['v1', 'v2', 'v3']), (owners, vaults) => {
      const signed = entry([root], 'anna1', add(...owners), (state) => {
        for (const name of vaults)
          state.vaults.set(deviceIdOf(name), {
            peerId: deviceIdOf(name),
            name,
            machine: machineOf(name),
            ...(name === 'v1' && { x25519: seedOf('x') }),
          });
        state.removed.add(idText(publicKeyOf(deviceIdOf('gone'))));
      });
      const decoded = verifyEntry(groupId, decodeEnvelope(encodeEnvelope(signed.envelope)));
      assert.deepEqual(decoded, signed);
      assert.deepEqual(names(decoded), ['anna', ...owners]);
      assert.deepEqual(judge([root, decoded]).vaults, signed.vaults);
    }),
    { numRuns: 30 },
  );
});

test('admin devices of the founder and of admin owners sign, nobody else', () => {
  const second = entry([root], 'anna2', add('bert'));
  assert.deepEqual(names(judge([root, second])), ['anna', 'bert']);
  for (const by of ['anna3', 'bert1', 'carl1', 'anna9'])
    assert.deepEqual(judge([root, second, entry([second], by, add('dora'))]).tips, [second], by);
  const admin = entry([second], 'anna1', promote('bert'));
  const byBert = entry([admin], 'bert1', add('dora'));
  assert.deepEqual(names(judge([root, second, admin, byBert])), ['anna', 'bert', 'dora']);
});

test('an entry in the name of somebody else than its signer counts for nothing', () => {
  const lied = signEntry(
    groupId,
    [root],
    { ...root, owners: new Map([...root.owners, [idOf('bert'), { admin: true }]]) },
    { by: idOf('anna'), key: deviceKeysOf('bert1').device },
  );
  assert.deepEqual(judge([root, lied]).tips, [root]);
});

test('an entry that lacks a parent, counts wrong, drops somebody silently, or removes the founder counts for nothing', () => {
  const second = entry([root], 'anna1', add('bert'));
  const third = entry([second], 'anna1', add('carl'));
  assert.deepEqual(judge([root, third]).tips, [root]);
  assert.equal(judgeList([second, third], views), undefined);
  const silent = entry([third], 'anna1', ({ owners }) => void owners.delete(idOf('bert')));
  assert.deepEqual(judge([root, second, third, silent]).tips, [third]);
  const forgets = entry([entry([third], 'anna1', remove('bert'))], 'anna1', ({ removed }) => removed.clear());
  assert.deepEqual(judge([root, second, third, forgets]).tips, [third]);
  const coup = entry([entry([root], 'anna1', add('bert'), promote('bert'))], 'bert1', remove('anna'));
  assert.deepEqual(names(judge([root, coup])), ['anna']);
});

test('who was removed can be added again', () => {
  const second = entry([root], 'anna1', add('bert'));
  const third = entry([second], 'anna1', remove('bert'));
  const fourth = entry([third], 'anna1', add('bert'), ({ removed }) => void removed.delete(idOf('bert')));
  assert.deepEqual(names(judge([root, second, third])), ['anna']);
  assert.deepEqual(names(judge([root, second, third, fourth])), ['anna', 'bert']);
});

test('both additions of a fork hold, and its merge says the same', () => {
  const one = entry([root], 'anna1', add('bert'));
  const other = entry([root], 'anna2', add('carl'));
  const list = judge([root, one, other]);
  assert.deepEqual(names(list), ['anna', 'bert', 'carl']);
  assert.equal(list.tips.length, 2);
  const merged = entry(list.tips, 'anna1');
  assert.deepEqual(names(judge([root, one, other, merged])), ['anna', 'bert', 'carl']);
  assert.deepEqual(judge([root, one, other, merged]).tips, [merged]);
});

test('in a fork removals win', () => {
  const base = entry([root], 'anna1', add('bert', 'carl'));
  const removes = entry([base], 'anna1', remove('bert'));
  const adds = entry([entry([base], 'anna2', add('dora'))], 'anna2', promote('bert'));
  const dora = entry([base], 'anna2', add('dora'));
  assert.deepEqual(names(judge([root, base, removes, dora, adds])), ['anna', 'carl', 'dora']);
});

test('what a removed owner adds in a fork does not hold, what it had added before does', () => {
  const base = entry([root], 'anna1', add('bert'), promote('bert'));
  const before = entry([base], 'bert1', add('carl'));
  const removes = entry([before], 'anna1', remove('bert'));
  const backdated = entry([before], 'bert1', add('dora'));
  assert.deepEqual(names(judge([root, base, before, removes, backdated])), ['anna', 'carl']);
  assert.deepEqual(names(judge([root, base, before, backdated])), ['anna', 'bert', 'carl', 'dora']);
});

test('what a revoked device signed counts once an admin has built on it, and not beyond', async () => {
  const base = entry([root], 'anna1', add('bert'));
  const after = entry([base], 'anna1', add('carl'));
  const endorsed = entry([base], 'anna2');
  const revoked = await viewsWithout('anna1', 'anna2');
  assert.deepEqual(names(judge([root, base, after], revoked)), ['anna']);
  assert.deepEqual(names(judge([root, base, after, endorsed], revoked)), ['anna', 'bert']);
  assert.deepEqual(names(judge([root, base, after, endorsed])), ['anna', 'bert', 'carl']);
});

test('whom a revoked device made admin cannot vouch for it', async () => {
  const thief = entry([root], 'anna1', add('emil'), promote('emil'));
  const accomplice = entry([thief], 'emil1', add('dora'));
  assert.deepEqual(names(judge([root, thief, accomplice], await viewsWithout('anna1', 'anna2'))), ['anna']);
});

test('forks of forks say the same in every order', () => {
  const base = entry([root], 'anna1', add('bert', 'carl'), promote('bert'), promote('carl'));
  const byBert = entry([base], 'bert1', add('dora'));
  const byCarl = entry([base], 'carl1', remove('bert'), add('emil'));
  const byAnna = entry([base], 'anna1', remove('carl'));
  const merged = entry([byBert, byAnna], 'anna2');
  const late = entry([byBert], 'bert1', remove('dora'));
  const all = [root, base, byBert, byCarl, byAnna, merged, late];
  const expected = judge(all);
  // dora: removed in a branch. emil: added by carl alone, whom anna removed. bert: removed by carl, and removals of all branches hold.
  assert.deepEqual(names(expected), ['anna']);
  fc.assert(
    fc.property(fc.shuffledSubarray(all, { minLength: all.length }), fc.shuffledSubarray([...views]), (order, some) => {
      assert.deepEqual(judge(order), expected);
      const known = new Map(some);
      assert.deepEqual(judge(order, known), judge(all, known));
    }),
  );
});

test('a list of a thousand entries is judged', () => {
  const chain = [root];
  for (let index = 0; index < 1000; index++)
    chain.push(entry([chain.at(-1) ?? root], index % 2 === 0 ? 'anna1' : 'anna2'));
  assert.equal(judge(chain).trusted.length, 1001);
  assert.equal(judge(chain).seq, 1001);
});
