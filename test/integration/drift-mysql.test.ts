/**
 * Drift where MySQL and MariaDB are sources or targets: rows of every type that were replicated are found equal, what is
 * planted is found, and nothing else.
 */
import { describe, expect, it } from 'vitest';
import { lastProof } from '../../cli/console/drift.ts';
import { rereadRows } from '../../capture/reread.ts';
import { askForProgress } from '../../core/asked-progress.ts';
import { cdcStreamName } from '../../core/cdc-stream.ts';
import type { Dialect } from '../../core/frame.ts';
import { comparePlan } from '../../monitoring/drift/compare-plan.ts';
import { MysqlDriftSource } from '../../monitoring/drift/mysql/mysql-side.ts';
import { closeSides, openSides } from '../../monitoring/drift/open-sides.ts';
import { isProven, openFindings, type FlowOutcome } from '../../monitoring/drift/outcome.ts';
import { Pace } from '../../monitoring/drift/pace.ts';
import { newTableProgress } from '../../monitoring/drift/verify-table.ts';
import { openReader } from '../../monitoring/sql-reader.ts';
import { createRandom } from '../../sandbox/demo/random.ts';
import { AnyClient, type CrossPipeline } from '../support/cross-pipeline.ts';
import { EveryServer } from '../support/every-server.ts';
import { Heartbeats } from '../support/heartbeats.ts';
import { tableCases } from '../support/mysql-columns.ts';
import { Pipeline } from '../support/pipeline.ts';
import { POSTGRES_COLUMNS, POSTGRES_TYPES } from '../support/postgres-columns.ts';
import { waitFor } from '../support/wait.ts';

const ROWS = 120;
const STOCK = 4000;
const TIMEOUT_MS = 180_000;
const seed = Number(process.env['WAYBILL_TEST_SEED'] ?? 31_415_926);

const servers = EveryServer.forThisFile();
process.stdout.write(`seed ${seed}\n`);

function found(outcome: FlowOutcome): string[] {
  return outcome.tables
    .flatMap((table) =>
      openFindings(table).map(
        ({ kind, key, copies }) => `${table.name} ${kind} ${key === null ? copies : JSON.stringify(key)}`,
      ),
    )
    .sort();
}

/** Tables of every type with random rows; gives their names. */
async function everyType(client: AnyClient, to: Dialect): Promise<string[]> {
  const random = createRandom(seed);
  if (client.dialect === 'postgres') {
    await client.run(POSTGRES_TYPES);
    const definitions = POSTGRES_COLUMNS.map(({ name, type }) => `${name} ${type}`);
    await client.run(`CREATE TABLE every_type (id integer PRIMARY KEY, ${definitions.join(', ')})`);
    const tuples = Array.from({ length: ROWS }, (_, id) => {
      const values = POSTGRES_COLUMNS.map(({ value }) => (random.chance(0.08) ? 'NULL' : value(random)));
      return `(${id}, ${values.join(', ')})`;
    });
    await client.run(`INSERT INTO every_type VALUES ${tuples.join(', ')}`);
    return ['every_type'];
  }
  const flavour = client.dialect;
  const cases = tableCases(flavour, servers[flavour].version);
  await client.run("SET sql_mode = ''");
  for (const { name, columns } of cases) {
    // j1 of MySQL has exact decimals, which no text brings into a document of MySQL: those rows go to quarantine.
    const inexact = flavour === 'mysql' && to === 'mysql' ? 'j1' : '';
    const given = columns.filter((column) => column.value !== undefined && column.name !== inexact);
    const definitions = given.map((column) => `${column.name} ${column.definition}`);
    await client.run(`CREATE TABLE ${name} (id bigint PRIMARY KEY, ${definitions.join(', ')}) ROW_FORMAT=DYNAMIC`);
    const tuples = Array.from({ length: ROWS }, (_, id) => {
      const values = given.map((column) => (random.chance(0.08) ? 'NULL' : column.value!(random)));
      return `(${id}, ${values.join(', ')})`;
    });
    await client.run(
      `INSERT INTO ${name} (id, ${given.map((column) => column.name).join(', ')}) VALUES ${tuples.join(', ')}`,
    );
    // The error value of an enum, '', has no label: such a row goes to quarantine.
    for (const column of given)
      if (column.definition === "enum('a','b')")
        await client.run(`UPDATE ${name} SET ${column.name} = 'a' WHERE ${column.name} = 0`);
  }
  return cases.map(({ name }) => name);
}

