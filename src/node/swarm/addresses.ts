// Where this node listens and which of its addresses it tells: everything the machine has, loopback only when there is nothing else
// or when the peer is on this machine too.
import { createServer, isIP, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr';
import { DezentError, systemCode } from '../../errors.ts';
import { cutPeer } from './bootstrap.ts';

/** The machine has no IPv6, or not this address any more. */
const NO_SUCH_ADDRESS = new Set(['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EINVAL']);

/** Multiaddrs to listen on: the given IPs, or everything on IPv4 and IPv6. Throws CONFIG for what is no IP. */
export function listenAddrs(port: number, ips: readonly string[]): string[] {
  const hosts = ips.length === 0 ? ['0.0.0.0', '::'] : ips;
  return hosts.map((ip) => {
    if (isIP(ip) === 0) throw new DezentError('CONFIG', `not an IP address to listen on: ${JSON.stringify(ip)}`);
    return `/ip${isIPv6(ip) ? 6 : 4}/${ip}/tcp/${port}`;
  });
}

/**
 * Tries each address and returns those that work; libp2p's own error does not say which one failed or why.
 * Throws PORT_IN_USE naming the port, CONFIG for an IP that this machine does not have. IPv6 may be missing where nobody asked for it.
 */
export async function usableListenAddrs(port: number, ips: readonly string[]): Promise<string[]> {
  const usable: string[] = [];
  for (const addr of listenAddrs(port, ips)) {
    const host = hostOf(multiaddr(addr));
    const code = await tryListen(host, port);
    if (code === undefined) usable.push(addr);
    else if (code === 'EADDRINUSE') throw new DezentError('PORT_IN_USE', `port ${port} is in use on ${host}`);
    else if (code === 'EACCES') throw new DezentError('CONFIG', `this user may not listen on port ${port}`);
    else if (!NO_SUCH_ADDRESS.has(code)) throw new DezentError('IO', `cannot listen on ${host}, port ${port}: ${code}`);
    else if (ips.length > 0) throw new DezentError('CONFIG', `this machine has no address ${host}`);
  }
  return usable;
}

/** The code of the error, or undefined when listening works. */
function tryListen(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error) => resolve(systemCode(error) ?? error.message));
    server.listen({ host, port, ipv6Only: true }, () => server.close(() => resolve(undefined)));
  });
}

/** Without loopback, unless there is nothing else. */
export function tellable(addrs: Multiaddr[]): Multiaddr[] {
  const elsewhere = addrs.filter((addr) => !isLoopback(hostOf(addr)));
  return elsewhere.length > 0 ? elsewhere : addrs;
}

/** Whether the other end of a connection is on this machine. */
export function isThisMachine(remote: Multiaddr): boolean {
  const host = hostOf(remote);
  return isLoopback(host) || localIps().includes(host);
}

export function isLoopbackAddr(addr: string): boolean {
  return isLoopback(hostOf(multiaddr(addr)));
}

/** Changes when an interface or an address comes or goes. */
export function networkFingerprint(): string {
  return localIps().sort().join(' ');
}

/** The IP and port without `/p2p/…`. */
export function withoutPeer(addr: Multiaddr): string {
  return cutPeer(addr.toString());
}

function localIps(): string[] {
  return Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address));
}

function hostOf(addr: Multiaddr): string {
  return addr.getComponents().find(({ name }) => name === 'ip4' || name === 'ip6')?.value ?? '';
}

function isLoopback(host: string): boolean {
  return host === '::1' || host.startsWith('127.');
}
