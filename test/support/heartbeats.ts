/** Heartbeats through a flow, as their series tells of them. */
import { runHeartbeats } from '../../cli/heartbeats.ts';
import type { Config } from '../../core/config.ts';
import { createLogger } from '../../core/logger.ts';
import { METRIC } from '../../monitoring/metric-names.ts';
import { Metrics } from '../../monitoring/metrics.ts';
import { waitFor } from './wait.ts';

/** A heartbeat that has been under way for longer does not arrive. */
const LATE_SECONDS = 2;

export class Heartbeats {
  readonly #metrics = new Metrics();
  readonly #arrived = new Map<string, number>();
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  #failure: unknown;

  constructor(config: Config, flow: string, target: string) {
    const often = { ...config, monitoring: { ...config.monitoring, heartbeat: 50 } };
    const options = { log: createLogger('silent'), signal: this.#stop.signal };
    this.#done = runHeartbeats(often, flow, {
      ...options,
      reportOf: (source) => {
        const report = this.#metrics.heartbeatReport(source, target);
        return {
          ...report,
          arrived: (seconds) => {
            this.#arrived.set(source, (this.#arrived.get(source) ?? 0) + 1);
            report.arrived(seconds);
          },
        };
      },
    }).catch((thrown: unknown) => void (this.#failure = thrown));
  }

  /** Waits until one has arrived that was sent from now on. */
  async arrive(source: string): Promise<void> {
    const before = this.#arrived.get(source) ?? 0;
    await waitFor(`heartbeats from ${source}`, async () => {
      if (this.#failure !== undefined) throw this.#failure;
      // The next one may have been under way.
      return (this.#arrived.get(source) ?? 0) >= before + 2;
    });
  }

  /** Waits until one is late. */
  async stayAway(source: string): Promise<void> {
    await waitFor(`a late heartbeat from ${source}`, async () => {
      if (this.#failure !== undefined) throw this.#failure;
      const samples = await this.#metrics.samples();
      return samples.some(
        ({ name, labels, value }) =>
          name === METRIC.heartbeat[0] && labels['source'] === source && value > LATE_SECONDS,
      );
    });
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }
}
