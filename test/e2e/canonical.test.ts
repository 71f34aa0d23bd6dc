/** Positions of stock from an ERP on Postgres and a plan on MySQL, while every stage is killed again and again. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createConnection } from 'mysql2/promise';
import pg from 'pg';
import { afterEach, expect, it } from 'vitest';
import { startMysql } from '../../sandbox/mysql.ts';
import { startNats } from '../../sandbox/nats.ts';
import { startPostgres } from '../../sandbox/postgres.ts';
import { ODOO_DDL, odooProducts } from '../support/odoo-tables.ts';
import { Stage } from '../support/stage.ts';
import { stockMapping } from '../support/stock-mapping.ts';
import { waitFor } from '../support/wait.ts';

const timeoutMs = 600_000;
const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
}, timeoutMs);

const PRODUCTS = 60;
/** What the ERP plans: supply by product and place; and a quantity of its own, which is not the owner's. */
const ERP_DDL = `create table stock_plan (sku varchar(40) not null, place varchar(40) not null, on_order decimal(12,3) not null,
  guess decimal(12,3) not null, primary key (sku, place))`;
const ERP_MAP = stockMapping({
  name: 'plan',
  from: 'stock_plan',
  fields: { on_hand: 'guess', on_order: 'on_order' },
});
/** Values, who gave them by which rule, and what lost. Which change it was is another one in a run that reads tables anew. */
const RECORDS = `select tenant, sku, location, lot, owner, uom, on_hand, on_hold, allocated, in_transit, on_order, available,
    (select jsonb_object_agg(key, array[value->'rule', value->'source', value#>'{advisory,0,values}'])
       from jsonb_each(lineage_groups)) as groups
  from canonical.inventory_position order by sku, location, lot, owner`;

async function postgres(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  cleanups.push(async () => await client.end());
  return client;
}

async function heldRows(client: pg.Client): Promise<string> {
  return (await client.query<{ n: string }>('select count(*)::text as n from waybill.quarantine')).rows[0]!.n;
}

/** Numbers that look random and are the same in every run. */
function* numbers(seed: number): Generator<number, never> {
  let state = seed;
  for (;;) {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    yield state / 2 ** 31;
  }
}

