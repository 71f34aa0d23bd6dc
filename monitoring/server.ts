/** HTTP: /metrics, /healthz, /readyz and /status, which are read only; and the console, where the process serves it. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { messageOf, ReplicationError } from '../core/errors.ts';
import type { Metrics } from './metrics.ts';

export interface MonitoringServer {
  readonly port: number;
  close(): Promise<void>;
}

/** More than what is always served: the console. */
export interface Pages {
  /** Answers a request that is for it; false when it is not. */
  handle(request: IncomingMessage, response: ServerResponse): boolean;
  close(): void;
}

/** Listens on `host:port` (port 0: any free one). Throws `config_invalid` when it cannot. */
export async function startMonitoring(listen: string, metrics: Metrics, pages?: Pages): Promise<MonitoringServer> {
  const { host, port } = parseListen(listen);
  const server = createServer((request, response) => {
    if (pages?.handle(request, response) === true) return;
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('Allow', 'GET, HEAD');
      return reply(response, 405, 'text/plain', 'only GET is served here\n');
    }
    const path = (request.url ?? '/').split('?')[0];
    switch (path) {
      case '/metrics':
        metrics.registry.metrics().then(
          (text) => reply(response, 200, metrics.registry.contentType, text),
          (thrown: unknown) => reply(response, 500, 'text/plain', `${messageOf(thrown)}\n`),
        );
        return;
      case '/healthz':
        return reply(response, 200, 'text/plain', 'ok\n');
      case '/readyz': {
        const notReady = metrics.facts().filter((stage) => !stage.ready);
        const lines = notReady.map((stage) => `${stage.kind}:${stage.name} ${stage.reason}`);
        return reply(
          response,
          notReady.length === 0 ? 200 : 503,
          'text/plain',
          notReady.length === 0 ? 'ready\n' : `${lines.join('\n')}\n`,
        );
      }
      case '/status':
        return reply(response, 200, 'application/json', `${JSON.stringify({ stages: metrics.facts() })}\n`);
      default:
        return reply(response, 404, 'text/plain', 'not here; see /metrics, /healthz, /readyz, /status\n');
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(
        new ReplicationError(
          'config_invalid',
          `monitoring.listen: cannot listen on ${listen}: ${cause.message}; choose another address, or --listen`,
          { cause },
        ),
      ),
    );
    server.listen(port, host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        pages?.close();
        server.closeAllConnections();
      }),
  };
}

function parseListen(listen: string): { readonly host: string; readonly port: number } {
  const [, host, digits] = /^\[?(.+?)\]?:(\d{1,5})$/.exec(listen) ?? [];
  const port = Number(digits);
  if (host === undefined || !(port <= 65_535))
    throw new ReplicationError(
      'config_invalid',
      `monitoring.listen: ${listen} is not host:port, with a port up to 65535; choose another address, or --listen`,
    );
  return { host, port };
}

function reply(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'Content-Type': type });
  response.end(body);
}
