/** The ERP of the demo, live on MySQL and MariaDB, into other databases: the stages are killed, and both sides end equal. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import pg from 'pg';
import { afterEach, describe, expect, it } from 'vitest';
import { checkErpInvariant, type RunQuery } from '../../sandbox/demo/erp-invariant.ts';
import { createErp, ERP_TABLES } from '../../sandbox/demo/erp-schema.ts';
import { runErpWorkload } from '../../sandbox/demo/erp-workload.ts';
import { startMysql } from '../../sandbox/mysql.ts';
import { startNats } from '../../sandbox/nats.ts';
import { startPostgres } from '../../sandbox/postgres.ts';
import { Stage } from '../support/stage.ts';
import { waitFor } from '../support/wait.ts';

const timeoutMs = 300_000;
const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
}, timeoutMs);

interface Side {
  readonly query: RunQuery;
  /** Rows of a table that both sides print alike. */
  rows(sql: string): Promise<string[]>;
}

async function mysqlSide(url: string): Promise<Side> {
  const connection = await createConnection({ uri: url });
  connection.on('error', () => undefined);
  cleanups.push(async () => connection.destroy());
  const all = async (sql: string): Promise<unknown[]> => (await connection.query<RowDataPacket[]>(sql))[0];
  return {
    query: async (sql) => (await all(sql)) as { problem: string }[],
    rows: async (sql) => (await all(sql)).map((row) => String((row as { line: unknown }).line)).sort(),
  };
}

async function postgresSide(url: string): Promise<Side> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  cleanups.push(async () => await client.end());
  return {
    query: async (sql) => (await client.query<{ problem: string }>(sql)).rows,
    rows: async (sql) => (await client.query<{ line: string }>(sql)).rows.map((row) => row.line).sort(),
  };
}

/** One line for each row, of columns whose text MySQL, MariaDB and PostgreSQL print alike. */
const LINES: Readonly<Record<(typeof ERP_TABLES)[number], string>> = {
  suppliers: "concat_ws('|', id, code, name, country, currency, lead_time_days, terms, flags, rating)",
  items: "concat_ws('|', sku, gtin, name, category, base_uom, on_order, list_price)",
  item_suppliers: "concat_ws('|', sku, supplier_id)",
  prices: "concat_ws('|', sku)",
  purchase_orders: "concat_ws('|', id, status, total)",
  purchase_order_lines: "concat_ws('|', po_id, line_no, sku, qty, qty_received)",
  receipts: "concat_ws('|', po_id, line_no, qty)",
};

describe.each([
  ['mysql', 'postgres'],
  ['mariadb', 'mariadb'],
] as const)('from %s into %s', (from, to) => {
  it(
    'both sides end equal, however the stages are killed',
    async () => {
      const folder = await mkdtemp(join(tmpdir(), 'waybill-e2e-'));
      cleanups.push(async () => await rm(folder, { recursive: true, force: true }));
      const [source, target, nats] = await Promise.all([
        startMysql({ flavour: from }),
        to === 'postgres' ? startPostgres() : startMysql({ flavour: to }),
        startNats(),
      ]);
      for (const server of [source, target, nats]) cleanups.push(async () => await server.dispose());
      const sourceUrl = await source.createDatabase('erp');
      const targetUrl = await target.createDatabase('visibility');
      await createErp(sourceUrl, 11);
      const configFile = join(folder, 'waybill.yaml');
      await writeFile(
        configFile,
        JSON.stringify({
          version: 1,
          nats: { servers: [nats.url], stream: { max_bytes: '1GB' } },
          sources: { erp: { kind: from, url: sourceUrl, tables: ['erp.*'], heartbeat: '1s', snapshot_chunk_rows: 50 } },
          targets: { visibility: { kind: to, url: targetUrl } },
          flows: { erp_replica: { mirror: 'erp', to: 'visibility', schema: 'mirror', zero_dates: 'null' } },
        }),
      );
      const stage = (only: string): Stage =>
        new Stage({ configFile, only, logFile: join(folder, `${only.replace(':', '-')}.log`), leaseTtlMs: 1000 });
      const stages = [stage('capture:erp'), stage('apply:erp_replica')];
      for (const each of stages) cleanups.push(async () => void (await each.end('SIGKILL')));

      const stop = new AbortController();
      let committed = 0;
      const workload = runErpWorkload({
        url: sourceUrl,
        signal: stop.signal,
        ratePerSecond: 200,
        seed: 11,
        onTransaction: (outcome) => {
          if (outcome.committed) committed += 1;
        },
      });
      workload.catch(() => undefined);
      cleanups.push(async () => stop.abort());

      const here = await mysqlSide(sourceUrl);
      const there = to === 'postgres' ? await postgresSide(targetUrl) : await mysqlSide(targetUrl);
      for (const each of stages) each.start();
      // Kills fall into the first load as well as into streaming.
      for (let kill = 0; kill < 8; kill++) {
        const before = committed;
        await waitFor('more transactions', async () => committed > before + 60);
        const victim = stages[kill % 2]!;
        await victim.end('SIGKILL');
        victim.start();
      }
      stop.abort();
      await workload;

      const line = (prefix: string, table: (typeof ERP_TABLES)[number]): string =>
        `select ${LINES[table]} as line from ${prefix}${table}`;
      for (const table of ERP_TABLES) {
        const wanted = await here.rows(line('', table));
        const found = async (): Promise<string[]> => await there.rows(line('mirror.', table));
        await waitFor(
          `${table} to be equal`,
          async () => {
            const rows = await found();
            return rows.length === wanted.length && rows.every((row, index) => row === wanted[index]);
          },
          60_000,
        ).catch(async () => expect(await found()).toEqual(wanted));
      }
      expect(committed).toBeGreaterThan(480);
      expect(await checkErpInvariant(there.query, 'mirror.')).toEqual([]);
    },
    timeoutMs,
  );
});
