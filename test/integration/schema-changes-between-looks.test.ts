/** Several changes of a table of which the log tells parts, before anybody looks at the catalog. docs/schema-changes.md. */
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { requestSnapshot } from '../../capture/snapshot-request.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';
import { definitions } from '../support/definitions.ts';
import { NobodyStandby } from '../support/nobody-standby.ts';
import { Pipeline } from '../support/pipeline.ts';
import { SchemaCase } from '../support/schema-case.ts';
import { waitFor } from '../support/wait.ts';

let postgres: PostgresServer;
let natsServer: NatsServer;
let it: SchemaCase;

beforeAll(async () => {
  [postgres, natsServer] = await Promise.all([startPostgres(), startNats()]);
}, 180_000);
afterAll(async () => {
  await Promise.all([postgres?.dispose(), natsServer?.dispose()]);
});
afterEach(async () => {
  await it?.close();
});

const DROP = { dropped_columns: 'drop' };

/** Of each table the names that its columns come to have, one statement after the other. */
const HANDED_ON: Readonly<Record<string, readonly string[]>> = {
  added_under_an_old_name: ['add n int', 'n', 'rename n to m', 'add n int'],
  replaced_and_renamed: ['drop a', 'add a int', 'a', 'rename a to c'],
  taken_and_renamed: ['drop a', 'rename b to a', 'a', 'rename a to c'],
  renamed_twice: ['rename a to c', 'c', 'rename c to d', 'add c int'],
  taken_for_a_moment: ['drop b', 'rename a to b', 'b', 'rename b to a'],
};

/** A word alone has values written to the column. */
async function handOn(): Promise<void> {
  for (const [table, steps] of Object.entries(HANDED_ON))
    for (const step of steps)
      await it.run(step.includes(' ') ? `alter table ${table} ${step}` : `update ${table} set ${step} = id * 10`);
}

test.each(['live', 'behind'])('columns that hand on their names keep their values, %s', async (how) => {
  const ddl = Object.keys(HANDED_ON).map(
    (table) =>
      `create table ${table} (id int primary key, a int, b int); insert into ${table} values (1, 5, 7), (2, 6, 8)`,
  );
  it = await SchemaCase.open(postgres, natsServer, ddl.join(';'), DROP);
  if (how === 'behind') await it.pipe.stop(['capture']);
  await handOn();
  if (how === 'behind') it.pipe.start(['capture']);
  await it.equal();
});

test('a narrower column that is dropped before its table could be marked leaves new values of others to be read', async () => {
  const ddl = 'create table items (id int primary key, a int, b int); insert into items values (1, 5, 7), (2, 6, 8)';
  it = await SchemaCase.open(postgres, natsServer, ddl, DROP);
  const { url } = it.pipe.config.sources['wms']!;
  const [first, second] = [new pg.Client({ connectionString: url }), new pg.Client({ connectionString: url })];
  const waiting = async (): Promise<number> =>
    (await it.pipe.source.query("select from pg_locks where not granted and relation = 'items'::regclass")).rowCount!;
  try {
    await Promise.all([first.connect(), second.connect()]);
    await first.query('begin; alter table items alter a type smallint, alter b type int using b * 10');
    // It has the table as soon as the first is done, before whoever marks it.
    const dropped = second.query('begin; alter table items drop column a');
    await waitFor('the second', async () => (await waiting()) === 1);
    await first.query('commit');
    await dropped;
    await waitFor('a look at the catalog, and the mark behind it', async () => (await waiting()) === 1);
    await second.query('commit');
    await it.equal();
  } finally {
    await Promise.all([first.end(), second.end()]);
  }
});

