/** What the watch over definitions has read again, told of changes one by one. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import pg from 'pg';
import { FINGERPRINT } from '../../capture/postgres/catalog-fingerprint.ts';
import { readTable, type CapturedTable } from '../../capture/postgres/catalog.ts';
import type { RelationMessage } from '../../capture/postgres/pgoutput.ts';
import { SchemaWatch } from '../../capture/postgres/schema-watch.ts';
import { untold } from '../../capture/postgres/stored-table.ts';
import { markTable } from '../../capture/postgres/table-mark.ts';
import { BY_OID, TableRegistry } from '../../capture/table-registry.ts';
import { ColumnRules, NO_COLUMN_RULES } from '../../core/column-rules.ts';
import { openBucket } from '../../core/lease.ts';
import { createLogger } from '../../core/logger.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { parseConfig } from '../../core/config.ts';
import { startNats, type NatsServer } from '../../sandbox/nats.ts';
import { startPostgres, type PostgresServer } from '../../sandbox/postgres.ts';

let postgres: PostgresServer;
let natsServer: NatsServer;
let nats: Nats;
let client: pg.Client;
let url: string;
let registry: TableRegistry<number, CapturedTable>;
let watch: SchemaWatch;
let oid: number;
/** The columns of each reading of the table, by their ids. */
let readings: string[];
/** What a snapshot that runs finds under the name of a table at the moment that this is asked for. */
let found: (CapturedTable | undefined)[];
let databases = 0;
/** A transaction that everybody sees. */
const XID = 3;

beforeAll(async () => {
  [postgres, natsServer] = await Promise.all([startPostgres(), startNats()]);
  nats = await connectNats({ ...parseConfig(configText('any'), {}).nats }, 'test');
}, 180_000);
afterAll(async () => {
  await nats?.connection.close();
  await Promise.all([postgres?.dispose(), natsServer?.dispose()]);
});

beforeEach(async () => {
  const name = `watched_${(databases += 1)}`;
  url = await postgres.createDatabase(name);
  client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query('create table items (id int primary key, a int)');
  oid = await oidOf('items');
  const bucket = await openBucket(nats, parseConfig(configText(name), {}).nats);
  registry = new TableRegistry(bucket, 'wms', BY_OID, (table) => table);
  await registry.put(oid, (await readTable(client, oid))!.table);
  readings = [];
  found = [];
  await startAgain();
});
afterEach(async () => {
  await client.end();
});

function configText(prefix: string): string {
  return JSON.stringify({
    version: 1,
    nats: { servers: [natsServer.url], prefix },
    sources: { wms: { kind: 'postgres', url: 'postgres://nobody@localhost/none' } },
  });
}

/** As another process, that knows what is stored alone. */
async function startAgain(rules = NO_COLUMN_RULES): Promise<void> {
  const read = async ({ schema }: CapturedTable): Promise<void> => {
    readings.push(schema.columns.map(({ id }) => id).join());
    found.push(watch.byName(schema.schema, schema.name));
  };
  watch = watchOver(await registry.load(), read, rules);
}

function watchOver(
  tables: ReadonlyMap<number, CapturedTable>,
  read: (table: CapturedTable) => Promise<void> = async () => undefined,
  rules = NO_COLUMN_RULES,
): SchemaWatch {
  return new SchemaWatch({
    client,
    publication: 'none',
    markPrefix: 'waybill.test',
    included: (_, name) => name !== 'hidden',
    rules,
    registry,
    tables,
    log: createLogger('silent'),
    read,
    readPart: read,
    leftOut: () => undefined,
  });
}

/** A message of the log about the table with columns of these names. */
function message(names: string, table = 'items'): RelationMessage {
  const columns = names.split(' ').map((name) => ({ name, key: name === 'id', typeOid: 23, typmod: -1 }));
  return { oid, schema: 'public', name: table, identity: 'd', columns };
}

/** Has the mark taken of what a table is like now, at a place in the log; gives what the stream is told. */
async function mark(lsn: bigint, of = oid): Promise<string[]> {
  const { row } = (await readTable(client, of))!;
  const told = await watch.takeMark({ k: 'table', oid: of, row, published: true }, { xid: XID, lsn });
  return told.map((each) => `${each.mark} ${each.table.schema.name} ${each.table.oid === oid ? 'first' : 'second'}`);
}