/** A table with a key of numbers, one with a key of texts and one without. */
async function stock(client: AnyClient): Promise<void> {
  const moment = client.dialect === 'postgres' ? 'timestamp' : 'datetime(6)';
  await client.run(
    `CREATE TABLE stock (id integer PRIMARY KEY, sku varchar(40), qty decimal(12,3), note varchar(200), at ${moment})`,
  );
  await client.run(
    'CREATE TABLE codes (code varchar(40) NOT NULL, side integer NOT NULL, body text, PRIMARY KEY (code, side))',
  );
  await client.run('CREATE TABLE journal (line varchar(40), n integer)');
  if (client.dialect === 'postgres') await client.run('ALTER TABLE journal REPLICA IDENTITY FULL');
  // A key of which neither part is written in frames as it is compared.
  const bytes = client.dialect === 'postgres' ? 'bytea' : 'varbinary(8)';
  await client.run(`CREATE TABLE shifts (at time(6), code ${bytes}, n integer, PRIMARY KEY (at, code))`);
  const code = client.dialect === 'postgres' ? (hex: string) => `'\\x${hex}'` : (hex: string) => `X'${hex}'`;
  await client.run(
    `INSERT INTO shifts VALUES ('07:30:00.000001', ${code('00ff')}, 1), ('16:00:00', ${code('5c27')}, 2)`,
  );
  for (let from = 0; from < STOCK; from += 1000) {
    const rows = Array.from({ length: 1000 }, (_, i) => from + i);
    await client.run(
      `INSERT INTO stock VALUES ${rows.map((id) => `(${id}, 'SKU-${id}', ${id % 90}.125, ${id % 7 === 0 ? 'NULL' : `'note é ${id}'`}, '2024-02-29 12:00:00.${String(id).padStart(6, '0')}')`).join(', ')}`,
    );
  }
  const some = Array.from({ length: 500 }, (_, i) => i);
  await client.run(`INSERT INTO codes VALUES ${some.map((i) => `('Code ${i}', ${i % 3}, 'b${i}')`).join(', ')}`);
  await client.run(`INSERT INTO journal VALUES ${some.map((i) => `('line ${i % 100}', ${i % 100})`).join(', ')}`);
}

/** Changes of the target, and what is to be found of them. */
function plants(place: string, to: Dialect): { sql: string[]; expected: string[] } {
  const one =
    to === 'postgres' ? `WHERE ctid = (SELECT min(ctid) FROM ${place}.journal WHERE n = 11)` : 'WHERE n = 11 LIMIT 1';
  const microsecond = to === 'postgres' ? `at + interval '1 microsecond'` : 'DATE_ADD(at, INTERVAL 1 MICROSECOND)';
  return {
    sql: [
      `DELETE FROM ${place}.stock WHERE id = 101`,
      `INSERT INTO ${place}.stock (id, sku) VALUES (900001, 'x')`,
      `UPDATE ${place}.stock SET qty = qty + 0.001 WHERE id = 102`,
      `UPDATE ${place}.stock SET note = '' WHERE id = 105`,
      `UPDATE ${place}.stock SET note = 'note e\u0301 106' WHERE id = 106`,
      `UPDATE ${place}.stock SET note = 'note \u00e9 107 ' WHERE id = 107`,
      `UPDATE ${place}.stock SET at = ${microsecond} WHERE id = 108`,
      `UPDATE ${place}.stock SET sku = 'SKU-110' WHERE id = 109`,
      `UPDATE ${place}.stock SET sku = 'SKU-109' WHERE id = 110`,
      `UPDATE ${place}.codes SET body = 'B77' WHERE code = 'Code 77'`,
      `DELETE FROM ${place}.codes WHERE code = 'Code 78'`,
      `INSERT INTO ${place}.codes VALUES ('Code 79', 7, 'b')`,
      `INSERT INTO ${place}.journal VALUES ('line 7', 7)`,
      `DELETE FROM ${place}.journal ${one}`,
      `DELETE FROM ${place}.shifts WHERE n = 1`,
      `UPDATE ${place}.shifts SET n = 3 WHERE n = 2`,
    ],
    expected: [
      'codes different ["Code 77","2"]',
      'codes extra ["Code 79","7"]',
      'codes missing ["Code 78","0"]',
      'journal extra 1',
      'journal missing 1',
      'shifts different ["57600000000","5c27"]',
      'shifts missing ["27000000001","00ff"]',
      'stock different ["102"]',
      'stock different ["105"]',
      'stock different ["106"]',
      'stock different ["107"]',
      'stock different ["108"]',
      'stock different ["109"]',
      'stock different ["110"]',
      'stock extra ["900001"]',
      'stock missing ["101"]',
    ],
  };
}

