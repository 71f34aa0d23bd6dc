/** What the watch over definitions has read again, told of changes one by one. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import pg from 'pg';
import { readTable, type CapturedTable } from '../../capture/postgres/catalog.ts';
import type { RelationMessage } from '../../capture/postgres/pgoutput.ts';
import { SchemaWatch } from '../../capture/postgres/schema-watch.ts';
import { untold } from '../../capture/postgres/stored-table.ts';
import { BY_OID, TableRegistry } from '../../capture/table-registry.ts';
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
let registry: TableRegistry<number, CapturedTable>;
let watch: SchemaWatch;
let oid: number;
/** The columns of each reading of the table, by their ids. */
let readings: string[];
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
  client = new pg.Client({ connectionString: await postgres.createDatabase(name) });
  await client.connect();
  await client.query('create table items (id int primary key, a int)');
  oid = Number((await client.query<{ oid: string }>(`select 'items'::regclass::oid::int8 as oid`)).rows[0]!.oid);
  const bucket = await openBucket(nats, parseConfig(configText(name), {}).nats);
  registry = new TableRegistry(bucket, 'wms', BY_OID, (table) => table);
  await registry.put(oid, (await readTable(client, oid))!.table);
  readings = [];
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
async function startAgain(): Promise<void> {
  const read = async ({ schema }: CapturedTable): Promise<void> =>
    void readings.push(schema.columns.map(({ id }) => id).join());
  watch = new SchemaWatch({
    client,
    publication: 'none',
    markPrefix: 'waybill.test',
    included: (_, name) => name !== 'hidden',
    registry,
    tables: await registry.load(),
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

/** The mark of what the table is like now, at a place in the log. */
async function mark(lsn: bigint): Promise<void> {
  const { row } = (await readTable(client, oid))!;
  await watch.takeMark({ k: 'table', oid, row, published: true }, { xid: XID, lsn });
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
