// bootstrap-peers.json: peers that are dialled besides the known members, `{"v": 1, "about": "…", "peers": ["/ip4/…/tcp/…/p2p/…"]}`.
// An empty list is valid: peers come from invites, from the peer book and from other members.
import { readFile } from 'node:fs/promises';
import { multiaddr } from '@multiformats/multiaddr';
import * as v from 'valibot';
import { DezentError } from '../../errors.ts';

const MAX_BOOTSTRAP_PEERS = 100;

const fileSchema = v.strictObject({
  v: v.literal(1),
  about: v.optional(v.string()),
  peers: v.pipe(v.array(v.string()), v.maxLength(MAX_BOOTSTRAP_PEERS)),
});

/** The multiaddrs of the file. Throws CONFIG naming the file and the entry that is wrong; a file that is absent is wrong too. */
export async function readBootstrapPeers(file: string): Promise<string[]> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw new DezentError('CONFIG', `the bootstrap file ${file} cannot be read`, { cause: error });
  });
  const parsed = v.safeParse(fileSchema, parseJson(file, text));
  if (!parsed.success) {
    const issue = parsed.issues[0];
    throw new DezentError('CONFIG', `${file}: ${v.getDotPath(issue) ?? 'the file'}: ${issue.message}`);
  }
  for (const [index, entry] of parsed.output.peers.entries()) checkEntry(file, index, entry);
  return parsed.output.peers;
}

function parseJson(file: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new DezentError('CONFIG', `${file} is no JSON`, { cause: error });
  }
}

function checkEntry(file: string, index: number, entry: string): void {
  try {
    peerOfAddr(entry);
  } catch (error) {
    const hint = 'An entry looks like /ip4/192.0.2.7/tcp/8080/p2p/12D3Koo… (dezent peers shows them).';
    throw new DezentError('CONFIG', `${file}: peers.${index} is not the address of a peer: ${JSON.stringify(entry)}`, {
      hint,
      cause: error,
    });
  }
}

/** The peer id at the end of a multiaddr; throws CONFIG when the text is none or has no `/p2p/…`. */
export function peerOfAddr(text: string): string {
  const last = componentsOf(text).at(-1);
  if (last?.name !== 'p2p' || last.value === undefined)
    throw new DezentError('CONFIG', `no peer id at the end of ${JSON.stringify(text)}`);
  return last.value;
}

/** The address without its `/p2p/…` at the end. */
export function cutPeer(text: string): string {
  return text.replace(/\/p2p\/[^/]+$/u, '');
}

function componentsOf(text: string): { name: string; value?: string }[] {
  try {
    return multiaddr(text).getComponents();
  } catch (error) {
    throw new DezentError('CONFIG', `not an address: ${JSON.stringify(text)}`, { cause: error });
  }
}
