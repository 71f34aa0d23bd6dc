/** What receivers of webhooks may do, and what becomes of alerts then: of slow ones, of those that are gone, at a shutdown. */
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { parseConfig, type Config } from '../../core/config.ts';
import { createLogger } from '../../core/logger.ts';
import { runNotifier } from '../../monitoring/alerts/notifier.ts';
import type { OutboxEntry } from '../../monitoring/alerts/outbox.ts';
import { METRIC } from '../../monitoring/metric-names.ts';
import { Observatory, type Sample } from '../../monitoring/observation.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { waitFor } from '../support/wait.ts';

const SECRET = `whsec_${Buffer.alloc(32, 5).toString('base64')}`;
/** Five minutes are 600 ms, and five seconds 10. */
const PACE = 0.002;
const ABSENT = 'WaybillCaptureAbsent';
const CAPTURE: Sample = { name: METRIC.captureState[0], labels: { source: 'wms', state: 'streaming' }, value: 1 };

interface Received {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly type: string;
  readonly response: ServerResponse;
}

let nats: NatsServer;
let receiver: Server;
let received: Received[];
let noted: OutboxEntry[];
let samples: readonly Sample[];
let prefix: string;
/** The status by path; nothing: the answer is kept waiting. */
let answers: Record<string, number>;
let running: { stop: AbortController; done: Promise<void> } | undefined;

beforeAll(async () => {
  nats = await startNats();
  receiver = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const body = JSON.parse(Buffer.concat(parts).toString()) as { type: string; data: { alert: string } };
      const path = request.url!;
      if (body.data.alert === ABSENT) received.push({ path, headers: request.headers, type: body.type, response });
      if (answers[path] !== undefined) response.writeHead(answers[path]).end();
    });
  });
  await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
}, 60_000);

beforeEach(() => {
  received = [];
  noted = [];
  samples = [];
  answers = { '/ops': 204 };
  prefix = `w${randomUUID().slice(0, 8)}`;
});

afterEach(async () => {
  await stop();
  receiver.closeAllConnections();
});

afterAll(async () => {
  receiver?.close();
  await nats?.dispose();
});

/** Tells the receivers with these paths, by their names, as a process of its own would. */
function start(paths: Record<string, string>): void {
  const at = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`;
  const webhooks = Object.fromEntries(
    Object.entries(paths).map(([name, path]) => [name, { url: `${at}${path}`, secret: SECRET }]),
  );
  const text = JSON.stringify({ version: 1, nats: { servers: [nats.url], prefix }, monitoring: { webhooks } });
  const config: Config = parseConfig(text, {});
  const ended = new AbortController();
  const observe = async () => ({ v: 1 as const, process: 'test', startedAt: '', samples, stages: [] });
  const done = runNotifier({
    nats: config.nats,
    webhooks: config.monitoring.webhooks,
    observatory: new Observatory(observe),
    holder: 'test',
    leaseTtlMs: 5000,
    audit: async (entry) => void noted.push({ ...entry }),
    log: createLogger('silent'),
    signal: ended.signal,
    pace: PACE,
  });
  running = { stop: ended, done };
}

async function stop(): Promise<void> {
  running?.stop.abort();
  await running?.done;
  running = undefined;
}

const to = (path: string, type?: string): Received[] =>
  received.filter((each) => each.path === path && (type === undefined || each.type === type));
const outcomes = (webhook: string): (string | undefined)[] =>
  noted.filter((each) => each.webhook === webhook && each.alert === ABSENT).map(({ outcome }) => outcome);

it('one that takes its time keeps no other waiting', async () => {
  start({ ops: '/ops', slow: '/slow' });
  await waitFor('the alert at both', async () => to('/ops').length === 1 && to('/slow').length === 1);
  samples = [CAPTURE];
  await waitFor('its end', async () => to('/ops', 'alert.resolved').length === 1);
  await waitFor('both lines', async () => outcomes('ops').length === 2);
  // It still has the beginning in its hands, and is told of the end once it has taken that.
  const [first] = to('/slow');
  expect(first!.response.writableEnded || first!.response.destroyed).toBe(false);
  expect(to('/slow')).toHaveLength(1);
  answers['/slow'] = 204;
  first!.response.writeHead(204).end();
  await waitFor('its end', async () => to('/slow', 'alert.resolved').length === 1);
});

it('one that answers 410 is told nothing any more, also after a restart, until it has another url', async () => {
  answers['/left'] = 410;
  start({ ops: '/ops', left: '/left' });
  await waitFor('the alert', async () => outcomes('left').length === 1);
  expect(outcomes('left')).toEqual(['given up: status 410']);
  await stop();
  answers['/left'] = 204;
  start({ ops: '/ops', left: '/left' });
  samples = [CAPTURE];
  await waitFor('the end', async () => outcomes('left').length === 2 && outcomes('ops').length === 2);
  expect(outcomes('left')[1]).toMatch(/^given up: it asked at .* to be told nothing any more \(410\)$/);
  expect(to('/left')).toHaveLength(1);
  await stop();
  answers['/moved'] = 204;
  start({ ops: '/ops', left: '/moved' });
  samples = [];
  await waitFor('the alert where it has moved', async () => to('/moved', 'alert.firing').length === 1);
});

it('a shutdown does not wait for one, and it is told again afterwards', async () => {
  start({ slow: '/slow' });
  await waitFor('the alert', async () => to('/slow').length === 1);
  const startedMs = performance.now();
  await stop();
  // Not the 15 s that a receiver has.
  expect(performance.now() - startedMs).toBeLessThan(10_000);
  answers['/slow'] = 204;
  start({ slow: '/slow' });
  await waitFor('its line', async () => outcomes('slow').length === 1);
  expect(outcomes('slow')).toEqual(['delivered (204)']);
  const [first, again] = to('/slow');
  expect(again!.headers['webhook-id']).toBe(first!.headers['webhook-id']);
  // What the end of the process cut off is no try.
  expect(noted.find(({ webhook }) => webhook === 'slow')!.attempts).toBe(1);
});
