/** A source of the demo, its workload, and its mirror in the visibility database. */
import { createErpObserver } from './erp-observer.ts';
import { createErp, ERP_TABLES } from './erp-schema.ts';
import { runErpWorkload } from './erp-workload.ts';
import type { Observer } from './observer.ts';
import { createWarehouse, TABLES } from './schema.ts';
import { createWmsObserver } from './wms-observer.ts';
import type { WorkloadTotals } from './workers.ts';
import { runWorkload } from './workload.ts';
import type { MysqlServer } from '../mysql.ts';
import type { PostgresServer } from '../postgres.ts';

/** How a branch's workload runs. */
export interface WorkOptions {
  readonly signal: AbortSignal;
  readonly seed: number;
  readonly ratePerSecond: number;
  readonly onTransaction: (outcome: { readonly committed: boolean }) => void;
}

export interface Branch {
  /** Of the source in the configuration. */
  readonly name: string;
  readonly title: string;
  /** What `sources` and `flows` of the configuration say of it. */
  readonly source: Readonly<Record<string, unknown>>;
  readonly flow: string;
  readonly schema: string;
  readonly tableCount: number;
  readonly url: string;
  readonly observer: Observer;
  work(options: WorkOptions): Promise<WorkloadTotals>;
}

/** The warehouse: made and filled on a Postgres server. */
export async function createWms(server: PostgresServer, targetUrl: string): Promise<Branch> {
  const url = await server.createDatabase('wms');
  await createWarehouse(url);
  const [flow, schema] = ['wms_replica', 'wms'];
  return {
    name: 'wms',
    title: `the warehouse on PostgreSQL ${server.version}`,
    source: { kind: 'postgres', url, tables: ['public.*'] },
    flow,
    schema,
    tableCount: TABLES.length,
    url,
    observer: await createWmsObserver(url, targetUrl, flow, schema),
    work: async (options) => await runWorkload({ url, ...options }),
  };
}

/** Purchasing: made and filled on a MySQL or MariaDB server. It does half as much as the warehouse. */
export async function createPurchasing(server: MysqlServer, targetUrl: string, seed: number): Promise<Branch> {
  const { flavour } = server;
  const url = await server.createDatabase('erp');
  await createErp(url, seed);
  const [flow, schema] = ['erp_replica', 'erp'];
  return {
    name: 'erp',
    title: `purchasing on ${flavour === 'mysql' ? 'MySQL' : 'MariaDB'} ${server.version}`,
    source: { kind: flavour, url, tables: ['erp.*'] },
    flow,
    schema,
    tableCount: ERP_TABLES.length,
    url,
    observer: await createErpObserver(flavour, url, targetUrl, flow, schema),
    work: async (options) => await runErpWorkload({ url, ...options, ratePerSecond: options.ratePerSecond / 2 }),
  };
}
