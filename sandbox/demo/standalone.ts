/**
 * The demo's warehouse on a database that is already there, for docker-compose.yml: `seed` makes the tables unless they
 * are there, `run` works on them until it is stopped. WORKLOAD_URL and WORKLOAD_RATE say where and how fast.
 */
import { Client } from 'pg';
import { createWarehouse } from './schema.ts';
import { runWorkload } from './workload.ts';

async function seed(url: string): Promise<void> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<{ there: boolean }>(
      `select to_regclass('public.orders_archive') is not null as there`,
    );
    if (rows[0]!.there) console.log('The warehouse is already there.');
    else {
      await createWarehouse(url);
      console.log('The warehouse is made.');
    }
  } finally {
    await client.end();
  }
}

async function run(url: string, ratePerSecond: number): Promise<void> {
  const stop = new AbortController();
  process.once('SIGTERM', () => stop.abort()).once('SIGINT', () => stop.abort());
  const totals = await runWorkload({ url, signal: stop.signal, ratePerSecond, seed: Date.now() % 1_000_000 });
  console.log(`${totals.committed} transactions committed, ${totals.rolledBack} rolled back, ${totals.rows} rows.`);
}

const url = process.env['WORKLOAD_URL'];
const ratePerSecond = Number(process.env['WORKLOAD_RATE'] ?? 50);
const command = process.argv[2];
if (url === undefined || !(ratePerSecond > 0) || (command !== 'seed' && command !== 'run')) {
  console.error('usage: WORKLOAD_URL=postgresql://… [WORKLOAD_RATE=50] node dist/sandbox/demo/standalone.js seed|run');
  process.exit(2);
}
await (command === 'seed' ? seed(url) : run(url, ratePerSecond));
