// What tells a system to run the node: a hardened systemd unit, a launchd plist, a Windows task. Pure text from a plan, and back to the home it names.
// Sandboxing needs no rights for files outside FOLDER and HOME; MemoryDenyWriteExecute is left out because V8 compiles at run time,
// RestrictSUIDSGID because restored files get back whatever mode they had, ProtectHome because FOLDER mostly lies below /home.
import { quoteWindows, systemdText, systemdWord, unquoteSystemd, xmlText, xmlUnescape } from './service-quoting.ts';

export interface ServicePlan {
  folder: string;
  home: string;
  /** The program and its first arguments, all absolute: Node and the entry file. */
  command: readonly [string, ...string[]];
  port: number;
  /** The account it runs under, for a service of the whole machine; undefined: a service of the user who installs it. */
  account: { name: string; group: string; uid: number } | undefined;
}

/** Seconds; long enough that a node which cannot start does not fill the log. */
const RESTART_S = 5;
/** Seconds; the node ends by itself after 30 s of stopping (run.ts). */
const STOP_S = 45;
/** A connection per peer and a descriptor per pack and watched directory. */
const MAX_OPEN_FILES = 65_536;
const FIRST_FREE_PORT = 1024;

export function systemdUnit(plan: ServicePlan): string {
  const { folder, home, command, account } = plan;
  const lines = [
    '[Unit]',
    `Description=dezent storage node for ${systemdText(folder)}`,
    `RequiresMountsFor=${systemdWord(folder)} ${systemdWord(home)}`,
    ...(account === undefined ? [] : ['Wants=network-online.target', 'After=network-online.target']),
    'StartLimitIntervalSec=0',
    '',
    '[Service]',
    'Type=exec',
    ...(account === undefined ? [] : [`User=${account.name}`, `Group=${account.group}`]),
    `Environment=${systemdWord(`DEZENT_HOME=${home}`)}`,
    `ExecStart=${execWords([...command, 'run'])}`,
    'Restart=on-failure',
    `RestartSec=${RESTART_S}`,
    `TimeoutStopSec=${STOP_S}`,
    `LimitNOFILE=${MAX_OPEN_FILES}`,
    'UMask=0077',
    'NoNewPrivileges=yes',
    ...(account === undefined ? [] : sandbox(plan, account)),
    '',
    '[Install]',
    `WantedBy=${account === undefined ? 'default.target' : 'multi-user.target'}`,
  ];
  return `${lines.join('\n')}\n`;
}

/** systemd refuses quotes, backslashes and dollars in the program's own path (but not in arguments): env(1) starts such a one. */
function execWords([program, ...rest]: readonly string[]): string {
  const words =
    program === undefined || /["'\\$]/.test(program) ? ['/usr/bin/env', program ?? '', ...rest] : [program, ...rest];
  return words.map((word) => systemdWord(word, true)).join(' ');
}

/** Only for a service of the machine: a user's own systemd cannot set these up where unprivileged namespaces are off. */
function sandbox({ folder, home, port }: ServicePlan, { uid }: { uid: number }): string[] {
  const temporary = [folder, home].some((path) => /^\/(?:var\/)?tmp(?:\/|$)/.test(path));
  const bind = port > 0 && port < FIRST_FREE_PORT ? ['CAP_NET_BIND_SERVICE'] : [];
  const rights = uid === 0 ? ['CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER', ...bind] : bind;
  return [
    'ProtectSystem=strict',
    `ReadWritePaths=${systemdWord(folder)} ${systemdWord(home)}`,
    `PrivateTmp=${temporary ? 'no' : 'yes'}`,
    'PrivateDevices=yes',
    'ProtectClock=yes',
    'ProtectControlGroups=yes',
    'ProtectHostname=yes',
    'ProtectKernelLogs=yes',
    'ProtectKernelModules=yes',
    'ProtectKernelTunables=yes',
    'LockPersonality=yes',
    'RestrictNamespaces=yes',
    'RestrictRealtime=yes',
    'RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX',
    'SystemCallArchitectures=native',
    'SystemCallFilter=@system-service',
    `CapabilityBoundingSet=${rights.join(' ')}`,
    ...(bind.length > 0 && uid !== 0 ? [`AmbientCapabilities=${bind.join(' ')}`] : []),
  ];
}

export const LAUNCHD_LABEL = 'org.dezent.node';

export function launchdPlist({ home, command, account }: ServicePlan): string {
  const words = [...command, 'run'].map((word) => `    <string>${xmlText(word)}</string>`).join('\n');
  const user = account === undefined ? '' : `  <key>UserName</key>\n  <string>${xmlText(account.name)}</string>\n`;
  return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>${LAUNCHD_LABEL}</string>
${user}  <key>ProgramArguments</key>
  <array>
${words}
  </array>
  <key>EnvironmentVariables</key>
  <dict>
    <key>DEZENT_HOME</key>
    <string>${xmlText(home)}</string>
  </dict>
  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <dict>
    <key>SuccessfulExit</key>
    <false/>
  </dict>
  <key>ThrottleInterval</key>
  <integer>${RESTART_S}</integer>
  <key>ExitTimeOut</key>
  <integer>${STOP_S}</integer>
  <key>Umask</key>
  <integer>63</integer>
  <key>ProcessType</key>
  <string>Background</string>
</dict>
</plist>
`;
}

/** A task for the Task Scheduler (`schtasks /create /tn dezent /xml FILE`), started when the user logs on, restarted when it fails. */
export function windowsTask({ home, command }: ServicePlan): string {
  const [program, ...rest] = command;
  const words = [...rest, '--home', home, 'run'].map(quoteWindows).join(' ');
  return `<?xml version="1.0" encoding="UTF-8"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>dezent storage node</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Enabled>true</Enabled>
    </LogonTrigger>
  </Triggers>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure>
      <Interval>PT1M</Interval>
      <Count>999</Count>
    </RestartOnFailure>
  </Settings>
  <Actions>
    <Exec>
      <Command>${xmlText(program)}</Command>
      <Arguments>${xmlText(words)}</Arguments>
    </Exec>
  </Actions>
</Task>
`;
}

/** The home that an installed definition of any of the three kinds names, or undefined when it is not one of ours. */
export function homeIn(text: string): string | undefined {
  const unit = /^Environment="DEZENT_HOME=(.*)"$/m.exec(text)?.[1];
  if (unit !== undefined) return unquoteSystemd(unit);
  const plist = /<key>DEZENT_HOME<\/key>\s*<string>([^<]*)<\/string>/.exec(text)?.[1];
  if (plist !== undefined) return xmlUnescape(plist);
  const task = /<Arguments>.*?--home (?:"([^"]*)"|(\S+)) run<\/Arguments>/.exec(text.replaceAll('&quot;', '"'));
  return task === null ? undefined : xmlUnescape(task[1] ?? task[2] ?? '');
}