async function oidOf(name: string): Promise<number> {
  return Number((await client.query<{ oid: string }>(`select '${name}'::regclass::oid::int8 as oid`)).rows[0]!.oid);
}

/** Makes a table of which the log has told, and gives its oid. */
async function make(name: string, definition = '(id int primary key, a int)'): Promise<number> {
  await client.query(`create table ${name} ${definition}`);
  const made = await oidOf(name);
  await mark(1n, made);
  readings = [];
  found = [];
  return made;
}

test('rows that were read with columns in doubt are read with the true ones, also by another process', async () => {
  await client.query('alter table items drop a; alter table items add a int');
  await watch.look(message('id a'), 10n, XID);
  expect(readings).toEqual(['1,2']);
  await startAgain();
  await mark(11n);
  expect(readings).toEqual(['1,2', '1,3']);
  // It is as in the catalog: what comes now is a change like any other.
  await watch.look(message('id a'), 12n, XID);
  await startAgain();
  await client.query('alter table items add b int');
  await mark(13n);
  expect(readings.length).toBe(2);
});

test('columns in doubt are read once where they prove to be those of the catalog', async () => {
  await client.query('alter table items drop a; alter table items add b int');
  await watch.look(message('id b'), 10n, XID);
  expect(readings).toEqual(['1,3']);
  await client.query('alter table items add c int');
  await mark(11n);
  expect(readings).toEqual(['1,3']);
});

test('a table that was changed under another name is read with the columns that it got there', async () => {
  await watch.look(message('id a', 'hidden'), 10n, XID);
  await client.query('alter table items add n int');
  await mark(11n);
  expect(readings).toEqual(['1,2', '1,2,3']);
});

test('one that is there though it was said to be gone is read with the columns that it has', async () => {
  await client.query('alter table items add n int');
  await watch.takeMark({ k: 'gone', oid, why: 'dropped' }, { xid: XID, lsn: 10n });
  await mark(11n);
  expect(readings).toEqual(['1,2', '1,2,3']);
});

test('a version that is stored is not taken for the one at an earlier place of the log', async () => {
  let lsn = 20n;
  for (const change of ['add b int', 'drop a', 'rename b to a']) {
    await client.query(`alter table items ${change}`);
    await mark((lsn += 1n));
  }
  expect(readings).toEqual([]);
  await startAgain();
  // The column of this name may be the first one or the second.
  expect(watch.resolve(message('id a'), 10n, XID)).toBe('look');
  await watch.look(message('id a'), 10n, XID);
  expect(readings.length).toBe(1);
  expect(watch.resolve(message('id a'), 10n, XID)).toMatchObject({ oid });
});

test('one of which the columns are sure is told without a reading', async () => {
  await client.query('alter table items add b int');
  await mark(20n);
  await startAgain();
  await watch.look(message('id a'), 10n, XID);
  expect(watch.byOid(oid)?.schema.columns.map(({ id }) => id)).toEqual([1, 2]);
  await watch.look(message('id a b'), 20n, XID);
  await startAgain();
  await watch.look(message('id a b'), 20n, XID);
  expect(watch.resolve(message('id a b'), 20n, XID)).toMatchObject({ oid });
  expect(readings).toEqual([]);
});

test('that a table left its name is kept until the stream is told, whatever else is stored of it', async () => {
  await client.query('alter table items rename to goods');
  await watch.look(message('id a', 'goods'), 10n, XID);
  await mark(11n);
  // Its rows are in another file.
  await client.query('vacuum full goods');
  await watch.look(message('id a', 'goods'), 12n, XID);
  const stored = (await registry.load()).get(oid)!;
  expect(untold(stored, 11n)?.former).toEqual({ schema: 'public', name: 'items' });
  expect(untold(stored, 12n)?.former).toBeUndefined();
});

test('a table that is to be read under another name is there under it for a snapshot that runs', async () => {
  await client.query('alter table items rename to goods');
  await mark(11n);
  expect(found).toMatchObject([{ oid, schema: { name: 'goods' } }]);
});

