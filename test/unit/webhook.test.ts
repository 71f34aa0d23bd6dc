/** Signatures of webhooks, checked by another implementation of the Standard Webhooks. */
import { randomBytes } from 'node:crypto';
import { Webhook } from 'standardwebhooks';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../core/config.ts';
import { signature } from '../../monitoring/alerts/webhook.ts';

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
    ['another scheme', { url: 'ftp://a.example', secret }, /http or https/],
    ['no secret', { url: 'https://a.example' }, /webhooks\.ops\.secret/],
  ])('refuses %s', (_, webhook, message) => {
    expect(() => read(webhook)).toThrow(message);
  });
});
