/** Signatures of webhooks, checked by another implementation of the Standard Webhooks. */
import { randomBytes } from 'node:crypto';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Webhook } from 'standardwebhooks';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parseConfig } from '../../core/config.ts';
import { dueEntries, type OutboxEntry } from '../../monitoring/alerts/outbox.ts';
import { sendWebhook, signature } from '../../monitoring/alerts/webhook.ts';

const now = (): number => Math.floor(Date.now() / 1000);

describe('the signature', () => {
  it('is that of the example in the specification', () => {
    const body = '{"test": 2432232314}';
    expect(signature('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'msg_p5jXN8AQM9LWM0D4loKWxJek', 1614265330, body)).toBe(
      'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
    );
  });

  it.each([24, 32, 64])('is accepted by another implementation, with a secret of %i bytes', (length) => {
    const secret = `whsec_${randomBytes(length).toString('base64')}`;
    const body = JSON.stringify({ text: 'é 漢 \u{1F4E6} "' });
    const timestamp = now();
    const headers = {
      'webhook-id': 'msg_1',
      'webhook-timestamp': String(timestamp),
      'webhook-signature': signature(secret, 'msg_1', timestamp, body),
    };
    expect(new Webhook(secret).verify(body, headers)).toEqual(JSON.parse(body));
    expect(() => new Webhook(secret).verify(`${body} `, headers)).toThrow();
    expect(() => new Webhook(secret).verify(body, { ...headers, 'webhook-id': 'msg_2' })).toThrow();
  });
});

describe('the configuration of webhooks', () => {
  const read = (webhook: Record<string, unknown>): unknown =>
    parseConfig(JSON.stringify({ version: 1, monitoring: { webhooks: { ops: webhook } } }), {}).monitoring.webhooks;
  const secret = `whsec_${Buffer.alloc(24, 7).toString('base64')}`;

  it('takes a url and a secret', () => {
    expect(read({ url: 'https://pager.example/hook', secret })).toEqual({
      ops: { url: 'https://pager.example/hook', secret, severity: 'warning' },
    });
  });

  it.each([
    ['a secret without its prefix', { url: 'https://a.example', secret: secret.slice(6) }, /whsec_/],
    ['a short secret', { url: 'https://a.example', secret: 'whsec_AAAA' }, /24 to 64 bytes/],
    ['no url at all', { url: 'http://', secret }, /http or https/],
    ['a password that cannot be read', { url: 'https://a:%zz@a.example', secret }, /http or https/],
    ['a short secret of before', { url: 'https://a.example', secret, previous_secret: 'whsec_AAAA' }, /24 to 64 bytes/],
    ['another scheme', { url: 'ftp://a.example', secret }, /http or https/],
    ['no secret', { url: 'https://a.example' }, /webhooks\.ops\.secret/],
  ])('refuses %s', (_, webhook, message) => {
    expect(() => read(webhook)).toThrow(message);
  });
});

describe('a try to send', () => {
  const secret = `whsec_${Buffer.alloc(24, 7).toString('base64')}`;
  const message = { id: 'msg_1', body: '{}' };
  const { signal } = new AbortController();

  it('gives the credentials of a url in a header, and never in what it says', async () => {
    const seen: IncomingHttpHeaders[] = [];
    const server = createServer((request, response) => {
      seen.push(request.headers);
      response.writeHead(204).end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `http://ops:p%40ss@127.0.0.1:${(server.address() as AddressInfo).port}/hook?key=also-a-secret`;
    expect(await sendWebhook({ url, secret }, message, signal)).toEqual({ kind: 'delivered', status: 204 });
    expect(seen[0]!.authorization).toBe(`Basic ${Buffer.from('ops:p@ss').toString('base64')}`);
    await new Promise((resolve) => server.close(resolve));
    const failed = await sendWebhook({ url, secret }, message, signal);
    expect(failed).toMatchObject({ kind: 'failed', why: expect.stringContaining('ECONNREFUSED') });
    expect(JSON.stringify(failed)).not.toMatch(/p%40ss|p@ss|also-a-secret/);
  });
});

describe('a receiver', () => {
  const secret = `whsec_${Buffer.alloc(24, 7).toString('base64')}`;
  const previous = `whsec_${Buffer.alloc(32, 8).toString('base64')}`;
  const { signal } = new AbortController();
  let answer: { status: number; headers: Record<string, string> };
  const seen: { path: string; headers: Record<string, string>; body: string }[] = [];
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const headers = request.headers as Record<string, string>;
      seen.push({ path: request.url!, headers, body: Buffer.concat(parts).toString() });
      response.writeHead(answer.status, answer.headers).end();
    });
  });
  const url = (): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`;

  beforeAll(async () => await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
  beforeEach(() => {
    answer = { status: 204, headers: {} };
    seen.length = 0;
  });
  afterAll(() => void server.close());

  it('that changes its secret takes what is signed with the old one and with the new one', async () => {
    const body = '{"type":"alert.firing"}';
    await sendWebhook({ url: url(), secret, previous_secret: previous }, { id: 'msg_1', body }, signal);
    await sendWebhook({ url: url(), secret }, { id: 'msg_2', body }, signal);
    const [changing, changed] = seen;
    for (const each of [secret, previous])
      expect(new Webhook(each).verify(changing!.body, changing!.headers)).toEqual({ type: 'alert.firing' });
    expect(changing!.headers['webhook-signature']!.split(' ')).toHaveLength(2);
    expect(() => new Webhook(previous).verify(changed!.body, changed!.headers)).toThrow();
  });

  it('that sends elsewhere is not followed', async () => {
    answer = { status: 307, headers: { location: '/elsewhere' } };
    expect(await sendWebhook({ url: url(), secret }, { id: 'msg_1', body: '{}' }, signal)).toMatchObject({
      kind: 'failed',
      gone: false,
      why: 'status 307, and redirects are not followed',
    });
    expect(seen.map(({ path }) => path)).toEqual(['/hook']);
  });

  it.each([
    ['120', 120_000],
    ['0', 0],
    ['soon', undefined],
  ])('that asks for a pause (%s) has it', async (after, afterMs) => {
    answer = { status: 429, headers: { 'retry-after': after } };
    const failed = await sendWebhook({ url: url(), secret }, { id: 'msg_1', body: '{}' }, signal);
    expect(failed.kind === 'failed' && failed.afterMs).toBe(afterMs);
  });

  it('that is gone says so with 410', async () => {
    answer = { status: 410, headers: {} };
    expect(await sendWebhook({ url: url(), secret }, { id: 'msg_1', body: '{}' }, signal)).toMatchObject({
      gone: true,
    });
  });
});

describe('what is due', () => {
  const entry = (id: string, given: Partial<OutboxEntry>): OutboxEntry => ({
    id,
    webhook: 'ops',
    body: '{}',
    alert: 'WaybillDrift',
    state: 'firing',
    labels: { flow: 'a', table: 't' },
    attempts: 0,
    nextMs: 0,
    ...given,
  });
  const due = (...entries: OutboxEntry[]): string[] => dueEntries(entries, 1000).map(({ id }) => id);

  it('is the end of an alert only once its beginning is sent or given up', () => {
    const end = entry('end', { state: 'resolved', labels: { table: 't', flow: 'a' } });
    expect(due(entry('begin', { nextMs: 60_000, attempts: 1 }), end)).toEqual([]);
    expect(due(entry('begin', {}), end)).toEqual(['begin']);
    expect(due(entry('begin', { nextMs: 60_000, outcome: 'delivered (204)' }), end)).toEqual(['end']);
  });

  it('is not held up by other alerts, or by other receivers', () => {
    expect(
      due(
        entry('waits', { nextMs: 60_000 }),
        entry('of another flow', { labels: { flow: 'b', table: 't' } }),
        entry('of another alert', { alert: 'WaybillStalled' }),
        entry('to another', { webhook: 'pager' }),
      ),
    ).toEqual(['of another flow', 'of another alert', 'to another']);
  });
});