it(
  'equals what a fresh run over the same sources gives, however the stages are killed',
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'waybill-e2e-'));
    cleanups.push(async () => await rm(folder, { recursive: true, force: true }));
    const [wmsServer, erpServer, targetServer, nats] = await Promise.all([
      startPostgres(),
      startMysql({ flavour: 'mysql' }),
      startPostgres(),
      startNats(),
    ]);
    for (const server of [wmsServer, erpServer, targetServer, nats]) cleanups.push(async () => await server.dispose());
    const wmsUrl = await wmsServer.createDatabase('odoo');
    const erpUrl = await erpServer.createDatabase('erp');
    const wms = await postgres(wmsUrl);
    const erp = await createConnection({ uri: erpUrl });
    cleanups.push(async () => erp.destroy());
    await wms.query(ODOO_DDL + odooProducts(PRODUCTS));
    await erp.query(ERP_DDL);
    await writeFile(join(folder, 'plan.yaml'), ERP_MAP);

    const install = async (name: string): Promise<{ stages: Record<string, Stage>; target: pg.Client }> => {
      const targetUrl = await targetServer.createDatabase(name);
      const configFile = join(folder, `${name}.yaml`);
      await writeFile(
        configFile,
        JSON.stringify({
          version: 1,
          nats: { servers: [nats.url], prefix: name, stream: { max_bytes: '1GB' } },
          sources: {
            wms: { kind: 'postgres', url: wmsUrl, heartbeat: '1s', snapshot_chunk_rows: 20 },
            erp: { kind: 'mysql', url: erpUrl, tables: ['erp.*'], heartbeat: '1s', snapshot_chunk_rows: 20 },
          },
          targets: { vis: { kind: 'postgres', url: targetUrl } },
          flows: {
            stock: {
              canonical: 'inventory_position',
              from: { wms: { pack: 'odoo' }, erp: { map: './plan.yaml' } },
              owner: { on_hand: 'wms' },
              to: 'vis',
            },
          },
        }),
      );
      const stages: Record<string, Stage> = {};
      for (const only of ['capture:wms', 'capture:erp', 'transform:stock', 'apply:stock']) {
        const logFile = join(folder, `${name}-${only.replace(':', '-')}.log`);
        const stage = new Stage({ configFile, only, logFile, leaseTtlMs: 1000 });
        stages[only] = stage;
        cleanups.push(async () => void (await stage.end('SIGKILL')));
      }
      return { stages, target: await postgres(targetUrl) };
    };
    const lines = async (client: pg.Client): Promise<string[]> => {
      try {
        return (await client.query<Record<string, unknown>>(RECORDS)).rows.map((row) => JSON.stringify(row));
      } catch (thrown) {
        if (['42P01', '3F000'].includes((thrown as { code?: string }).code ?? '')) return [];
        throw thrown;
      }
    };

    const stop = new AbortController();
    cleanups.push(async () => stop.abort());
    const random = numbers(7);
    const next = (below: number): number => Math.floor(random.next().value * below);
    let committed = 0;
    const work = async (): Promise<void> => {
      while (!stop.signal.aborted) {
        const product = 1 + next(PRODUCTS);
        const place = 1 + next(4);
        const quantity = next(1000) / 10;
        // Under contention the ERP makes a second quant, and merges the two later.
        const statements = [
          `insert into stock_quant (product_id, location_id, quantity) values (${product}, ${place}, ${quantity})`,
          `update stock_quant set quantity = quantity + ${quantity}, reserved_quantity = ${next(50)} where product_id = ${product}`,
          `with gone as (delete from stock_quant where product_id = ${product} and location_id = ${place} returning quantity)
             insert into stock_quant (product_id, location_id, quantity) select ${product}, ${place}, sum(quantity) from gone having count(*) > 0`,
          `delete from stock_quant where product_id = ${product} and location_id = ${place}`,
          `update product_product set default_code = 'A-${product}${next(3) === 0 ? 'x' : ''}' where id = ${product}`,
          `update stock_quant set quantity = case when quantity = 'NaN' then 1 else 'NaN'::numeric end
             where id = (select min(id) from stock_quant where product_id = ${product})`,
          `update stock_location set usage = '${next(2) === 0 ? 'internal' : 'inventory'}' where id = 2`,
        ];
        await wms.query(statements[Math.min(next(9), 6)]!);
        const plan = [`A-${product}`, next(2) === 0 ? 'WH/Stock' : 'DC/Stock', next(100) / 4, next(100)];
        if (next(3) === 0) await erp.query('delete from stock_plan where sku = ? and place = ?', plan.slice(0, 2));
        else await erp.query('replace into stock_plan values (?, ?, ?, ?)', plan);
        committed += 2;
        await delay(8);
      }
    };
    for (let i = 0; i < 200; i++)
      await wms.query(`insert into stock_quant (product_id, location_id, quantity) values ($1, $2, $3)`, [
        1 + next(PRODUCTS),
        1 + next(4),
        next(100),
      ]);
    let failed: unknown;
    const workload = work().catch((thrown: unknown) => void (failed = thrown));

    const { stages, target } = await install('live');
    const all = Object.values(stages);
    for (const stage of all) stage.start();
    const transform = stages['transform:stock']!;
    for (let kill = 0; kill < 4; kill++) {
      const before = committed;
      await waitFor('more transactions', async () => failed !== undefined || committed > before + 100);
      expect(failed).toBeUndefined();
      // Every other time the transform dies with a frame on its way, or when it has just been stored.
      const victim = kill % 2 === 0 ? transform : all[(kill >> 1) % all.length]!;
      await victim.end('SIGKILL');
      victim.start(
        victim === transform ? ['capture.published-before-ack:9', 'capture.acked:7'][(kill >> 1) % 2] : undefined,
      );
      if (victim === transform) {
        await victim.exited();
        victim.start();
      }
    }
    stop.abort();
    await workload;

    // What is held keeps its last good values, which a run that begins now has never seen.
    await wms.query(`update stock_quant set quantity = 1 where quantity = 'NaN'`);
    // A last change marks the end: whoever shows it has everything before it, also who reads the tables in the order of their keys.
    await wms.query(`update product_product set default_code = 'Z-1' where id = 1;
      insert into stock_location (usage, complete_name) values ('internal', 'END');
      insert into stock_quant (product_id, location_id, quantity) select 1, max(id), 1 from stock_location`);
    await erp.query(`replace into stock_plan values ('Z-1', 'END', 5, 5)`);
    const shown = async (name: string, client: pg.Client, stagesOf: Stage[]): Promise<string[]> => {
      const end = (line: string): boolean => line.includes('"END"') && line.includes('"on_order":"5"');
      await waitFor(`the end in ${name}`, async () => (await lines(client)).some(end)).catch((thrown: unknown) => {
        throw new Error(stagesOf.map((stage) => stage.log()).join('\n'), { cause: thrown });
      });
      return await lines(client);
    };
    const found = await shown('the run with kills', target, all);
    for (const stage of all) await stage.end('SIGKILL');
    const fresh = await install('fresh');
    for (const stage of Object.values(fresh.stages)) stage.start();
    const wanted = await shown('the fresh run', fresh.target, Object.values(fresh.stages));
    expect(wanted.length).toBeGreaterThan(20);
    expect(found).toEqual(wanted);

    // Not only alike, but right: the sums of what the ERP itself holds.
    const sums = await wms.query<{ line: string }>(
      `select concat_ws('|', p.default_code, l.complete_name, trim_scale(sum(q.quantity)), trim_scale(sum(q.reserved_quantity))) as line
         from stock_quant q join product_product p on p.id = q.product_id join stock_location l on l.id = q.location_id
        where l.usage = 'internal' group by p.default_code, l.complete_name order by 1`,
    );
    const positions = await target.query<{ line: string }>(
      `select concat_ws('|', sku, location, on_hand, allocated) as line from canonical.inventory_position
        where on_hand is not null order by 1`,
    );
    const known = new Set(positions.rows.map(({ line }) => line));
    expect(sums.rows.filter(({ line }) => !known.has(line))).toEqual([]);
    expect(sums.rows.length).toBeGreaterThan(10);
    expect(await heldRows(target)).toBe('0');
  },
  timeoutMs,
);
