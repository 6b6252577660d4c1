// status: what the node does and why, on one screen.
import type { Command } from 'commander';
import type { StatusValue, TransferValue } from '../node/control/control-api.ts';
import { cliOf, declare } from './command.ts';
import { countText, safeText, sizeText, spanText, tableText } from './text.ts';

export function defineStatus(program: Command): void {
  declare(program, {
    usage: 'status',
    summary: 'what the node does and why',
    examples: ['dezent status', 'dezent status --json'],
  }).action(async (_options: object, self: Command) => {
    const cli = cliOf(self);
    const status = await cli.client.call('status', {});
    cli.answer(status, () => statusText(status));
  });
}

function statusText(status: StatusValue): string {
  const { files, peers, store } = status;
  const rows = [
    ['folder', safeText(status.folder)],
    ['device', `${status.deviceId}, port ${status.port}, up ${spanText(status.uptimeMs)}`],
    ['peers', `${peers.connected} of ${peers.known} connected`],
    ['files', filesText(files)],
    ['given back', sizeText(status.freedBytes)],
    [
      'store',
      `${sizeText(store.usedBytes)} of ${sizeText(store.quotaBytes)}, ${sizeText(status.heldForOthersBytes)} of it for others`,
    ],
  ];
  const transfers = status.transfers.map((transfer) => `  ${transferText(transfer)}`);
  const warnings = status.warnings.map((warning) => `! ${safeText(warning)}`);
  return [tableText(rows), ...transfers, ...warnings].join('\n');
}

function filesText(files: StatusValue['files']): string {
  const states = ['working', 'waiting', 'protected', 'stubbed', 'restored', 'failed'] as const;
  const parts = states.filter((state) => files[state] > 0).map((state) => `${files[state]} ${state}`);
  return parts.length === 0 ? countText(files.total, 'file') : `${files.total}: ${parts.join(', ')}`;
}

function transferText({ id, path, direction, doneBytes, totalBytes, rateBytesPerS, peer }: TransferValue): string {
  const arrow = direction === 'upload' ? 'to' : 'from';
  const far = peer === null ? '' : ` ${arrow} ${safeText(peer)}`;
  return `${direction} ${safeText(path)}${far}: ${sizeText(doneBytes)} of ${sizeText(totalBytes)}, ${sizeText(rateBytesPerS)}/s (${id})`;
}