test('a table that takes the name of another one is what a snapshot that runs finds under it', async () => {
  const other = await make('goods');
  await client.query('alter table goods rename to spare; alter table items rename to goods');
  // Of the other one nobody has told yet.
  expect(await mark(11n)).toEqual(['gone items first', 'schema goods first']);
  expect(found).toMatchObject([{ oid, schema: { name: 'goods' } }]);
  await mark(12n, other);
  expect(found[1]).toMatchObject({ oid: other, schema: { name: 'spare' } });
});

test('a partition that is to be read is one of its table for a snapshot that runs', async () => {
  const root = await make('parted', '(id int primary key, a int) partition by range (id)');
  await client.query('create table part partition of parted for values from (1) to (9)');
  await mark(11n, root);
  expect(found).toMatchObject([{ oid: root, parts: [{ name: 'part' }] }]);
});

test('of two tables that are stored under one name the one that came to it last has it', async () => {
  const { table } = (await readTable(client, oid))!;
  const [older, newer, none] = [
    { ...table, oid: 1, since: '9' },
    { ...table, oid: 2, since: '10' },
    { ...table, oid: 3 },
  ];
  for (const tables of [
    [none, older, newer],
    [newer, older, none],
  ]) {
    watch = watchOver(new Map(tables.map((each) => [each.oid, each])));
    expect(watch.byName('public', 'items')?.oid).toBe(2);
  }
});

test('a name that another table has by now is not said to be gone', async () => {
  const other = await make('goods');
  await client.query(
    'begin; alter table items rename to spare; alter table goods rename to items; alter table spare rename to goods; commit',
  );
  expect(await mark(11n)).toEqual(['gone items first', 'schema goods first']);
  expect(await mark(12n, other)).toEqual(['schema items second']);
  // The same with the name of one that went: the other one is read under it.
  await client.query('drop table goods; alter table items rename to goods');
  expect(await mark(13n, other)).toEqual(['gone items second', 'schema goods second']);
  expect(await watch.takeMark({ k: 'gone', oid, why: 'dropped' }, { xid: XID, lsn: 14n })).toEqual([]);
});

test.each(['is dropped', 'is renamed'])(
  'a table is read again when one %s that took its name for a while',
  async (how) => {
    await client.query('alter table items rename to spare');
    const other = await make('items');
    await client.query(`${how === 'is dropped' ? 'drop table items' : 'alter table items rename to goods'};
    alter table spare rename to items`);
    if (how === 'is dropped')
      expect(await watch.takeMark({ k: 'gone', oid: other, why: 'dropped' }, { xid: XID, lsn: 12n })).toEqual([]);
    else expect(await mark(12n, other)).toEqual(['schema goods second']);
    expect(found[0]).toMatchObject({ oid, schema: { name: 'items' } });
  },
);

test.each([
  ['bigint', 'int', 'exclude'],
  ['text', 'varchar(9)', 'mask'],
])('new values are read also where a column of type %s that is kept at home becomes %s', async (wide, narrow, rule) => {
  await client.query(`alter table items add secret ${wide}; insert into items values (1, 1, 1)`);
  await mark(11n);
  const columns = ['public.items.secret'];
  const rules = rule === 'exclude' ? { exclude: columns } : { mask: [{ columns, keep_first: 0, keep_last: 0 }] };
  await startAgain(ColumnRules.compile(rules));
  await watch.tell();
  await client.query(`alter table items alter secret type ${narrow}, alter a type int using a * 2`);
  await watch.tell();
  await mark(12n);
  expect(readings).toEqual(['1,2,3']);
});

test('a table with another key is read again, and one whose key is renamed is not', async () => {
  await client.query('alter table items rename id to no; alter table items alter a set not null');
  await mark(11n);
  expect(readings).toEqual([]);
  await client.query('alter table items drop constraint items_pkey, add primary key (a)');
  await mark(12n);
  expect(readings).toEqual(['1,2']);
  await client.query('create unique index by_no on items (no); alter table items replica identity using index by_no');
  await mark(13n);
  expect(readings).toEqual(['1,2', '1,2']);
});

/** Does `work` while somebody holds a table, as VACUUM FULL does, or whoever alters it. */
async function whileHeld(table: string, work: () => Promise<void>): Promise<void> {
  const holder = new pg.Client({ connectionString: url });
  await holder.connect();
  try {
    await holder.query(`begin; lock table ${table} in access exclusive mode`);
    await work();
  } finally {
    await holder.end();
  }
}