const DIRECTIONS: readonly (readonly [Dialect, Dialect])[] = [
  ['mysql', 'postgres'],
  ['mariadb', 'postgres'],
  ['postgres', 'mysql'],
  ['postgres', 'mariadb'],
  ['mysql', 'mysql'],
  ['mysql', 'mariadb'],
  ['mariadb', 'mysql'],
];

describe.each(DIRECTIONS)('drift from %s to %s', (from, to) => {
  it(
    'finds rows of every type equal, and all that is planted, and nothing else',
    async () => {
      const pipeline = await servers.pipeline(from, to, { zero_dates: 'null' });
      const tables = [...(await everyType(pipeline.source, to)), 'stock', 'codes', 'journal', 'shifts'];
      await stock(pipeline.source);
      await pipeline.start();
      await pipeline.settled(tables);
      expect(await pipeline.provenAt()).toBeUndefined();
      const clean = await pipeline.verify();
      expect(found(clean)).toEqual([]);
      expect(await pipeline.provenAt()).toEqual(clean.startedAt);
      expect(isProven(clean)).toBe(true);
      expect(clean.tables.map((table) => table.name).sort()).toEqual([...tables].sort());

      const { sql, expected } = plants(pipeline.place, to);
      for (const statement of sql) await pipeline.target.run(statement);
      const drifted = await pipeline.verify();
      expect(found(drifted)).toEqual(expected);
      expect(await pipeline.provenAt(), 'a comparison that finds something proves nothing').toEqual(clean.startedAt);
      const stored = await pipeline.target.run(
        `select count(*) from waybill.drift where flow = '${pipeline.flow}' and state = 'open'`,
      );
      expect(Number(stored[0]![0])).toBe(expected.length);

      const { nats: connection, config } = pipeline;
      const repaired = await pipeline.verify({
        reread: (schema, table, keys, signal) =>
          rereadRows({ nats: connection, config: config.nats, source: 'one', schema, table, keys, signal }),
      });
      expect(found(repaired)).toEqual([]);
      expect(isProven(await pipeline.verify())).toBe(true);
      await onlyOneWrites(pipeline);
    },
    TIMEOUT_MS,
  );
});

/** Whoever had a run that another comparison goes on with, or that another one replaced, writes to it no more. */
async function onlyOneWrites(pipeline: CrossPipeline): Promise<void> {
  const { store, ...sides } = await openSides(pipeline.config, pipeline.flow);
  try {
    const lost = { code: 'lease_lost' };
    const proven = await store.provenAt();
    const reader = await openReader('target', pipeline.config.targets['two']!, 'test');
    const known = async (): Promise<void> => {
      expect(await store.provenAt()).toEqual(proven);
      expect(await lastProof(reader, pipeline.flow)).toBe(proven!.toISOString());
    };
    const done = { state: 'done', compared: ['here.stock'] } as const;
    const first = await store.begin(true);
    expect(first.tables.size, 'those before have ended').toBe(0);
    first.tables.set('here.stock', { ...newTableProgress(), rows: 7 });
    await store.save(first, 'here.stock');
    await known();
    const second = await store.begin(true);
    expect([second.startedAt, second.tables]).toEqual([first.startedAt, first.tables]);
    await expect(store.save(first, 'here.stock')).rejects.toMatchObject(lost);
    await expect(store.finish(first, done)).rejects.toMatchObject(lost);
    await store.save(second, 'here.stock');
    const third = await store.begin(false);
    expect(third.tables.size).toBe(0);
    await expect(store.save(second, 'here.stock')).rejects.toMatchObject(lost);
    await store.finish(third, done);
    await expect(store.finish(third, done)).rejects.toMatchObject(lost);
    expect((await store.begin(true)).tables.size).toBe(0);
    await known();
    await reader.close();
  } finally {
    await closeSides({ ...sides, store });
  }
}

