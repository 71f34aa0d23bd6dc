import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise';
import { afterEach, describe, expect, it } from 'vitest';
import { checkErpInvariant } from '../../sandbox/demo/erp-invariant.ts';
import { createErp, ERP_TABLES } from '../../sandbox/demo/erp-schema.ts';
import { runErpWorkload, type ErpTransactionKind } from '../../sandbox/demo/erp-workload.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { poll } from '../../sandbox/process.ts';

const timeoutMs = 240_000;
const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
}, timeoutMs);

async function start(flavour: 'mysql' | 'mariadb'): Promise<MysqlServer> {
  const server = await startMysql({ flavour });
  cleanups.push(async () => await server.dispose());
  return server;
}

async function connect(url: string): Promise<Connection> {
  const connection = await createConnection({ uri: url });
  connection.on('error', () => undefined);
  cleanups.push(async () => connection.destroy());
  return connection;
}

async function rows<Row>(connection: Connection, sql: string): Promise<Row[]> {
  return (await connection.query<RowDataPacket[]>(sql))[0] as Row[];
}

async function problems(connection: Connection): Promise<string[]> {
  return await checkErpInvariant(async (sql) => await rows(connection, sql), '');
}

describe.each(['mysql', 'mariadb'] as const)('the ERP of the demo on %s', (flavour) => {
  it(
    'does every kind of transaction through a kill and a restart of its server, and keeps its invariant',
    async () => {
      const server = await start(flavour);
      const url = await server.createDatabase('erp');
      await createErp(url, 7);
      const stop = new AbortController();
      const kinds = new Map<ErpTransactionKind, number>();
      const workload = runErpWorkload({
        url,
        signal: stop.signal,
        ratePerSecond: Infinity,
        seed: 7,
        onTransaction: ({ kind, committed }) => {
          if (committed) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
        },
      });
      // Its failure is seen where it is awaited, below.
      workload.catch(() => undefined);
      const ofKind = (kind: ErpTransactionKind): number => kinds.get(kind) ?? 0;
      const done = (): number => [...kinds.values()].reduce((sum, count) => sum + count, 0);
      const until = async (what: string, isSo: () => boolean): Promise<void> => {
        const check = (): void => {
          if (!isSo()) throw new Error(JSON.stringify(Object.fromEntries(kinds)));
        };
        await Promise.race([poll(check, { what, deadlineMs: 120_000 }), workload]);
      };
      try {
        await until('200 transactions', () => done() >= 200);
        await server.kill();
        await server.start();
        const atKill = done();
        await until('200 more', () => done() >= atKill + 200);
        await server.stop();
        await server.start();
        await until('every kind', () => ofKind('forget') > 0 && ofKind('purge') > 20 && ofKind('resource') > 5);
        // Stages come and go: which of them are there at once is a matter of the moment.
        const reader = await connect(url);
        const fourStages = async (): Promise<void> => {
          const stages = await rows(reader, 'select distinct status from purchase_orders');
          if (stages.length < 4) throw new Error(JSON.stringify(stages));
        };
        await Promise.race([poll(fourStages, { what: 'orders in four stages', deadlineMs: 60_000 }), workload]);
      } finally {
        stop.abort();
      }
      const totals = await workload;
      expect([...kinds.keys()].sort()).toEqual(
        ['cancel', 'confirm', 'draft', 'forget', 'maintain', 'purge', 'receive', 'reprice', 'resource', 'send'].sort(),
      );
      expect(totals.rolledBack).toBeGreaterThan(10);
      expect(totals.reconnects).toBeGreaterThan(1);

      const connection = await connect(url);
      for (const table of ERP_TABLES) {
        const [counted] = await rows<{ n: number }>(connection, `select count(*) as n from ${table}`);
        expect(counted?.n, table).toBeGreaterThan(0);
      }
      expect(await problems(connection)).toEqual([]);
    },
    timeoutMs,
  );

  it(
    'has an invariant that notices each thing that can be wrong',
    async () => {
      const server = await start(flavour);
      const url = await server.createDatabase('erp');
      await createErp(url, 1);
      const stop = new AbortController();
      let received = 0;
      await runErpWorkload({
        url,
        signal: stop.signal,
        ratePerSecond: Infinity,
        seed: 1,
        onTransaction({ kind, committed }) {
          if (kind === 'receive' && committed) received += 1;
          if (received >= 20) stop.abort();
        },
      });
      const connection = await connect(url);
      expect(await problems(connection)).toEqual([]);
      for (const [sql, problem] of [
        ['update items set on_order = on_order + 1 limit 1', /on order, its lines await/],
        ['update receipts set qty = qty + 1 limit 1', /received, by its receipts/],
        ['update purchase_orders set total = total + 0.01 limit 1', /total .* its lines/],
        ['update items set list_price = list_price + 0.01 limit 1', /and shows/],
        ["delete from prices where list = 'trade' and valid_to is null limit 1", /0 trade prices/],
      ] as const) {
        await connection.beginTransaction();
        await connection.query(sql);
        expect(await problems(connection), sql).toEqual([expect.stringMatching(problem)]);
        await connection.rollback();
      }
    },
    timeoutMs,
  );
});

it(
  'gives the same rows for the same seed, and others for another',
  async () => {
    const server = await start('mariadb');
    const contents: string[] = [];
    for (const [name, seed] of [
      ['a', 5],
      ['b', 5],
      ['c', 6],
    ] as const) {
      const url = await server.createDatabase(name);
      await createErp(url, seed);
      const connection = await connect(url);
      const all: unknown[] = [];
      for (const sql of [
        'select code, name, lead_time_days, flags, rating, contact from suppliers order by id',
        'select sku, list_price, weight_kg, attributes, description, hex(thumbnail) as thumbnail from items order by sku',
        'select * from item_suppliers order by sku, supplier_id',
        'select sku, list, amount from prices order by id',
      ])
        all.push(await rows(connection, sql));
      contents.push(JSON.stringify(all));
    }
    expect(contents[1]).toBe(contents[0]);
    expect(contents[2]).not.toBe(contents[0]);
  },
  timeoutMs,
);