test.each(['hidden', 'items', 'goods'])(
  'what becomes of others is seen while somebody holds table %s',
  async (held) => {
    await client.query(
      'create table hidden (id int primary key, a int default 7); alter table items alter a set default 5',
    );
    await mark(10n);
    const other = await make('goods', '(id int primary key, a int default 6)');
    await watch.tell();
    const known = watch.byOid(held === 'goods' ? other : oid);
    await whileHeld(held, async () => {
      await client.query(`alter table ${held === 'items' ? 'goods' : 'items'} add b int default 8`);
      // What is held has the default that was known of it, and is looked at again.
      expect((await watch.tell()).isDone).toBe(held === 'hidden');
      if (held === 'items') await mark(11n, other);
      else await mark(11n);
    });
    expect(watch.byOid(held === 'items' ? other : oid)?.schema.columns.map(({ name }) => name)).toEqual([
      'id',
      'a',
      'b',
    ]);
    if (held !== 'hidden') expect(watch.byOid(known!.oid)).toBe(known);
    expect((await watch.tell()).isDone).toBe(true);
  },
);

test('the default of a table that is held and was never looked at comes when it is free', async () => {
  await client.query('alter table items alter a set default 5');
  await whileHeld('items', async () => {
    expect((await watch.tell()).isDone).toBe(false);
  });
  expect((await watch.tell()).isDone).toBe(true);
  await mark(11n);
  expect(watch.byOid(oid)?.schema.columns[1]?.default).toBe('5');
});

test('a new table that is held is published when it is free', async () => {
  await client.query('create table fresh (id int primary key)');
  await whileHeld('fresh', async () => {
    expect((await watch.tell()).isDone).toBe(false);
  });
  expect((await watch.tell()).isDone).toBe(true);
  const published = await client.query('select tablename from pg_publication_tables');
  expect(published.rows).toEqual([{ tablename: 'fresh' }]);
});

test('a table that is marked under a schema which is gone by then is looked at again', async () => {
  await client.query('create schema before; create table before.still (id int primary key)');
  const { table } = (await readTable(client, await oidOf('before.still')))!;
  await client.query('alter schema before rename to behind');
  expect(await markTable(client, 'waybill.test', table)).toBe(false);
});

test('defaults of temporary tables have nothing read', async () => {
  const fingerprint = async (): Promise<string> => (await client.query(FINGERPRINT)).rows[0].fingerprint as string;
  const before = await fingerprint();
  await client.query('create temporary table passing (id int default 4)');
  expect(await fingerprint()).toBe(before);
  await client.query('create schema elsewhere');
  expect(await fingerprint()).not.toBe(before);
});

test('a table is told under the name that its schema got', async () => {
  await client.query('create schema before; create table before.still (id int primary key)');
  const still = await oidOf('before.still');
  await mark(10n, still);
  await watch.tell();
  await client.query('alter schema before rename to behind');
  await client.query(`select pg_create_logical_replication_slot(current_database(), 'pgoutput', true)`);
  expect((await watch.tell()).isDone).toBe(true);
  const { rows } = await client.query<{ data: Buffer }>(
    `select data from pg_logical_slot_get_binary_changes(current_database(), null, null, 'proto_version', '1',
       'publication_names', 'none', 'messages', 'true') where get_byte(data, 0) = ascii('M')`,
  );
  expect(rows.some(({ data }) => data.includes('"schema":"behind"'))).toBe(true);
});

test('a mark from before a rename says nothing of the name that the table has there', async () => {
  const before = (await readTable(client, oid))!.row;
  await client.query('alter table items rename to goods');
  expect(await mark(11n)).toEqual(['gone items first', 'schema goods first']);
  // The stream has neither: both come again, to another process.
  watch = watchOver(new Map([...(await registry.load())].map(([id, stored]) => [id, untold(stored, 11n)!])));
  const told = await watch.takeMark({ k: 'table', oid, row: before, published: true }, { xid: XID, lsn: 10n });
  expect(told.map(({ mark: what, table }) => `${what} ${table.schema.name}`)).toEqual(['schema items']);
  expect(await mark(11n)).toEqual(['gone items first', 'schema goods first']);
});
