// Real nodes on loopback for the tests of the swarm: each with its own home, port 0, and a group as the test gives it.
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys';
import { peerIdFromPrivateKey } from '@libp2p/peer-id';
import { Level } from 'level';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLog } from '../../src/node/home/log.ts';
import { openSwarm, type Swarm, type SwarmSettings } from '../../src/node/swarm/swarm.ts';
import type { SwarmGroup } from '../../src/node/swarm/gate.ts';

export interface Device {
  seed: Uint8Array;
  peerId: string;
}

export async function newDevice(): Promise<Device> {
  const seed = new Uint8Array(randomBytes(32));
  return { seed, peerId: peerIdFromPrivateKey(await generateKeyPairFromSeed('Ed25519', seed)).toString() };
}

export interface Home extends AsyncDisposable {
  directory: string;
  /** Starts the swarm of this home; the caller disposes of it. */
  start(group: SwarmGroup, settings?: Partial<SwarmSettings>): Promise<Swarm>;
  device: Device;
}

export async function newHome(device?: Device): Promise<Home> {
  const own = device ?? (await newDevice());
  const directory = await mkdtemp(join(tmpdir(), 'dezent-swarm-'));
  return {
    directory,
    device: own,
    async start(group, settings = {}) {
      const db = new Level(join(directory, 'state'));
      await db.open();
      try {
        const swarm = await openSwarm(
          {
            deviceSeed: own.seed,
            group,
            db: db.sublevel('swarm'),
            directory: join(directory, 'datastore'),
            log: silentLog,
          },
          { port: 0, listen: ['127.0.0.1'], bootstrap: [], ...settings },
        );
        return {
          ...swarm,
          async [Symbol.asyncDispose]() {
            await swarm[Symbol.asyncDispose]();
            await db.close();
          },
        };
      } catch (error) {
        await db.close();
        throw error;
      }
    },
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

/** Resolves once the peer is connected. */
export function meet(swarm: Swarm, peerId: string): Promise<void> {
  if (swarm.connected().includes(peerId)) return Promise.resolve();
  return new Promise((resolve) => {
    const end = swarm.onConnected((arrived) => {
      if (arrived !== peerId) return;
      end();
      resolve();
    });
  });
}

/** Resolves once the peer has gone. */
export function part(swarm: Swarm, peerId: string): Promise<void> {
  if (!swarm.connected().includes(peerId)) return Promise.resolve();
  return new Promise((resolve) => {
    const end = swarm.onDisconnected((gone) => {
      if (gone !== peerId) return;
      end();
      resolve();
    });
  });
}
