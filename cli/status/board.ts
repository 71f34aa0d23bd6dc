/** Looks at all systems of a configuration: each by itself, so that one that hangs does not hide the others. */
import { setTimeout as delay } from 'node:timers/promises';
import type { SourceProbe, SourceReading } from '../../capture/source-status.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import type { Config, SourceConfig } from '../../core/config.ts';
import { abortableDelay } from '../../core/run-service.ts';
import { flowPaths } from './flow-paths.ts';
import { Probe } from './probe.ts';
import { describeStatus, type StatusReport } from './report.ts';
import { StreamSession, type NatsReading } from './stream-session.ts';
import { TargetSession, type TargetReading } from './target-session.ts';

export const LOOK_EVERY_MS = 1000;
const POLL_MS = 20;

export class StatusBoard {
  readonly #config: Config;
  readonly #nats: Probe<StreamSession, NatsReading>;
  readonly #sources: ReadonlyMap<string, Probe<SourceProbe, SourceReading>>;
  readonly #targets: ReadonlyMap<string, Probe<TargetSession, TargetReading>>;

  constructor(config: Config) {
    this.#config = config;
    this.#nats = new Probe({
      what: 'NATS',
      silent: 'nats_timeout',
      open: () => StreamSession.open(config),
      read: (session) => session.read(this.#applied()),
    });
    this.#sources = mapValues(
      config.sources,
      (settings, name) =>
        new Probe({
          what: `source ${name}`,
          silent: 'source_unreachable',
          open: () => openSource(config, name, settings),
          read: (session) => session.read(this.#tailOf(name)),
        }),
    );
    this.#targets = mapValues(
      config.targets,
      (settings, name) =>
        new Probe({
          what: `target ${name}`,
          silent: 'target_unreachable',
          open: () => TargetSession.open(settings, flowsTo(config, name)),
          read: (session) => session.read(),
        }),
    );
  }

  /** Looks at everything once. */
  async look(): Promise<StatusReport> {
    // The streams come first: where they end decides what is asked of the sources.
    await this.#nats.look();
    await Promise.all([this.#hear(), ...this.#databases().map((probe) => probe.look())]);
    if (this.#nats.error === undefined) await this.#nats.look();
    return this.report();
  }

  /** Looks at everything again and again until the signal aborts. */
  async watch(signal: AbortSignal): Promise<void> {
    await Promise.all(
      [this.#nats, ...this.#databases()].map(async (probe) => {
        while (!signal.aborted) {
          await probe.look();
          await abortableDelay(LOOK_EVERY_MS, signal);
        }
      }),
    );
  }

  /** Resolves when every system has answered or failed to. */
  async complete(): Promise<void> {
    const probes = [this.#nats, ...this.#databases()];
    while (!probes.every((probe) => probe.looked)) await delay(POLL_MS);
  }

  report(): StatusReport {
    return describeStatus(
      this.#config,
      { nats: this.#nats, sources: this.#sources, targets: this.#targets },
      new Date(),
    );
  }

  /** Lets all sessions go. */
  close(): void {
    for (const probe of [this.#nats, ...this.#databases()]) probe.close();
  }

  async #hear(): Promise<void> {
    const held = this.#nats.value?.held;
    if (this.#nats.error === undefined && held !== undefined) await this.#nats.session?.hear(held);
  }

  #databases(): { look(): Promise<void>; close(): void; readonly looked: boolean }[] {
    return [...this.#sources.values(), ...this.#targets.values()];
  }

  #tailOf(source: string): Parameters<SourceProbe['read']>[0] {
    const name = cdcStreamName(this.#config.nats.prefix, source);
    const stream = this.#nats.error === undefined ? this.#nats.value?.streams.get(name) : undefined;
    return stream !== undefined && 'tail' in stream ? stream.tail : undefined;
  }

  /** The frame up to which each flow has applied, as far as the targets have said. */
  #applied(): Map<string, number> {
    const applied = new Map<string, number>();
    for (const { name, target } of flowPaths(this.#config)) {
      const row = this.#targets.get(target)?.value?.positions.find(({ flow }) => flow === name);
      if (row !== undefined) applied.set(name, row.streamSeq);
    }
    return applied;
  }
}

async function openSource(config: Config, name: string, settings: SourceConfig): Promise<SourceProbe> {
  if (settings.kind === 'postgres') {
    const { openPostgresProbe } = await import('../../capture/postgres/status.ts');
    return await openPostgresProbe(name, settings, config.nats.prefix);
  }
  const { openMysqlProbe } = await import('../../capture/mysql/status.ts');
  return await openMysqlProbe(name, settings);
}

function flowsTo(config: Config, target: string): string[] {
  return flowPaths(config).flatMap((path) => (path.fanOut === undefined && path.target === target ? [path.name] : []));
}

function mapValues<V, W>(record: Readonly<Record<string, V>>, make: (value: V, key: string) => W): Map<string, W> {
  return new Map(Object.entries(record).map(([key, value]) => [key, make(value, key)]));
}
