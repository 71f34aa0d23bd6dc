/** Sends messages as the Standard Webhooks specification 1.0 has it (standardwebhooks.com). */
import { createHmac } from 'node:crypto';
import type { WebhookConfig } from '../../core/config.ts';
import { messageOf } from '../../core/errors.ts';

export interface WebhookMessage {
  /** Stays the same when the message is sent again. */
  readonly id: string;
  /** JSON. */
  readonly body: string;
}

export type Delivery =
  | { readonly kind: 'delivered'; readonly status: number }
  /** `gone`: the receiver asks to be told nothing any more (410). `afterMs`: the wait that it asks for. */
  | {
      readonly kind: 'failed';
      readonly why: string;
      readonly gone: boolean;
      readonly status?: number;
      readonly afterMs?: number;
    };

const TIMEOUT_MS = 15_000;

/** `v1,` and the HMAC-SHA256 of id, time and body, in base64. `secret` begins with `whsec_`; `timestamp` is in seconds. */
export function signature(secret: string, id: string, timestamp: number, body: string): string {
  const key = Buffer.from(secret.slice('whsec_'.length), 'base64');
  return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`;
}

/** What a message is sent by. */
export type Receiver = Pick<WebhookConfig, 'url' | 'secret'> & Partial<Pick<WebhookConfig, 'previous_secret'>>;

/** One for each secret that the receiver may know, with spaces between them. */
function signatures(
  { secret, previous_secret: previous }: Receiver,
  id: string,
  timestamp: number,
  body: string,
): string {
  const secrets = previous === undefined ? [secret] : [secret, previous];
  return secrets.map((each) => signature(each, id, timestamp, body)).join(' ');
}

/** One try. Does not throw: what went wrong is in what it gives. */
export async function sendWebhook(
  receiver: Receiver,
  { id, body }: WebhookMessage,
  signal: AbortSignal,
): Promise<Delivery> {
  const timestamp = Math.floor(Date.now() / 1000);
  try {
    const { href, authorization } = withoutCredentials(receiver.url);
    const response = await fetch(href, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        'User-Agent': 'waybill',
        ...(authorization === undefined ? {} : { Authorization: authorization }),
        'webhook-id': id,
        'webhook-timestamp': String(timestamp),
        'webhook-signature': signatures(receiver, id, timestamp, body),
      },
      body,
      // A redirect would send a signed message to somebody who was not configured.
      redirect: 'manual',
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    });
    await response.body?.cancel();
    if (response.ok) return { kind: 'delivered', status: response.status };
    const afterMs = retryAfterMs(response.headers.get('retry-after'));
    return {
      kind: 'failed',
      why: `status ${response.status}${response.status >= 300 && response.status < 400 ? ', and redirects are not followed' : ''}`,
      gone: response.status === 410,
      status: response.status,
      ...(afterMs === undefined ? {} : { afterMs }),
    };
  } catch (thrown) {
    const cause = thrown instanceof Error && thrown.cause !== undefined ? thrown.cause : thrown;
    return { kind: 'failed', why: messageOf(cause), gone: false };
  }
}

/** `fetch` takes no user and password in a url, and quotes them when it says so. */
function withoutCredentials(url: string): { readonly href: string; readonly authorization?: string } {
  const parsed = new URL(url);
  const { username, password } = parsed;
  parsed.username = '';
  parsed.password = '';
  if (username === '' && password === '') return { href: parsed.href };
  const credentials = Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`);
  return { href: parsed.href, authorization: `Basic ${credentials.toString('base64')}` };
}

function retryAfterMs(header: string | null): number | undefined {
  if (header === null) return undefined;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1000);
  const at = Date.parse(header);
  return Number.isNaN(at) ? undefined : Math.max(0, at - Date.now());
}
