/** The console: the page at `/`, its live events and its API. Looking is free; acting needs the token. docs/console.md */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { asReplicationError } from '../../core/errors.ts';
import type { Logger } from '../../core/logger.ts';
import { Live } from './live.ts';
import { SECURITY_HEADERS, StaticFiles } from './static-files.ts';
import { bearerToken, isOwnHost, sameToken } from './token.ts';
import type { ActionResult, Actor, ConsoleData, QuarantineEdit } from './views.ts';

export interface ConsoleOptions {
  readonly data: ConsoleData;
  /** Left out: nothing can be done from here. */
  readonly token: string | undefined;
  /** Names by which the console is reached, beside addresses and localhost. */
  readonly hosts: readonly string[];
  readonly log: Logger;
}

const MAX_BODY_BYTES = 1024 * 1024;
/** Whoever sends more than this is answered at once, whether or not it listens. */
const MOST_THROWN_AWAY_BYTES = 16 * MAX_BODY_BYTES;
const MAX_PAGE = 500;

class HttpProblem extends Error {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

interface Call {
  readonly parts: readonly string[];
  readonly query: URLSearchParams;
}

export class Console {
  readonly #data: ConsoleData;
  readonly #options: ConsoleOptions;
  readonly #files = new StaticFiles();
  readonly #live: Live;

  constructor(options: ConsoleOptions) {
    this.#options = options;
    this.#data = options.data;
    this.#live = new Live(options.data);
  }