it.each(['postgres', 'mysql', 'mariadb'] as const)(
  'a heartbeat of an idle source of %s passes capture, stream and apply',
  async (from) => {
    const pipeline = await servers.pipeline(from, from === 'postgres' ? 'mysql' : 'postgres');
    await pipeline.source.run('create table t (id integer primary key)');
    await pipeline.source.run('insert into t values (1)');
    await pipeline.start();
    await pipeline.settled(['t']);
    const beats = servers.closing(new Heartbeats(pipeline.config, pipeline.flow, 'two'));
    await beats.arrive('one');
    for (const stage of ['apply', 'capture'] as const) {
      await pipeline.stop(stage);
      await beats.stayAway('one');
      await pipeline.start([stage]);
      await beats.arrive('one');
    }
    if (pipeline.failure !== undefined) throw pipeline.failure;
  },
  TIMEOUT_MS,
);

it('a capture of Postgres gives a frame when it is asked, as of a standby, where no mark can be written', async () => {
  const quiet = { heartbeat: '1h' };
  const ddl = 'create table t (id integer primary key)';
  const pipeline = servers.closing(
    await Pipeline.open(servers.postgres, servers.nats, ddl, {}, servers.postgres, quiet),
  );
  await pipeline.source.query('insert into t values (1)');
  pipeline.start();
  await pipeline.settled(['t']);
  const { prefix } = pipeline.config.nats;
  const applied = async (): Promise<number> => {
    const { rows } = await pipeline.target.query<{ seq: string }>('select stream_seq as seq from waybill.position');
    return Number(rows[0]!.seq);
  };
  // More often than the frames at the end of a snapshot could be the answer.
  for (let round = 0; round < 8; round++) {
    const { state } = await pipeline.nats.manager.streams.info(cdcStreamName(prefix, 'wms'));
    askForProgress(pipeline.nats, prefix, 'capture', 'wms');
    await waitFor('the frame in the target', async () => (await applied()) > state.last_seq);
  }
});

it.each(['mysql', 'mariadb'] as const)('%s works the same digests out as they are worked out here', async (flavour) => {
  const url = await servers[flavour].createDatabase('digests');
  const client = await AnyClient.open(flavour, url);
  await everyType(client, 'mariadb');
  await stock(client);
  await client.close();
  const sides = await Promise.all(
    (['server', 'here'] as const).map((digests) =>
      MysqlDriftSource.open({
        kind: flavour,
        url,
        applicationName: 'test',
        include: (schema) => schema === 'digests',
        digests,
      }),
    ),
  );
  try {
    const pace = new Pace(1, AbortSignal.timeout(60_000));
    const tables = await sides[0]!.tables();
    expect(tables.map((table) => table.name)).toHaveLength(9);
    for (const table of tables.filter((each) => each.key.length > 0)) {
      const plan = comparePlan(table, table, 'null');
      const sums = await Promise.all(
        sides.map((side) => side.scan(plan.source, { kind: 'range', after: null, upTo: null }, 7, pace)),
      );
      expect(sums[0]!.rows, table.name).toBeGreaterThan(1);
      expect(sums[0]!.differing(sums[1]!), table.name).toEqual([]);
    }
  } finally {
    for (const side of sides) await side.close();
  }
});
