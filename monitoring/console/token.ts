/** Who may act: whoever sends the token of the configuration in a header, which another site cannot make a browser do. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';

/** Compares without telling by its time how much agreed. */
export function sameToken(given: string, expected: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(expected));
}

export function bearerToken(request: IncomingMessage): string | undefined {
  return /^Bearer ([\x21-\x7e]+)$/.exec(request.headers.authorization ?? '')?.[1];
}

/**
 * A name that somebody else's DNS points to this address is not answered, or any page could read the console by
 * rebinding its own name. Addresses and localhost cannot be rebound; other names must be configured.
 */
export function isOwnHost(host: string | undefined, names: readonly string[]): boolean {
  if (host === undefined) return false;
  const name = bare(host);
  return name === 'localhost' || isIP(name.replace(/^\[|\]$/g, '')) !== 0 || names.some((each) => bare(each) === name);
}

/** Names of hosts are the same in capitals, and without the port or the dot behind them. */
function bare(host: string): string {
  return host.replace(/:\d+$/, '').replace(/\.$/, '').toLowerCase();
}
