// A node that keeps what it signed for and gives wrong bytes to whoever asks: the project's own parts on the home of a stopped node, joined in
// the test's process. Everything else about it is honest: group, hello, receipts, proofs of possession are not asked here.
import { join } from 'node:path';
import { openConfig } from '../../src/node/home/config.ts';
import { openGroup } from '../../src/node/group/group.ts';
import { homePlaces, readIdentity } from '../../src/node/home/home.ts';
import { openKeeper } from '../../src/node/copies/keeper.ts';
import { openKeys } from '../../src/node/home/key-files.ts';
import { openLinks } from '../../src/node/copies/links.ts';
import { silentLog } from '../../src/node/home/log.ts';
import { openState } from '../../src/node/home/state.ts';
import { openSwarm } from '../../src/node/swarm/swarm.ts';
import { openDiskStore } from '../../src/store/disk-store.ts';

export interface LyingNode extends AsyncDisposable {
  /** Blocks that were given with a byte changed. */
  lies(): number;
}

/** `home` is that of a stopped node; its port is used. */
export async function startLyingNode(home: string): Promise<LyingNode> {
  const identity = await readIdentity(home);
  const keys = await openKeys(home);
  const config = openConfig(home);
  const places = homePlaces(home);
  await using parts = new AsyncDisposableStack();
  const db = await openState(places.state);
  parts.defer(() => db.close());
  const store = parts.use(await openDiskStore(places.store, { onNotice: () => undefined }));
  const group = await openGroup({ db: db.sublevel('group'), keys }, identity);
  const keeper = await openKeeper(
    {
      store,
      db: db.sublevel('keeper'),
      group: { ...group, roleOf: () => undefined },
      deviceKey: keys.device,
      isOwn: () => false,
    },
    { quotaBytes: () => 0, reserveBytes: () => 0 },
  );
  let lies = 0;
  const lying = {
    ...keeper,
    async get(id: Parameters<typeof keeper.get>[0]) {
      const bytes = await keeper.get(id);
      if (bytes === undefined) return undefined;
      lies += 1;
      const altered = Uint8Array.from(bytes);
      altered[altered.length >> 1] = (altered[altered.length >> 1] ?? 0) ^ 1;
      return altered;
    },
  };
  const swarm = parts.use(
    await openSwarm(
      {
        deviceSeed: keys.device.seed,
        group,
        db: db.sublevel('swarm'),
        directory: join(places.datastore),
        log: silentLog,
      },
      { port: config.get('listen.port'), listen: config.get('listen.addresses'), bootstrap: [] },
    ),
  );
  parts.use(openLinks({ swarm, group, keeper: lying, onHave: async () => undefined, log: silentLog }));
  const running = parts.move();
  return { lies: () => lies, [Symbol.asyncDispose]: () => running.disposeAsync() };
}
