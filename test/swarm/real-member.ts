// A listed member of a group of real nodes that is played by the test: it has a device's keys and records, and says on raw streams what it likes.
import { Level } from 'level';
import { openGroup } from '../../src/node/group/group.ts';
import { homePlaces, readIdentity } from '../../src/node/home/home.ts';
import { openKeys } from '../../src/node/home/key-files.ts';
import { silentLog } from '../../src/node/home/log.ts';
import { openSwarm, type Swarm } from '../../src/node/swarm/swarm.ts';
import type { RealNode } from '../suites/real-nodes.ts';
import { meet } from './swarm-of.ts';

/** Goes online as this node, which must not be running, and waits until it is admitted by the others. */
export async function playMember(node: RealNode, others: readonly RealNode[]): Promise<Swarm> {
  await using undo = new AsyncDisposableStack();
  const keys = await openKeys(node.home);
  const places = homePlaces(node.home);
  const db = new Level(places.state, { compression: false });
  await db.open();
  undo.defer(() => db.close());
  const group = await openGroup({ db: db.sublevel('group'), keys }, await readIdentity(node.home));
  const swarm = undo.use(
    await openSwarm(
      {
        deviceSeed: keys.device.seed,
        group,
        db: db.sublevel('swarm'),
        directory: places.datastore,
        log: silentLog,
      },
      { port: 0, listen: ['127.0.0.1'], bootstrap: [] },
    ),
  );
  await Promise.all(others.map(({ deviceId }) => meet(swarm, deviceId)));
  const kept = undo.move();
  return { ...swarm, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}
