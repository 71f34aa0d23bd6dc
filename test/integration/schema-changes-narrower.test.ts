/** Types of Postgres that become narrower, in targets to whose types that makes no difference. docs/schema-changes.md. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { readProgress, requestSnapshot } from '../../capture/snapshot-request.ts';
import { openBucket } from '../../core/lease.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { CrossPipeline } from '../support/cross-pipeline.ts';
import { waitFor } from '../support/wait.ts';

/** By table: the type that its column has, a value, and what becomes of both. */
const CHANGES = {
  numbers: { from: 'double precision', value: '0.1234567890123', to: 'real' },
  places: { from: 'inet', value: "'10.1.2.3/24'", to: 'cidr using network(v)' },
  lists: { from: 'text[]', value: "'{01,2}'", to: 'int[] using v::int[]' },
  spans: {
    from: 'tsrange',
    value: "'[2026-01-01 12:00,2026-02-01 12:00)'",
    to: 'daterange using daterange(lower(v)::date, upper(v)::date)',
  },
} as const;
const TABLES = Object.entries(CHANGES);

let postgres: PostgresServer;
let natsServer: NatsServer;
beforeAll(async () => {
  [postgres, natsServer] = await Promise.all([startPostgres(), startNats()]);
}, 180_000);
afterAll(async () => {
  await Promise.all([postgres?.dispose(), natsServer?.dispose()]);
});

describe.each([
  { flavour: 'mysql' as const, version: '9.7' as const },
  { flavour: 'mariadb' as const, version: '10.11' as const },
])('$flavour $version', ({ flavour, version }) => {
  let server: MysqlServer;
  let pipe: CrossPipeline;

  beforeAll(async () => {
    server = await startMysql({ flavour, version });
  }, 180_000);
  afterAll(async () => {
    await server?.dispose();
  });
  afterEach(async () => {
    await pipe?.close();
  });

  async function open(ddl: string): Promise<void> {
    pipe = await CrossPipeline.open({
      from: { dialect: 'postgres', server: postgres },
      to: { dialect: flavour, server },
      nats: natsServer,
    });
    await pipe.source.run(ddl);
    await pipe.start();
  }

  /** Rows as texts; numbers as they are, whatever they are printed like. */
  async function rows(side: 'source' | 'target', table: string): Promise<string[]> {
    const place = side === 'source' ? pipe.schema : pipe.place;
    const columns = table === 'numbers' ? 'id, v, n' : side === 'source' ? 'id, v::text, n' : 'id, v, n';
    const found = await pipe[side]
      .run(`select ${columns} from ${place}.${table} order by id`)
      .catch((thrown: unknown) => [[String(thrown)]]);
    return found.map((row) => row.map(String).join('|'));
  }

  const equal = async (...tables: string[]): Promise<void> => {
    for (const table of tables) {
      await expect.poll(() => rows('target', table), { timeout: 30_000 }).toEqual(await rows('source', table));
      expect(pipe.failure).toBeUndefined();
    }
  };

  const stopped = async (): Promise<string[]> =>
    (await pipe.target.run("select table_name from waybill.tables where state = 'stopped'")).map(([name]) =>
      String(name),
    );

  test('values that a narrower type changed are read again where the target has one form for both', async () => {
    await open(
      TABLES.map(
        ([table, { from, value }]) =>
          `create table ${table} (id int primary key, v ${from}, n int); insert into ${table} values (1, ${value}, 7), (2, null, 8)`,
      ).join(';'),
    );
    await equal(...Object.keys(CHANGES));
    // Another column gets new values with it.
    for (const [table, { to }] of TABLES)
      await pipe.source.run(`alter table ${table} alter v type ${to}, alter n type int using n * 10`);
    await equal(...Object.keys(CHANGES));
    expect(await stopped()).toEqual([]);
  });

  test('a table that a narrower type stops is read by itself, and waits for somebody to ask all the same', async () => {
    await open(`create table items (id int primary key, v int, n int); insert into items values (1, 5, 7), (2, 6, 8);
      create table other (id int primary key, v int, n int)`);
    await equal('items', 'other');
    await pipe.source.run('alter table items alter v type smallint, alter n type int using n * 10');
    const bucket = await openBucket(pipe.nats, pipe.config.nats);
    await waitFor('the reading', async () =>
      (await readProgress(bucket, 'one'))?.tables.some(
        ({ name, needed, state }) => name === 'items' && needed === true && state === 'done',
      ),
    );
    // What comes behind that has been applied.
    await pipe.source.run('insert into other values (1, 1, 1)');
    await equal('other');
    expect(await stopped()).toEqual(['items']);
    expect(await rows('target', 'items')).toEqual(['1|5|7', '2|6|8']);
    await requestSnapshot(pipe.config.nats, 'one', { tables: ['public.items'] });
    await equal('items');
    expect(await stopped()).toEqual([]);
  });
});
