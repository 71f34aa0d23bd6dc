/** Urls of sources that name several servers, as `mysql://user:password@one:3306,two:3306/erp`. */

const AUTHORITY = /^(\w+:\/\/(?:[^/?#]*@)?)([^/?#@]*)(.*)$/s;

/** The url of each server that a url names, in its order; the url itself when it names one. */
export function serverUrls(url: string): string[] {
  const [, before, hosts, behind] = AUTHORITY.exec(url) ?? [];
  if (hosts === undefined || !hosts.includes(',')) return [url];
  return hosts.split(',').map((host) => `${before}${host.trim()}${behind}`);
}

/** The server that a url names, for logs and errors: host and port. */
export function serverName(url: string): string {
  try {
    return new URL(url).host;
  } catch {
    return '(not a url)';
  }
}

/** A url without its password, for logs and errors. */
export function redactUrl(url: string): string {
  const servers = serverUrls(url);
  try {
    const parsed = servers.map((server) => new URL(server));
    for (const each of parsed) if (each.password !== '') each.password = '***';
    const [first, ...others] = parsed as [URL, ...URL[]];
    if (others.length === 0) return first.toString();
    return first.toString().replace(first.host, parsed.map(({ host }) => host).join(','));
  } catch {
    return '(not a url)';
  }
}
