// service: installs, removes and shows what makes the system run the node. Files and keys are never touched.
import type { Command } from 'commander';
import { DezentError } from '../errors.ts';
import { cliOf, declare } from './command.ts';
import { safeText } from './text.ts';

export function defineService(program: Command): void {
  const service = declare(program, {
    usage: 'service',
    summary: 'run the node as a system service',
    examples: ['dezent service install', 'sudo dezent service install', 'dezent service status'],
  }).action(() => {
    throw new DezentError('USAGE', 'service needs one of install, uninstall, status');
  });
  declare(service, {
    usage: 'install',
    summary:
      'write the service definition and start it (as root: for the whole machine, running as the owner of the folder)',
    examples: ['dezent service install', 'dezent service install --dry-run'],
  })
    .option('--dry-run', 'only show what would be written, and where')
    .action(async ({ dryRun = false }: { dryRun?: boolean }, self: Command) => {
      const cli = cliOf(self);
      const { installService, planService } = await import('./service-install.ts');
      const planned = planService(cli.home);
      if (dryRun)
        return cli.answer(
          { unit: planned.unit, path: planned.path, text: planned.text },
          () => `# ${planned.path}\n${planned.text}`,
        );
      const installed = installService(planned);
      cli.report({ unit: planned.unit, path: planned.path, ...installed }, () =>
        installedText(planned.path, installed),
      );
    });
  declare(service, {
    usage: 'uninstall',
    summary: 'stop and remove the service; files and keys stay',
    examples: ['dezent service uninstall'],
  }).action(async (_options: object, self: Command) => {
    const cli = cliOf(self);
    const { uninstallService } = await import('./service-install.ts');
    const gone = uninstallService();
    cli.report(gone, () =>
      gone.removed
        ? `Removed ${safeText(gone.path)}. Your files and keys are where they were.`
        : 'No service is installed.',
    );
  });
  declare(service, {
    usage: 'status',
    summary: 'whether the service is installed and active',
    examples: ['dezent service status'],
  }).action(async (_options: object, self: Command) => {
    const cli = cliOf(self);
    const { serviceStatus } = await import('./service-install.ts');
    const status = serviceStatus();
    cli.answer(status, () =>
      status.installed ? `${safeText(status.path)}: ${status.active}` : 'No service is installed.',
    );
  });
}

function installedText(
  path: string,
  { changed, started, hint }: { changed: boolean; started: boolean; hint: string },
): string {
  const file = changed ? `Wrote ${safeText(path)}.` : `${safeText(path)} is as it should be.`;
  return [file, ...(started ? ['The service runs.'] : []), hint].join(' ').trimEnd();
}