  /** Answers a request that is for the console; false when it is not. */
  handle(request: IncomingMessage, response: ServerResponse): boolean {
    const [path = '/', search = ''] = (request.url ?? '/').split('?');
    if (path !== '/' && !path.startsWith('/api/') && !path.startsWith('/console/')) return false;
    if (!isOwnHost(request.headers.host, this.#options.hosts)) {
      respond(response, 421, { error: 'this name is not one of monitoring.hosts' });
      return true;
    }
    if (!path.startsWith('/api/')) {
      if (request.method !== 'GET' && request.method !== 'HEAD') respond(response, 405, { error: 'only GET' });
      else if (!this.#files.serve(path, request, response)) respond(response, 404, { error: 'not here' });
      return true;
    }
    // A browser says so when another site's page asks.
    if (request.headers['sec-fetch-site'] === 'cross-site') {
      respond(response, 403, { error: 'not for other sites' });
      return true;
    }
    if (path === '/api/events' && request.method === 'GET') this.#live.join(response);
    else void this.#answer(request, response, path.slice('/api/'.length), new URLSearchParams(search));
    return true;
  }

  close(): void {
    this.#live.close();
  }

  async #answer(
    request: IncomingMessage,
    response: ServerResponse,
    path: string,
    query: URLSearchParams,
  ): Promise<void> {
    try {
      const call = { parts: path.split('/').map(unescape), query };
      const found =
        request.method === 'GET'
          ? await this.#look(call)
          : request.method === 'POST'
            ? await this.#act(request, call)
            : undefined;
      if (found === undefined) throw new HttpProblem(404, 'not here; see docs/console.md');
      respond(response, 200, found);
    } catch (thrown) {
      if (thrown instanceof HttpProblem) {
        respond(response, thrown.status, { error: thrown.message }, thrown.headers);
        return;
      }
      const error = asReplicationError(thrown);
      this.#options.log.warn({ code: error.code }, error.message);
      const status = error.code === 'config_invalid' ? 400 : error.code === 'internal' ? 500 : 502;
      respond(response, status, { error: error.message, code: error.code, remedy: error.remedy });
    }
  }

  async #look({ parts, query }: Call): Promise<unknown> {
    const data = this.#data;
    const [first = '', second, third, fourth] = parts;
    const number = (name: string, fallback: number, most: number): number => {
      const text = query.get(name);
      const value = text === null ? fallback : Number(text);
      if (!Number.isSafeInteger(value) || value < 0) throw new HttpProblem(400, `${name} is not a number`);
      return Math.min(value, most);
    };
    if (second === undefined)
      switch (first) {
        case 'meta':
          return data.meta();
        case 'configuration':
          return { configuration: data.configuration() };
        case 'overview':
          return await data.overview();
        case 'explain': {
          const entity = query.get('entity');
          if (entity === null || !data.meta().entities.includes(entity))
            throw new HttpProblem(404, 'no flow makes records of this entity');
          return await data.explain(entity, query.getAll('key'));
        }
        default:
          return undefined;
      }
    if (first === 'flows' && third === 'drift')
      return fourth === undefined
        ? await data.drift(this.#flow(second), number('offset', 0, 1e9), number('limit', 100, MAX_PAGE))
        : await data.rowPair(this.#flow(second), id(fourth));
    if (first === 'flows' && third === 'quarantine') {
      const reason = query.get('reason');
      return fourth === undefined
        ? await data.quarantine(this.#flow(second), {
            offset: number('offset', 0, 1e9),
            limit: number('limit', 100, MAX_PAGE),
            ...(reason === null ? {} : { reason }),
          })
        : await data.quarantined(this.#flow(second), id(fourth));
    }
    if (first === 'targets' && third === 'audit') {
      const before = query.get('before') === null ? undefined : number('before', 0, Number.MAX_SAFE_INTEGER);
      if (fourth === 'check') return await data.checkAudit(this.#target(second));
      if (fourth === undefined) return await data.audit(this.#target(second), before, number('limit', 100, MAX_PAGE));
    }
    return undefined;
  }

  async #act(request: IncomingMessage, { parts }: Call): Promise<ActionResult | undefined> {
    const actor = this.#authorize(request);
    if (!/^application\/json\b/.test(request.headers['content-type'] ?? ''))
      throw new HttpProblem(415, 'the body must be JSON');
    const body = await readBody(request);
    const [first, name = '', what, entry, then] = parts;
    if (first === 'token') return { done: 'the token is right' };
    if (first === 'sources' && what === 'snapshot') {
      if (!this.#data.meta().sources.includes(name)) throw new HttpProblem(404, `there is no source ${name}`);
      return await this.#data.snapshot(actor, name, texts(body['tables'] ?? []), body['cancel'] === true);
    }
    if (first !== 'flows') return undefined;
    const flow = this.#flow(name);
    if (what === 'verify') return await this.#data.verify(actor, flow, body['repair'] === true);
    if (what !== 'quarantine') return undefined;
    if (entry === 'replay')
      return await this.#data.replay(actor, flow, body['all'] === true ? 'all' : ids(body['ids']));
    if (entry === 'discard') return await this.#data.discard(actor, flow, ids(body['ids']));
    if (entry !== undefined && then === 'edit')
      return await this.#data.edit(actor, flow, id(entry), editOf(body['set']), body['replay'] === true);
    return undefined;
  }

  #authorize(request: IncomingMessage): Actor {
    const { token } = this.#options;
    if (token === undefined)
      throw new HttpProblem(403, 'no token is configured (monitoring.token): nothing can be done here');
    const given = bearerToken(request);
    if (given === undefined || !sameToken(given, token))
      throw new HttpProblem(401, 'this needs the token', { 'WWW-Authenticate': 'Bearer realm="waybill"' });
    const claimed = unescape(String(request.headers['waybill-actor'] ?? '')).replaceAll(/[^\p{L}\p{N} ._@-]/gu, '');
    return { name: `${claimed.slice(0, 80) || 'somebody'} (console, ${request.socket.remoteAddress ?? 'unknown'})` };
  }

  #flow(name: string): string {
    if (!this.#data.meta().flows.some((flow) => flow.name === name))
      throw new HttpProblem(404, `there is no flow ${name}`);
    return name;
  }

  #target(name: string): string {
    if (!this.#data.meta().targets.includes(name)) throw new HttpProblem(404, `there is no target ${name}`);
    return name;
  }
}

function respond(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, {
    ...SECURITY_HEADERS,
    ...headers,
    'Content-Type': 'application/json; charset=utf-8',
    'Cache-Control': 'no-store',
  });
  response.end(`${JSON.stringify(body)}\n`);
}

function tooLarge(): HttpProblem {
  return new HttpProblem(413, 'the body is too large', { Connection: 'close' });
}

/**
 * Not by iteration: to leave that early would take the connection away, and with it the answer. For the same reason the rest
 * of a body that is too large is thrown away first: who is told while it still sends finds the connection closed, and not
 * always what was said. Throws 413.
 */
async function readText(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let bytes = 0;
  return await new Promise((resolve, reject) => {
    request.on('data', (part: Buffer) => {
      bytes += part.length;
      if (bytes <= MAX_BODY_BYTES) parts.push(part);
      else if (bytes > MOST_THROWN_AWAY_BYTES) reject(tooLarge());
    });
    request.on('end', () => {
      if (bytes > MAX_BODY_BYTES) reject(tooLarge());
      else resolve(Buffer.concat(parts).toString('utf8'));
    });
    request.on('error', reject);
  });
}

async function readBody(request: IncomingMessage): Promise<Record<string, unknown>> {
  const text = await readText(request);
  let parsed: unknown;
  try {
    parsed = JSON.parse(text || '{}');
  } catch {
    throw new HttpProblem(400, 'the body is not JSON');
  }
  if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed))
    throw new HttpProblem(400, 'the body is not a JSON object');
  return parsed as Record<string, unknown>;
}

function unescape(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new HttpProblem(400, 'the address is not written as it must be');
  }
}

function texts(value: unknown): string[] {
  if (!Array.isArray(value) || !value.every((each) => typeof each === 'string' && /^[^.]+\..+$/.test(each)))
    throw new HttpProblem(400, 'tables are given as schema.table');
  return value as string[];
}

function id(value: unknown): string {
  if (typeof value !== 'string' || !/^\d{1,19}$/.test(value)) throw new HttpProblem(400, 'that is not an id');
  return value;
}

function ids(value: unknown): string[] {
  if (!Array.isArray(value) || value.length === 0) throw new HttpProblem(400, 'ids are needed');
  return value.map(id);
}

function editOf(value: unknown): QuarantineEdit {
  const entries = value !== null && typeof value === 'object' ? Object.entries(value) : [];
  if (entries.length === 0 || !entries.every(([, each]) => each === null || typeof each === 'string'))
    throw new HttpProblem(400, 'set gives new values (text or null) by column');
  return value as QuarantineEdit;
}
