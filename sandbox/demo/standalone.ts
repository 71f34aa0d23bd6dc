/**
 * The demo's warehouse (`WORKLOAD_URL=postgresql://…`) or ERP (`mysql://…`) on a database that is already there, for
 * docker-compose.yml: `seed` makes the tables unless they are there, `run` works on them until it is stopped.
 * WORKLOAD_RATE says how fast.
 */
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { Client } from 'pg';
import { createErp } from './erp-schema.ts';
import { runErpWorkload } from './erp-workload.ts';
import { createWarehouse } from './schema.ts';
import { runWorkload } from './workload.ts';

const SEED = 1;

/** What differs between the two. */
interface Standalone {
  readonly name: string;
  isMade(url: string): Promise<boolean>;
  make(url: string): Promise<void>;
  readonly work: typeof runWorkload | typeof runErpWorkload;
}

const warehouse: Standalone = {
  name: 'warehouse',
  async isMade(url) {
    const client = new Client({ connectionString: url });
    await client.connect();
    try {
      const { rows } = await client.query<{ there: boolean }>(
        `select to_regclass('public.orders_archive') is not null as there`,
      );
      return rows[0]!.there;
    } finally {
      await client.end();
    }
  },
  make: createWarehouse,
  work: runWorkload,
};

const erp: Standalone = {
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
const ratePerSecond = Number(process.env['WORKLOAD_RATE'] ?? 50);
const command = process.argv[2];
if (url === undefined || !(ratePerSecond > 0) || (command !== 'seed' && command !== 'run')) {
  console.error(
    'usage: WORKLOAD_URL=postgresql://… or mysql://… [WORKLOAD_RATE=50] node dist/sandbox/demo/standalone.js seed|run',
  );
  process.exit(2);
}
const what = /^(mysql|mariadb):/.test(url) ? erp : warehouse;
await (command === 'seed' ? seed(what, url) : run(what, url, ratePerSecond));
