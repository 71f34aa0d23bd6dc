/** Which alerts stand, and what is still to be sent: one value in the NATS bucket, so that it outlives every process. */
import type { KV } from '@nats-io/kv';
import { ReplicationError } from '../../core/errors.ts';
import { natsError } from '../../core/nats.ts';
import type { Alert, Transition } from './evaluator.ts';
import type { Labels } from './sample-set.ts';

export interface OutboxEntry {
  /** `webhook-id`. */
  readonly id: string;
  /** Name of the webhook in the configuration. */
  readonly webhook: string;
  readonly body: string;
  readonly alert: string;
  readonly state: Transition['state'];
  readonly labels: Labels;
  attempts: number;
  /** Time since the epoch. */
  nextMs: number;
  /** Sent or given up; what is left is its line in the audit log. */
  outcome?: string;
}

/** A receiver that asked to be told nothing any more. */
export interface GoneReceiver {
  readonly webhook: string;
  /** SHA-256 of its url, which may be a secret: another url is another receiver. */
  readonly urlHash: string;
  /** RFC 3339. */
  readonly at: string;
}

interface Stored {
  readonly v: 1;
  readonly firing: readonly Alert[];
  readonly entries: readonly OutboxEntry[];
  /** Absent from what versions before wrote. */
  readonly gone?: readonly GoneReceiver[];
  /** Rises with every process that takes over, so that one which was overtaken cannot write. */
  readonly taken: number;
}

const KEY = 'alerts';
/** A receiver that is away for long is not told of everything that happened meanwhile. */
export const MAX_ENTRIES = 400;

/**
 * The entries whose time has come, oldest first: to be sent, or to be noted in the audit log. To one receiver the news of
 * one alert go in their order: told of its end first, it would believe for ever that the alert stands.
 */
export function dueEntries(entries: readonly OutboxEntry[], nowMs: number): OutboxEntry[] {
  const waiting = new Set<string>();
  return entries.filter((entry) => {
    const { webhook, alert, labels, outcome } = entry;
    if (outcome === undefined) {
      const subject = JSON.stringify([webhook, alert, Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))]);
      if (waiting.has(subject)) return false;
      waiting.add(subject);
    }
    return entry.nextMs <= nowMs;
  });
}

/** The alerts that stand, as the process that tells of them has stored them. */
export async function readStanding(bucket: KV): Promise<readonly Alert[]> {
  try {
    return (await readStored(bucket)).stored?.firing ?? [];
  } catch (thrown) {
    throw natsError(thrown, 'reading which alerts stand');
  }
}

async function readStored(bucket: KV): Promise<{ stored: Stored | undefined; revision: number }> {
  const entry = await bucket.get(KEY);
  const stored = entry === null || entry.operation !== 'PUT' ? undefined : entry.json<Stored>();
  if (stored !== undefined && stored.v !== 1)
    throw new ReplicationError('frame_version', `${KEY} was written by a newer version`);
  return { stored, revision: entry?.revision ?? 0 };
}

export class Outbox {
  readonly #bucket: KV;
  #revision: number;
  #taken: number;
  firing: readonly Alert[];
  entries: OutboxEntry[];
  gone: readonly GoneReceiver[];

  private constructor(bucket: KV, revision: number, stored: Stored) {
    this.#bucket = bucket;
    this.#revision = revision;
    this.#taken = stored.taken;
    this.firing = stored.firing;
    this.entries = [...stored.entries];
    this.gone = stored.gone ?? [];
  }

  /** Reads what there is and marks it as taken over. */
  static async open(bucket: KV): Promise<Outbox> {
    try {
      const { stored, revision } = await readStored(bucket);
      const { firing = [], entries = [], gone = [], taken = 0 } = stored ?? {};
      const outbox = new Outbox(bucket, revision, { v: 1, firing, entries, gone, taken: taken + 1 });
      await outbox.save();
      return outbox;
    } catch (thrown) {
      throw natsError(thrown, 'reading what alerts are to be sent');
    }
  }

  /**
   * Adds an entry; gives the one that had to make room: the oldest of those that were sent and only wait for the audit log,
   * or else the oldest unsent one.
   */
  add(entry: OutboxEntry): OutboxEntry | undefined {
    this.entries.push(entry);
    if (this.entries.length <= MAX_ENTRIES) return undefined;
    const index = this.entries.findIndex(({ outcome }) => outcome !== undefined);
    return this.entries.splice(Math.max(0, index), 1)[0];
  }

  remove(entry: OutboxEntry): void {
    this.entries = this.entries.filter((each) => each !== entry);
  }

  /** Throws `stream_conflict` when another process has taken over. */
  async save(): Promise<void> {
    const text = JSON.stringify({
      v: 1,
      firing: this.firing,
      entries: this.entries,
      gone: this.gone,
      taken: this.#taken,
    } satisfies Stored);
    try {
      this.#revision =
        this.#revision === 0
          ? await this.#bucket.create(KEY, text)
          : await this.#bucket.update(KEY, text, this.#revision);
    } catch (thrown) {
      throw natsError(thrown, 'storing what alerts are to be sent');
    }
  }
}
