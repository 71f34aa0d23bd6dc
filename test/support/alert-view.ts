/** What a real Prometheus makes of the rules of Waybill, for tests that break things. */
import type { PrometheusServer } from '../../sandbox/prometheus.ts';
import { waitFor } from './wait.ts';

const DEADLINE_MS = 100_000;

export class AlertView {
  readonly #url: string;

  constructor(prometheus: PrometheusServer) {
    this.#url = prometheus.url;
  }

  /** The names of the alerts that fire now. */
  async firing(): Promise<string[]> {
    const { alerts } = (await this.#ask('alerts')) as {
      alerts: { state: string; labels: { alertname: string } }[];
    };
    return alerts.filter((alert) => alert.state === 'firing').map((alert) => alert.labels.alertname);
  }

  /** The first value that a query gives; undefined where it gives none. */
  async value(query: string): Promise<number | undefined> {
    const { result } = (await this.#ask(`query?query=${encodeURIComponent(query)}`)) as {
      result: { value: [number, string] }[];
    };
    return result[0] === undefined ? undefined : Number(result[0].value[1]);
  }

  /** The labels of all series that a query gives. */
  async labels(query: string): Promise<Readonly<Record<string, string>>[]> {
    const { result } = (await this.#ask(`query?query=${encodeURIComponent(query)}`)) as {
      result: { metric: Record<string, string> }[];
    };
    return result.map(({ metric }) => metric);
  }

  /** Waits until each of the alerts has been seen to fire. */
  async fire(names: readonly string[]): Promise<void> {
    const missing = new Set(names);
    await waitFor(
      `${names.join()} to fire`,
      async () => {
        for (const name of await this.firing()) missing.delete(name);
        if (missing.size > 0) throw new Error(`${[...missing].join()} did not fire`);
        return true;
      },
      DEADLINE_MS,
    );
  }

  /** Waits until none of the alerts fires. */
  async clear(names: readonly string[]): Promise<void> {
    await waitFor(
      `${names.join()} to clear`,
      async () => {
        const left = (await this.firing()).filter((name) => names.includes(name));
        if (left.length > 0) throw new Error(`${left.join()} fires`);
        return true;
      },
      DEADLINE_MS,
    );
  }

  async #ask(path: string): Promise<unknown> {
    const response = await fetch(`${this.#url}/api/v1/${path}`);
    return ((await response.json()) as { data: unknown }).data;
  }
}
