// peers: the group's devices and vaults. invite: a code that lets one more in.
import type { Command } from 'commander';
import type { InviteValue, PeerValue } from '../node/control/control-api.ts';
import { cliOf, declare } from './command.ts';
import { parseDuration } from './duration.ts';
import { whole } from './numbers.ts';
import { agoText, safeText, tableText } from './text.ts';

interface InviteOptions {
  vault?: boolean;
  uses: number;
  ttl: number;
}

const HOUR_MS = 3_600_000;
const USES = { name: '--uses', least: 1, most: 1000 };

export function definePeers(program: Command): void {
  declare(program, { usage: 'peers', summary: 'the devices of the group', examples: ['dezent peers'] }).action(
    async (_options: object, self: Command) => {
      const cli = cliOf(self);
      const peers = await cli.client.call('peers', {});
      cli.answer(peers, () => peersText(peers));
    },
  );
}

export function defineInvite(program: Command): void {
  declare(program, {
    usage: 'invite',
    summary: 'make a code with which another device joins the group',
    examples: ['dezent invite', 'dezent invite --uses 5 --ttl 2d'],
  })
    .option('--vault', 'for a machine that keeps only ciphertext and owns nothing')
    .option('--uses <n>', 'how many devices may use it', whole(USES), 1)
    .option('--ttl <duration>', 'how long it is valid (default: 1h)', parseDuration, HOUR_MS)
    .action(async ({ vault = false, uses, ttl }: InviteOptions, self: Command) => {
      const cli = cliOf(self);
      const value = await cli.client.call('invite', { vault, uses, ttlMs: ttl });
      cli.answer(value, () => inviteText(value));
    });
}

function peersText(peers: readonly PeerValue[]): string {
  if (peers.length === 0) return 'No other devices yet. `dezent invite` makes a code for one.';
  const rows = peers.map(({ name, role, owner, connected, lastSeenAt, deviceId, addrs }) => [
    safeText(name),
    role,
    connected ? 'connected' : `seen ${agoText(lastSeenAt)}`,
    owner === null ? '-' : `${owner.slice(0, 10)}…`,
    deviceId,
    safeText(addrs[0] ?? ''),
  ]);
  return tableText(rows);
}

function inviteText({ invite, uses, expiresAt }: InviteValue): string {
  const times = uses === 1 ? 'once' : `${uses} times`;
  return `${invite}\n\nOn the other machine:\n  dezent init FOLDER --invite ${invite}\nIt can be used ${times}, until ${new Date(expiresAt).toLocaleString()}.`;
}
