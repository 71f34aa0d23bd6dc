/**
 * The stage that tells webhooks of alerts: once when one begins and once when it ends. One process at a time does it.
 * What is to be sent is stored before it is sent, so a restart sends it again (with the same id) rather than never.
 */
import { createHash, randomUUID } from 'node:crypto';
import type { NatsConfig, WebhookConfig } from '../../core/config.ts';
import { asReplicationError } from '../../core/errors.ts';
import { acquireLease, openBucket } from '../../core/lease.ts';
import type { Logger } from '../../core/logger.ts';
import { connectNats } from '../../core/nats.ts';
import { abortableDelay, backoffMs, runService } from '../../core/run-service.ts';
import type { Observatory } from '../observation.ts';
import { AlertEvaluator, type Transition } from './evaluator.ts';
import { dueEntries, Outbox, type OutboxEntry } from './outbox.ts';
import { SampleSet } from './sample-set.ts';
import { sendWebhook, type Delivery } from './webhook.ts';

export interface NotifierOptions {
  readonly nats: NatsConfig;
  readonly webhooks: Readonly<Record<string, WebhookConfig>>;
  readonly observatory: Observatory;
  readonly holder: string;
  readonly leaseTtlMs: number;
  /** Writes a line into the audit logs of the targets that an alert is about. Throws when it cannot. */
  readonly audit: (entry: OutboxEntry) => Promise<void>;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Scales all times: how often conditions are looked at, how long they must hold, the waits between tries. */
  readonly pace?: number;
}

/** How often conditions are looked at. */
const EVERY_MS = 5000;
/** Waits from 5 s on, doubling up to an hour: 30 tries in a little less than a day. */
const BACKOFF = { minMs: 5000, maxMs: 3_600_000 };
export const MAX_ATTEMPTS = 30;
/** Tries to write the line into the audit log are not counted: the last of them may be a day later. */
const MAX_AUDIT_MS = 86_400_000;
const AUDIT_AGAIN_MS = 30_000;

/** Runs until the signal aborts. */
export async function runNotifier(options: NotifierOptions): Promise<void> {
  const { holder, leaseTtlMs, log, signal } = options;
  await runService(
    async (run) => {
      const nats = await connectNats(options.nats, 'waybill alerts');
      try {
        const bucket = await openBucket(nats, options.nats);
        const lease = await acquireLease(bucket, 'lease.alerts', { holder, ttlMs: leaseTtlMs, signal });
        if (lease === undefined) return;
        try {
          await new Notifier(options, await Outbox.open(bucket)).run(() => run.progressed());
        } finally {
          await lease.release();
        }
      } finally {
        await nats.close();
      }
    },
    { name: 'alerts', signal, log },
  );
}

class Notifier {
  readonly #options: NotifierOptions;
  readonly #outbox: Outbox;
  readonly #evaluator: AlertEvaluator;
  #dirty = false;
  /** What is being sent or noted: a receiver that takes its time keeps nobody else waiting. */
  readonly #underWay = new Map<OutboxEntry, Promise<void>>();
  /** One after another: each write names the one before. */
  #saving: Promise<void> = Promise.resolve();
  #nextSave: Promise<void> | undefined;
  #failure: unknown;

  constructor(options: NotifierOptions, outbox: Outbox) {
    this.#options = options;
    this.#outbox = outbox;
    this.#evaluator = new AlertEvaluator({ firing: outbox.firing, patience: options.pace ?? 1 });
  }

