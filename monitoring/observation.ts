/**
 * What the stages of one process are at, told to all others through NATS (plain messages, nothing is stored): so that
 * the alerts and the console of one process know of all of them. It is never what decides about data.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { NatsConfig } from '../core/config.ts';
import type { Logger } from '../core/logger.ts';
import { connectNats } from '../core/nats.ts';
import { abortableDelay, runService } from '../core/run-service.ts';
import type { StageFacts } from './health.ts';
import type { Metrics } from './metrics.ts';

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Observation {
  readonly v: 1;
  /** `host:pid:random`. */
  readonly process: string;
  readonly startedAt: string;
  /** The gauges of the process. */
  readonly samples: readonly Sample[];
  readonly stages: readonly StageFacts[];
  /** All stages of the process, also those that report nothing: `capture:wms`, `console`. */
  readonly roles?: readonly string[];
  /** The process ends: it is to be forgotten at once. */
  readonly leaves?: boolean;
}

const EVERY_MS = 2000;
const FLUSH_MS = 1000;
/** A process that is silent for this long is gone. */
export const SILENT_MS = 10_000;

export const observationSubject = (config: NatsConfig): string => `${config.prefix}.observation`;
/** Whoever has just come may ask on this subject: all tell at once. */
export const askSubject = (config: NatsConfig): string => `${config.prefix}.observation.ask`;

/** Tells the others, every two seconds and when asked, until the signal aborts. */
export async function runObservation(options: {
  readonly nats: NatsConfig;
  readonly observe: () => Promise<Observation>;
  readonly log: Logger;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { observe, log, signal } = options;
  await runService(
    async (run) => {
      const nats = await connectNats(options.nats, 'waybill observation');
      const tell = async (): Promise<void> =>
        nats.connection.publish(observationSubject(options.nats), JSON.stringify(await observe()));
      nats.connection.subscribe(askSubject(options.nats), {
        callback: () => void tell().catch((thrown: unknown) => log.debug({ err: String(thrown) }, 'not told')),
      });
      try {
        while (!signal.aborted) {
          await tell();
          run.progressed();
          await abortableDelay(EVERY_MS, signal);
        }
        nats.connection.publish(
          observationSubject(options.nats),
          JSON.stringify({ ...(await observe()), leaves: true }),
        );
        // A broker that is away is not waited for: the others notice the silence.
        await Promise.race([nats.connection.flush(), delay(FLUSH_MS, undefined, { ref: false })]);
      } finally {
        await nats.close();
      }
    },
    { name: 'observation', signal, log },
  );
}

/** What `process` observes of itself, from what its stages reported. */
export function observer(
  process: string,
  metrics: Metrics,
  roles: () => readonly string[],
): () => Promise<Observation> {
  const startedAt = new Date().toISOString();
  return async () => ({
    v: 1,
    process,
    startedAt,
    samples: await metrics.samples(),
    stages: metrics.facts(),
    roles: roles(),
  });
}

/** Collects the observations of all processes. */
export class Observatory {
  readonly #own: () => Promise<Observation>;
  readonly #now: () => number;
  readonly #seen = new Map<string, { observation: Observation; atMs: number }>();

  /** `own` is what this process observes of itself: known without NATS. */
  constructor(own: () => Promise<Observation>, now: () => number = () => performance.now()) {
    this.#own = own;
    this.#now = now;
  }

  /** Listens until the signal aborts. */
  async run(options: { readonly nats: NatsConfig; readonly log: Logger; readonly signal: AbortSignal }): Promise<void> {
    const { log, signal } = options;
    await runService(
      async (run) => {
        const nats = await connectNats(options.nats, 'waybill observatory');
        const subscription = nats.connection.subscribe(observationSubject(options.nats));
        const stop = (): void => subscription.unsubscribe();
        signal.addEventListener('abort', stop, { once: true });
        try {
          run.progressed();
          for await (const message of subscription)
            if (!this.hear(message.string())) log.debug({ subject: message.subject }, 'not an observation');
        } finally {
          signal.removeEventListener('abort', stop);
          await nats.close();
        }
      },
      { name: 'observatory', signal, log },
    );
  }

  /** Takes what came under the subject of observations; false where that is none: anybody may publish there. */
  hear(text: string): boolean {
    const said = parseObservation(text);
    if (said !== undefined) this.take(said);
    return said !== undefined;
  }

  take(observation: Observation): void {
    if (observation.leaves === true) this.#seen.delete(observation.process);
    else this.#seen.set(observation.process, { observation, atMs: this.#now() });
  }

  /** The newest observation of each process that is alive, this one first. */
  async current(): Promise<Observation[]> {
    const own = await this.#own();
    const current = [own];
    for (const [process, { observation, atMs }] of this.#seen)
      if (this.#now() - atMs > SILENT_MS) this.#seen.delete(process);
      else if (process !== own.process) current.push(observation);
    return current;
  }
}

/** undefined for anything that this version does not understand. */
function parseObservation(text: string): Observation | undefined {
  let said: Partial<Observation> | null;
  try {
    said = JSON.parse(text) as Partial<Observation> | null;
  } catch {
    return undefined;
  }
  if (said === null || typeof said !== 'object' || said.v !== 1 || typeof said.process !== 'string') return undefined;
  const { samples, stages } = said;
  if (!Array.isArray(samples) || !samples.every(isSample)) return undefined;
  if (!Array.isArray(stages) || !stages.every(isFacts)) return undefined;
  return said as Observation;
}

function isSample(value: unknown): boolean {
  const { name, labels, value: number } = (value ?? {}) as Partial<Sample>;
  return typeof name === 'string' && typeof labels === 'object' && labels !== null && typeof number === 'number';
}

function isFacts(value: unknown): boolean {
  const { kind, name, state, lag } = (value ?? {}) as Partial<StageFacts>;
  return [kind, name, state].every((each) => typeof each === 'string') && typeof lag === 'object' && lag !== null;
}
