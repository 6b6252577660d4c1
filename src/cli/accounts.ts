// Accounts of this machine by number, as the system's own tools tell them (files, LDAP, … alike).
import { execFileSync } from 'node:child_process';
import { DezentError } from '../errors.ts';

export interface Account {
  name: string;
  group: string;
  uid: number;
  gid: number;
  homeDir: string;
}

/** The account with this number; throws FOLDER when there is none, because a service must run as somebody. */
export function accountOf(uid: number): Account {
  const line = process.platform === 'darwin' ? macAccount(uid) : getent('passwd', uid);
  const [name, , , gidText, , homeDir] = line.split(':');
  const gid = Number(gidText);
  if (name === undefined || homeDir === undefined || !Number.isSafeInteger(gid)) {
    throw new DezentError('FOLDER', `the folder belongs to user number ${uid}, whom this machine does not know`);
  }
  const group = process.platform === 'darwin' ? gidText : getent('group', gid).split(':')[0];
  return { name, group: group === undefined || group === '' ? String(gid) : group, uid, gid, homeDir };
}

function getent(database: 'passwd' | 'group', id: number): string {
  try {
    return execFileSync('getent', [database, String(id)], { stdio: ['ignore', 'pipe', 'ignore'] })
      .toString()
      .trim();
  } catch (error) {
    if ((error as { status?: number }).status === 2) return ''; // getent(1): the key is not there
    throw error;
  }
}

function macAccount(uid: number): string {
  const ids = execFileSync('id', ['-P', String(uid)])
    .toString()
    .trim()
    .split(':');
  return [ids[0], '', ids[2], ids[3], '', ids[8]].join(':');
}
