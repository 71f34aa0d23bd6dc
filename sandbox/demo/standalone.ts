/**
 * One system of the demo on a server that is already there, for docker-compose.yml: `seed` makes its tables unless they are
 * there, `run` works on them until it is stopped. WORKLOAD says which system, WORKLOAD_URL where it is, WORKLOAD_RATE how
 * many transactions a second are done.
 */
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { Client, DatabaseError, escapeIdentifier } from 'pg';
import { createErp } from './erp-schema.ts';
import { runErpWorkload } from './erp-workload.ts';
import { createShop, SHOP_WORK } from './retailer/shop.ts';
import { createThreepl, WAREHOUSE_WORK } from './retailer/warehouse.ts';
import { createWarehouse } from './schema.ts';
import type { WorkloadTotals } from './workers.ts';
import { runPostgresWork, runWorkload } from './workload.ts';

const SEED = 1;
const INVALID_CATALOG_NAME = '3D000';
const DUPLICATE_DATABASE = '42P04';

interface Work {
  readonly url: string;
  readonly signal: AbortSignal;
  readonly ratePerSecond: number;
  readonly seed: number;
}

/** What differs between the systems. */
interface Standalone {
  readonly name: string;
  isMade(url: string): Promise<boolean>;
  make(url: string): Promise<void>;
  work(options: Work): Promise<WorkloadTotals>;
}

/** Whether a table that is made last is there; a database that is not there has none. */
async function hasTable(url: string, table: string): Promise<boolean> {
  const client = new Client({ connectionString: url });
  try {
    await client.connect();
    const { rows } = await client.query<{ there: boolean }>('select to_regclass($1) is not null as there', [table]);
    return rows[0]!.there;
  } catch (thrown) {
    if (sqlState(thrown) === INVALID_CATALOG_NAME) return false;
    throw thrown;
  } finally {
    await client.end();
  }
}

/** A server's image makes one database, and two systems of the retailer want one each. */
async function createDatabase(url: string): Promise<void> {
  const server = new URL(url);
  const name = decodeURIComponent(server.pathname.slice(1));
  server.pathname = '/postgres';
  const client = new Client({ connectionString: server.href });
  await client.connect();
  try {
    await client.query(`create database ${escapeIdentifier(name)}`);
  } catch (thrown) {
    if (sqlState(thrown) !== DUPLICATE_DATABASE) throw thrown;
  } finally {
    await client.end();
  }
}

function sqlState(thrown: unknown): string | undefined {
  return thrown instanceof DatabaseError ? thrown.code : undefined;
}

const SYSTEMS: Readonly<Record<string, Standalone>> = {
  wms: {
    name: 'warehouse',
    isMade: async (url) => await hasTable(url, 'public.orders_archive'),
    make: createWarehouse,
    work: runWorkload,
  },
  erp: {
    name: 'ERP',
    async isMade(url) {
      const connection = await createConnection({ uri: url });
      try {
        // The prices are the last that is made.
        const [tables] = await connection.query<RowDataPacket[]>(`show tables like 'receipts'`);
        if (tables.length === 0) return false;
        const [prices] = await connection.query<RowDataPacket[]>('select 1 from prices limit 1');
        return prices.length > 0;
      } finally {
        connection.destroy();
      }
    },
    make: async (url) => await createErp(url, SEED),
    work: runErpWorkload,
  },
  shop: {
    name: 'shop',
    isMade: async (url) => await hasTable(url, 'public.order_history'),
    async make(url) {
      await createDatabase(url);
      await createShop(url);
    },
    work: async (options) => await runPostgresWork(SHOP_WORK, { ...options, connections: 1 }),
  },
  threepl: {
    name: "retailer's 3PL",
    isMade: async (url) => await hasTable(url, 'public.scans'),
    async make(url) {
      await createDatabase(url);
      await createThreepl(url);
    },
    work: async (options) => await runPostgresWork(WAREHOUSE_WORK, { ...options, connections: 2 }),
  },
};

async function seed({ name, isMade, make }: Standalone, url: string): Promise<void> {
  if (await isMade(url)) console.log(`The ${name} is already there.`);
  else {
    await make(url);
    console.log(`The ${name} is made.`);
  }
}

async function run({ work }: Standalone, url: string, ratePerSecond: number): Promise<void> {
  const stop = new AbortController();
  process.once('SIGTERM', () => stop.abort()).once('SIGINT', () => stop.abort());
  const totals = await work({ url, signal: stop.signal, ratePerSecond, seed: Date.now() % 1_000_000 });
  console.log(`${totals.committed} transactions committed, ${totals.rolledBack} rolled back, ${totals.rows} rows.`);
}

const url = process.env['WORKLOAD_URL'];
const system = SYSTEMS[process.env['WORKLOAD'] ?? ''];
const ratePerSecond = Number(process.env['WORKLOAD_RATE'] ?? 50);
const command = process.argv[2];
if (url === undefined || system === undefined || !(ratePerSecond > 0) || (command !== 'seed' && command !== 'run')) {
  console.error(
    `usage: WORKLOAD=${Object.keys(SYSTEMS).join('|')} WORKLOAD_URL=postgresql://… or mysql://… [WORKLOAD_RATE=50] node dist/sandbox/demo/standalone.js seed|run`,
  );
  process.exit(2);
}
await (command === 'seed' ? seed(system, url) : run(system, url, ratePerSecond));
