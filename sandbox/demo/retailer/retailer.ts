/** The retailer of the demo: its systems, what happens in them, and whether it all fits together at the end. */
import { writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { stringify } from 'yaml';
import { loadConfig } from '../../../core/config.ts';
import type { PostgresServer } from '../../postgres.ts';
import { settleAll } from '../cleanup.ts';
import { openPostgres } from '../observer.ts';
import type { WorkloadTotals } from '../workers.ts';
import { runPostgresWork } from '../workload.ts';
import { retailerConfig, type ErpSource, type RetailerConfig, type RetailerUrls } from './flows.ts';
import { readJourneys, type Journey } from './journey.ts';
import { createShop, runScript, SHOP_WORK } from './shop.ts';
import { brokenArithmetic, compareRecords, compareSystems, countRecordsSent } from './verdict.ts';
import { createThreepl, WAREHOUSE_WORK } from './warehouse.ts';

const SAMPLE_MS = 250;

export interface RetailerOptions {
  readonly server: PostgresServer;
  readonly visibility: string;
  /** The source that is its ERP; without one the products are there from the beginning. */
  readonly erp?: ErpSource | undefined;
  /** How often products and prices are passed on. */
  readonly nightly: string;
}

export interface RetailerWork {
  readonly signal: AbortSignal;
  readonly seed: number;
  /** Transactions per second of the customers; the warehouse does four times as much. */
  readonly ratePerSecond: number;
}

export interface Verdict {
  readonly problems: readonly string[];
  readonly orders: number;
  readonly records: number;
  /** Rows that customers and staff have changed, and records that have been passed on of them. */
  readonly changed: number;
  readonly sent: number;
}

export class Retailer {
  readonly urls: RetailerUrls;
  readonly #options: RetailerOptions;
  readonly #shop: Client;
  readonly #threepl: Client;
  #changed = 0;

  private constructor(options: RetailerOptions, urls: RetailerUrls, shop: Client, threepl: Client) {
    this.#options = options;
    this.urls = urls;
    this.#shop = shop;
    this.#threepl = threepl;
  }

  static async create(options: RetailerOptions): Promise<Retailer> {
    const { server, visibility, erp } = options;
    const [shop, threepl] = await settleAll([server.createDatabase('shop'), server.createDatabase('threepl')]);
    await settleAll([createShop(shop), createThreepl(threepl)]);
    if (erp === undefined) {
      const products = `select 'SKU-' || lpad(i::text, 4, '0'), 'Product ' || i from generate_series(1, 60) i`;
      await runScript(
        shop,
        `insert into products (sku, name) ${products}; update products set price = 5, currency = 'EUR'`,
      );
      await runScript(threepl, `insert into articles ${products}`);
    }
    return new Retailer(options, { shop, threepl, visibility }, await openPostgres(shop), await openPostgres(threepl));
  }

  /** Its part of a configuration; without `out` records are made and nothing goes into the systems. */
  config(visibility = this.urls.visibility, out = true): RetailerConfig {
    const { erp, nightly } = this.#options;
    return retailerConfig({ ...this.urls, visibility }, erp, nightly, out);
  }

  /** Customers, staff and carrier at work until the signal aborts. */
  async work({ signal, seed, ratePerSecond }: RetailerWork): Promise<WorkloadTotals[]> {
    const failed = new AbortController();
    const options = { signal: AbortSignal.any([signal, failed.signal]), seed };
    const watched = async (work: Promise<WorkloadTotals>): Promise<WorkloadTotals> => {
      try {
        const totals = await work;
        this.#changed += totals.rows;
        return totals;
      } catch (thrown) {
        failed.abort();
        throw thrown;
      }
    };
    const { shop, threepl } = this.urls;
    return await settleAll([
      watched(runPostgresWork(SHOP_WORK, { ...options, url: shop, ratePerSecond, connections: 1 })),
      watched(
        runPostgresWork(WAREHOUSE_WORK, { ...options, url: threepl, ratePerSecond: ratePerSecond * 4, connections: 2 }),
      ),
    ]);
  }

  async journeys(limit: number): Promise<Journey[]> {
    return await readJourneys(this.#shop, this.#threepl, limit);
  }

  /** How many orders have gone all the way. */
  async delivered(): Promise<number> {
    const { rows } = await this.#shop.query<{ n: number }>(
      `select count(*)::int as n from orders where status = 'completed'`,
    );
    return rows[0]!.n;
  }

  /**
   * Waits until the systems agree and the records equal those of a run that has just begun, both twice in a row, and
   * says what stands in the way when the signal aborts. Nobody may work on the systems meanwhile.
   *
   * @param fresh the visibility database of a run over the same sources that began after the last change
   */
  async verdict(configFile: string, target: Client, fresh: Client, signal: AbortSignal): Promise<Verdict> {
    let quiet = 0;
    let records = 0;
    let problems: string[] = [];
    while (quiet < 2) {
      const compared = await compareRecords(target, fresh);
      records = compared.count;
      problems = [
        ...(await compareSystems(this.#shop, this.#threepl)),
        ...compared.problems,
        ...(records === 0 ? ['there are no records yet'] : []),
      ];
      quiet = problems.length === 0 ? quiet + 1 : 0;
      if (signal.aborted) break;
      await delay(SAMPLE_MS);
    }
    const arithmetic = await brokenArithmetic(target);
    const sent = await countRecordsSent(loadConfig(configFile, {}));
    const { rows } = await this.#shop.query<{ orders: number; lines: number }>(
      'select (select count(*)::int from orders) as orders, (select count(*)::int from order_lines) as lines',
    );
    const { orders, lines } = rows[0]!;
    // Of each change one record; and of each line that comes to the warehouse, that none of it has been despatched.
    const echoes =
      sent > this.#changed + lines
        ? [`${sent} records were passed on of ${this.#changed} changes and ${lines} lines: something goes round`]
        : [];
    return {
      problems: [...problems, ...arithmetic, ...echoes],
      orders,
      records,
      changed: this.#changed,
      sent,
    };
  }

  async close(): Promise<void> {
    await Promise.allSettled([this.#shop.end(), this.#threepl.end()]);
  }
}

/** Writes the configuration of a run that makes the same records anew, into another database. */
export async function writeFreshConfig(
  file: string,
  retailer: Retailer,
  at: { natsUrl: string; visibility: string; erp?: Readonly<Record<string, unknown>> },
): Promise<void> {
  const { sources, flows } = retailer.config(at.visibility, false);
  await writeFile(
    file,
    stringify({
      version: 1,
      nats: { servers: [at.natsUrl], prefix: 'fresh', stream: { max_bytes: '256MB' } },
      sources: { ...sources, ...at.erp },
      targets: { visibility: { kind: 'postgres', url: at.visibility } },
      monitoring: { listen: '127.0.0.1:0' },
      flows: Object.fromEntries(Object.entries(flows).map(([name, flow]) => [name, { ...flow, delivery: 'realtime' }])),
    }),
  );
}