  async run(progressed: () => void): Promise<void> {
    const { observatory, signal, pace = 1 } = this.#options;
    try {
      while (!signal.aborted && this.#failure === undefined) {
        const samples = SampleSet.of(await observatory.current());
        for (const transition of this.#evaluator.evaluate(Date.now(), samples)) this.#announce(transition);
        await this.#save();
        for (const entry of dueEntries(this.#outbox.entries, Date.now()))
          if (!this.#underWay.has(entry)) this.#underWay.set(entry, this.#handle(entry));
        progressed();
        await abortableDelay(EVERY_MS * pace, signal);
      }
    } finally {
      await Promise.all(this.#underWay.values());
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Sends an entry, or notes what became of it, and stores that it did. Does not throw. */
  async #handle(entry: OutboxEntry): Promise<void> {
    try {
      await (entry.outcome === undefined ? this.#send(entry) : this.#audit(entry));
      await this.#save();
    } catch (thrown) {
      this.#failure ??= thrown;
    } finally {
      this.#underWay.delete(entry);
    }
  }

  #announce({ state, alert }: Transition): void {
    const { webhooks, log, nats } = this.#options;
    const now = new Date();
    this.#dirty = true;
    this.#outbox.firing = this.#evaluator.firing();
    log.warn({ alert: alert.alert, state, severity: alert.severity, labels: alert.labels }, alert.summary);
    for (const [webhook, { severity }] of Object.entries(webhooks)) {
      if (severity === 'critical' && alert.severity !== 'critical') continue;
      const dropped = this.#outbox.add({
        id: `msg_${randomUUID().replaceAll('-', '')}`,
        webhook,
        body: JSON.stringify({
          type: `alert.${state}`,
          timestamp: now.toISOString(),
          data: { installation: nats.prefix, ...alert },
        }),
        alert: alert.alert,
        state,
        labels: alert.labels,
        attempts: 0,
        nextMs: now.getTime(),
      });
      if (dropped !== undefined)
        log.error(
          { webhook: dropped.webhook, id: dropped.id, alert: dropped.alert },
          dropped.outcome === undefined
            ? 'too many alerts wait: one is gone'
            : `too many alerts wait: the audit log will lack one that was ${dropped.outcome}`,
        );
    }
  }

  async #send(entry: OutboxEntry): Promise<void> {
    const { webhooks, log, signal, pace = 1 } = this.#options;
    const webhook = webhooks[entry.webhook];
    const sent = this.#refusal(entry.webhook) ?? (await sendWebhook(webhook!, entry, signal));
    if (signal.aborted && sent.kind === 'failed') return;
    this.#dirty = true;
    entry.attempts += 1;
    entry.nextMs = Date.now();
    if (sent.kind === 'delivered') {
      entry.outcome = `delivered (${sent.status})`;
      log.info({ webhook: entry.webhook, id: entry.id, alert: entry.alert, attempts: entry.attempts }, 'alert sent');
      return;
    }
    if (sent.status === 410) this.#forget(entry.webhook);
    if (sent.gone || entry.attempts >= MAX_ATTEMPTS) {
      entry.outcome = `given up: ${sent.why}`;
      log.error({ webhook: entry.webhook, id: entry.id, alert: entry.alert }, `alert not sent, ${entry.outcome}`);
      return;
    }
    const waitMs = Math.max(backoffMs(BACKOFF, entry.attempts, Math.random()), sent.afterMs ?? 0) * pace;
    entry.nextMs += Math.min(waitMs, BACKOFF.maxMs);
    log.warn({ webhook: entry.webhook, id: entry.id, attempt: entry.attempts, waitMs }, `alert not sent: ${sent.why}`);
  }

  /** Why a receiver is not to be asked at all. */
  #refusal(name: string): (Delivery & { kind: 'failed' }) | undefined {
    const webhook = this.#options.webhooks[name];
    if (webhook === undefined) return { kind: 'failed', why: 'it is not in the configuration any more', gone: true };
    const urlHash = hashOf(webhook.url);
    const gone = this.#outbox.gone.find((each) => each.webhook === name && each.urlHash === urlHash);
    return gone && { kind: 'failed', why: `it asked at ${gone.at} to be told nothing any more (410)`, gone: true };
  }

  /** Nothing more is sent to a receiver, until it has another url. */
  #forget(webhook: string): void {
    const others = this.#outbox.gone.filter((each) => each.webhook !== webhook);
    const urlHash = hashOf(this.#options.webhooks[webhook]!.url);
    this.#outbox.gone = [...others, { webhook, urlHash, at: new Date().toISOString() }];
    this.#options.log.error(
      { webhook },
      'this receiver answered 410 and is told of no alert any more: give it another url, or take it out',
    );
  }

  async #audit(entry: OutboxEntry): Promise<void> {
    const { audit, log, pace = 1 } = this.#options;
    this.#dirty = true;
    try {
      await audit(entry);
      this.#outbox.remove(entry);
    } catch (thrown) {
      const error = asReplicationError(thrown);
      const sinceMs = Date.now() - Date.parse((JSON.parse(entry.body) as { timestamp: string }).timestamp);
      if (sinceMs > MAX_AUDIT_MS) this.#outbox.remove(entry);
      entry.nextMs = Date.now() + AUDIT_AGAIN_MS * pace;
      log.warn({ code: error.code, id: entry.id }, `an alert is not in the audit log yet: ${error.message}`);
    }
  }

  /**
   * While NATS is away alerts are sent all the same: it may be what they are about. One save at a time, and one that waits:
   * that one is for all who ask meanwhile, since it writes what is there when it begins.
   */
  async #save(): Promise<void> {
    this.#nextSave ??= this.#saving.then(() => this.#saveNow());
    const mine = this.#nextSave;
    // Whoever comes next tries by itself.
    this.#saving = mine.catch(() => undefined);
    await mine;
  }

  async #saveNow(): Promise<void> {
    this.#nextSave = undefined;
    if (!this.#dirty) return;
    try {
      this.#dirty = false;
      await this.#outbox.save();
    } catch (thrown) {
      const error = asReplicationError(thrown);
      this.#dirty = true;
      if (error.code === 'stream_conflict') throw error;
      this.#options.log.warn({ code: error.code }, `alerts to be sent are not stored: ${error.message}`);
    }
  }
}

function hashOf(url: string): string {
  return createHash('sha256').update(url).digest('hex');
}
