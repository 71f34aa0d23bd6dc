/** How changes come together in batches makes no difference, whatever becomes of tables meanwhile: random frames, real servers. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TableSchema } from '../../core/frame.ts';
import { createRandom } from '../../sandbox/demo/random.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { at, type FrameFeed } from '../support/frame-feed.ts';
import { openMysqlTarget } from '../support/mysql-target.ts';
import { PostgresTarget } from '../support/postgres-target.ts';
import { RandomChanges, type Change } from '../support/random-changes.ts';

const SEEDS = Number(process.env['WAYBILL_FUZZ_SEQUENCES'] ?? 6);
const FIRST_SEED = Number(process.env['WAYBILL_FUZZ_SEED'] ?? 1);
const TRANSACTIONS = 30;

interface Target {
  readonly feed: FrameFeed;
  readonly rows: (sql: string) => Promise<unknown[]>;
  /** The schema of its tables, as SQL. */
  readonly place: string;
  readonly close: () => Promise<void>;
}

type Transaction = readonly Change[];

let natsServer: NatsServer;
beforeAll(async () => {
  natsServer = await startNats();
}, 60_000);
afterAll(async () => {
  await natsServer?.dispose();
});

async function openPostgres(server: PostgresServer, flow: Record<string, unknown>): Promise<Target> {
  const target = await PostgresTarget.open(server, natsServer.url, flow);
  return { feed: target.feed, rows: (sql) => target.rows(sql), place: "'public'", close: () => target.close() };
}

async function openMysql(server: MysqlServer, flow: Record<string, unknown>): Promise<Target> {
  const { session, feed } = await openMysqlTarget(server, natsServer.url, flow);
  const close = async (): Promise<void> => {
    await feed.close();
    await session.close();
  };
  return { feed, rows: (sql) => session.rows(sql), place: 'DATABASE()', close };
}

/** The transactions in one frame. */
async function send(feed: FrameFeed, transactions: readonly Transaction[]): Promise<void> {
  const tables = new Map<string, TableSchema>();
  for (const { table } of transactions.flat()) tables.set(table.version, table);
  const versions = [...tables.keys()];
  await feed.frame(
    [...tables.values()],
    transactions.map((changes) => changes.map(({ table, row }) => at(versions.indexOf(table.version), row))),
  );
}

/** Tables of a flow by their names: what it says of them, their columns, and their rows. */
async function outcomeOf({ rows, place }: Target): Promise<Record<string, unknown[]>> {
  const found: Record<string, unknown[]> = {};
  const records = await rows('SELECT table_name, state, reason FROM waybill.tables ORDER BY table_name');
  const columns = await rows(
    `SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns
      WHERE table_name IN ('items', 'goods', 'other') AND table_schema = ${place} ORDER BY 1, 2`,
  );
  const places = new Set((columns as string[][]).map(([name]) => name!));
  for (const name of places) found[name] = (await rows(`SELECT id, n FROM ${name} ORDER BY id`)).map(String);
  // Each outcome has a database of its own.
  const said = records.map((record) => String(record).replaceAll(/vis_\w+/g, 'vis'));
  return { said, columns, ...found };
}

describe.each(['postgres', 'mysql', 'mariadb'] as const)('%s', (kind) => {
  let server: PostgresServer | MysqlServer;
  beforeAll(async () => {
    server = await (kind === 'postgres'
      ? startPostgres()
      : startMysql(kind === 'mysql' ? { flavour: 'mysql', version: '9.7' } : { flavour: 'mariadb', version: '10.11' }));
  }, 180_000);
  afterAll(async () => {
    await server?.dispose();
  });

  /** What the target has when it got the transactions in frames of so many. */
  async function apply(
    flow: Record<string, unknown>,
    transactions: readonly Transaction[],
    size: number,
  ): Promise<Record<string, unknown[]>> {
    const target = await (kind === 'postgres'
      ? openPostgres(server as PostgresServer, flow)
      : openMysql(server as MysqlServer, flow));
    try {
      target.feed.start();
      for (let from = 0; from < transactions.length; from += size) {
        await send(target.feed, transactions.slice(from, from + size));
        await target.feed.caughtUp();
      }
      return await outcomeOf(target);
    } finally {
      await target.close();
    }
  }

  test.each(Array.from({ length: SEEDS }, (_, n) => FIRST_SEED + n))('seed %i', async (seed) => {
    const random = createRandom(seed);
    const either = (a: string, b: string): string => random.pick([a, b]);
    const flow = {
      dropped_tables: either('keep', 'drop'),
      renamed_tables: either('keep', 'rename'),
      schema_changes: random.chance(0.8) ? 'follow' : 'stop',
    };
    const changes = new RandomChanges(random);
    const transactions = changes.make(TRANSACTIONS);
    const single = await apply(flow, transactions, 1);
    for (const [name, rows] of changes.contents)
      if (single['said']!.includes(`${name},follows,`))
        expect([name, single[name]]).toEqual([name, [...rows].toSorted(([a], [b]) => a - b).map(String)]);
    for (const size of [transactions.length, 7]) expect(await apply(flow, transactions, size)).toEqual(single);
  });
});