test('rows that are read behind a change that the stream does not tell yet wait for it', async () => {
  const ddl = `create table a (id int primary key); create table items (id int primary key, n date not null, t varchar(4));
      insert into items select n, '2026-05-05', 'a' from generate_series(1, 2000) n`;
  const slowly = { snapshot_chunk_rows: 100, snapshot_max_rows_per_second: 400 };
  it = await SchemaCase.open(postgres, natsServer, ddl, DROP, slowly);
  const { pipe } = it;
  const { url } = pipe.config.sources['wms']!;
  const [first, second] = [new pg.Client({ connectionString: url }), new pg.Client({ connectionString: url })];
  const waiting = async (): Promise<number> =>
    (await pipe.source.query("select from pg_locks where not granted and relation = 'a'::regclass")).rowCount!;
  const quarantined = async (): Promise<unknown[]> =>
    (await pipe.target.query('select op, message, count(*) from waybill.quarantine group by 1, 2')).rows;
  try {
    await Promise.all([first.connect(), second.connect()]);
    await requestSnapshot(pipe.config.nats, 'wms', { tables: ['public.items'] });
    await waitFor('the reading to begin', async () => (await readingOf(pipe)) > 0);
    await first.query('begin; alter table a add b int');
    const held = second.query('begin; lock table a');
    await waitFor('the second', async () => (await waiting()) === 1);
    await first.query('commit');
    await held;
    await waitFor('whoever marks the first table, and the others behind it', async () => (await waiting()) === 1);
    // No row tells of it, and the mark that does comes later than the next chunk.
    await it.run("alter table items drop n, add n date, alter t type varchar(9) using 'as it is'");
    await waitFor('the mark', async () =>
      (await definitions(pipe.target)).some((line) => line.startsWith('items:') && /varying\(9\)/.test(line)),
    );
    await second.query('commit');
    await it.equal();
    expect(await quarantined()).toEqual([]);
  } finally {
    await Promise.all([first.end(), second.end()]);
  }
});

test('a table that is asked for under a name that the stream does not tell yet is read once it does', async () => {
  const ddl = `create table items (id int primary key, n int); insert into items values (1, 5), (2, 6);
      create table other (id int primary key)`;
  it = await SchemaCase.open(postgres, natsServer, ddl, { renamed_tables: 'rename' });
  const { pipe } = it;
  await it.run('alter table items alter n type smallint');
  expect(await it.notices()).toMatchObject([{ name: 'items', state: 'stopped' }]);
  await pipe.stop(['capture']);
  // It takes the log a while to come to the mark of the new name.
  await it.run('insert into other select generate_series(1, 100000); delete from other');
  await it.run('alter table items rename to goods');
  await requestSnapshot(pipe.config.nats, 'wms', { tables: ['public.goods'] });
  pipe.start(['capture']);
  await it.equal();
});

/** How many rows have come of a reading that is under way. */
async function readingOf(pipe: Pipeline): Promise<number> {
  const { rows } = await pipe.target.query<{ rows: string }>(
    `select (xpath('/row/n/text()', query_to_xml(format('select count(*) as n from waybill.%I', relname), false, true, '')))[1]::text as rows
       from pg_class where relnamespace = 'waybill'::regnamespace and relkind = 'r' and relname like 'seen\\_%'`,
  );
  return Number(rows[0]?.rows ?? 0);
}

test('what a commit that waits for a standby did to columns is told once it is seen', async () => {
  const other = await startPostgres();
  const ddl = `create table items (id int primary key, b int); insert into items values (1, 5), (2, 6);
      create table goods (id int primary key, b int); insert into goods values (1, 5), (2, 6)`;
  const pipe = await Pipeline.open(other, natsServer, ddl, DROP, postgres);
  let standby: NobodyStandby | undefined;
  try {
    const both = new SchemaCase(pipe);
    pipe.start();
    await both.equal();
    standby = await NobodyStandby.name(pipe.config.sources['wms']!.url);
    await standby.commit(`begin; alter table items drop if exists b, add if not exists c int; update items set c = 10 where id = 1;
      alter table goods drop b, add b int; update goods set b = 10 where id = 1; commit`);
    // The log waits for a while, and goes on.
    await waitFor('the update', async () =>
      (await definitions(pipe.target)).some((line) => line.startsWith('items:') && / c integer/.test(line)),
    );
    await standby.release();
    await both.equal();
  } finally {
    await standby?.release();
    await pipe.close();
    await other.dispose();
  }
});
