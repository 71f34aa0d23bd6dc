/** The configuration that the demo runs `waybill run` with. */
import { createServer } from 'node:net';
import { stringify } from 'yaml';
import type { Branch } from './branch.ts';
import type { Retailer } from './retailer/retailer.ts';

/** Of a demo on this machine alone: it is no secret. */
export const CONSOLE_TOKEN = 'waybill-demo-token';

export function configuration(at: {
  natsUrl: string;
  branches: readonly Branch[];
  retailer: Retailer | undefined;
  targetUrl: string;
  listen: string;
}): string {
  const { natsUrl, branches, retailer, targetUrl, listen } = at;
  const more = retailer?.config();
  return stringify({
    version: 1,
    nats: { servers: [natsUrl], stream: { max_bytes: '512MB', sync_interval: '10s' } },
    sources: { ...Object.fromEntries(branches.map(({ name, source }) => [name, source])), ...more?.sources },
    targets: { visibility: { kind: 'postgres', url: targetUrl }, ...more?.targets },
    flows: {
      ...Object.fromEntries(
        branches.map(({ name, flow, schema }) => [flow, { mirror: name, to: 'visibility', schema }]),
      ),
      ...more?.flows,
    },
    monitoring: { listen, token: CONSOLE_TOKEN },
  });
}

/** A port of this machine that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}
