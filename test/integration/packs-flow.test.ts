/** A pack in a flow of the real command line: from the tables of an ERP to the views that people ask. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createConnection } from 'mysql2/promise';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { ERPNEXT_ROWS, erpnextDdl } from '../support/pack-schemas/erpnext.ts';
import { waitFor } from '../support/wait.ts';

const PROGRAM = resolve(import.meta.dirname, '../../dist/cli/main.js');
const timeoutMs = 120_000;
let mariadb: MysqlServer;
let postgres: PostgresServer;
let nats: NatsServer;
let folder: string;
let erp: string;
let visibility: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'waybill-packs-'));
  [mariadb, postgres, nats] = await Promise.all([
    startMysql({ flavour: 'mariadb', version: '11.8' }),
    startPostgres(),
    startNats(),
  ]);
  erp = await mariadb.createDatabase('erp');
  visibility = await postgres.createDatabase('visibility');
  const connection = await createConnection({ uri: erp, multipleStatements: true });
  await connection.query(`${erpnextDdl()};${ERPNEXT_ROWS}
    insert into tabBin (name, item_code, warehouse, actual_qty, reserved_qty, reserved_stock, projected_qty, stock_uom)
      values ('BIN-1', 'SCREW-M4', 'Stores - C', 100, 70, 120, 30, 'Nos');
    insert into \`tabStock Ledger Entry\` (name, item_code, warehouse, posting_date, posting_time, voucher_type, voucher_no, actual_qty, stock_uom)
      values ('SLE-1', 'SCREW-M4', 'Stores - C', '2026-03-01', '10:00:00', 'Delivery Note', 'DN-1', -30, 'Nos')`);
  await connection.end();
}, timeoutMs);
afterAll(async () => {
  await Promise.all([mariadb?.dispose(), postgres?.dispose(), nats?.dispose()]);
  await rm(folder, { recursive: true, force: true });
});

async function configured(from: unknown): Promise<string> {
  const file = join(folder, 'waybill.yaml');
  const flow = (canonical: string): unknown => ({ canonical, from: { erp: from }, to: 'vis', delivery: 'realtime' });
  const config = {
    version: 1,
    nats: { servers: [nats.url], stream: { sync_interval: '1s', max_bytes: '64MB' } },
    sources: { erp: { kind: 'mariadb', url: erp, tables: ['erp.*'] } },
    targets: { vis: { kind: 'postgres', url: visibility } },
    flows: { stock: flow('inventory_position'), movements: flow('inventory_movement') },
  };
  await writeFile(file, JSON.stringify(config));
  return file;
}

it.each([
  ['without a zone', { pack: 'erpnext' }, /needs a zone/],
  ['with a zone that there is not', { pack: 'erpnext', zone: 'Asia/Kolkatta' }, /zone: is not a time zone/],
  ['that does not exist', { pack: 'erpnxt', zone: 'UTC' }, /did you mean "erpnext"/],
])('refuses a pack %s', async (_, from, message) => {
  const file = await configured(from);
  const { status, stdout, stderr } = spawnSync(PROGRAM, ['check', '--config', file], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  expect(stdout + stderr).toMatch(message);
  expect(status).not.toBe(0);
});

it(
  'maps the ERP, makes the views, and both answer',
  async () => {
    const file = await configured({ pack: 'erpnext', zone: 'Asia/Kolkata' });
    const child = spawn(PROGRAM, ['run', '--config', file, '--listen', '127.0.0.1:0'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let log = '';
    child.stderr.on('data', (data: Buffer) => (log += data.toString()));
    const client = new pg.Client({ connectionString: visibility });
    await client.connect();
    try {
      const ask = async (sql: string): Promise<unknown[]> => (await client.query({ text: sql, rowMode: 'array' })).rows;
      await waitFor('the position in the view', async () => {
        if (child.exitCode !== null) throw new Error(log);
        return (await ask('select from canonical.oversold_items')).length > 0;
      });
      expect(
        await ask('select sku, location, on_hand, allocated, available, sellable from canonical.available_to_promise'),
      ).toEqual([['SCREW-M4', 'Stores - C', '100', '120', '-20', '0']]);
      expect(await ask('select sku, location, oversold from canonical.oversold_items order by location')).toEqual([
        ['SCREW-M4', 'Stores - C', '20'],
        ['SCREW-M4', null, '20'],
      ]);
      await waitFor('the movement', async () => (await ask('select from canonical.inventory_movement')).length > 0);
      expect(await ask(`select delta, occurred_at = '2026-03-01T04:30:00Z' from canonical.inventory_movement`)).toEqual(
        [['-30', true]],
      );
      const comment = `select obj_description('canonical.shipment_risks'::regclass)`;
      expect(await ask(comment)).toEqual([[expect.stringMatching(/\(Waybill [0-9a-f]{12}\)$/)]]);
    } finally {
      await client.end();
      child.kill('SIGTERM');
      if (child.exitCode === null) await once(child, 'exit');
    }
    expect(log).not.toContain('"level":50');
  },
  timeoutMs,
);
