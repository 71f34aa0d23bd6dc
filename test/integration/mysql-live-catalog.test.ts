/** A table that lives is never said to be gone, whatever a list of all tables leaves out while one is altered. */
import { createConnection, type Connection } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { matchingTables } from '../../capture/mysql/catalog.ts';
import { connectSource, type SqlClient } from '../../capture/mysql/connection.ts';
import { readExecuted } from '../../capture/mysql/executed.ts';
import { LiveCatalog } from '../../capture/mysql/live-catalog.ts';
import { ToldTables, type ToldTable } from '../../capture/mysql/told-tables.ts';
import { ColumnRules } from '../../core/column-rules.ts';
import { parseConfig, type MysqlSourceConfig } from '../../core/config.ts';
import type { Gtid } from '../../core/gtid.ts';
import { createLogger } from '../../core/logger.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';

const TIMEOUT_MS = 120_000;
/** Not in what the server has executed: the log comes to it after the catalog was read. */
const LATER: Record<'mysql' | 'mariadb', Gtid> = {
  mysql: { kind: 'mysql', source: '3e11fa47-71ca-11e1-9e33-c80aa9429562', gno: 1 },
  mariadb: { kind: 'mariadb', domain: 77, server: 77, seq: 1 },
};

describe.each(['mysql', 'mariadb'] as const)('the catalog of a living %s', (flavour) => {
  let server: MysqlServer;
  let sql: Connection;
  let client: SqlClient;
  let settings: MysqlSourceConfig;
  let catalog: LiveCatalog;
  /** What the bucket would hold. */
  const stored = new Map<string, ToldTable>();
  const readAgain: string[] = [];
  let held: Promise<void> | undefined;
  /** Which list leaves the table out. */
  let hidden: 'TABLES' | 'COLUMNS' | undefined;

  beforeAll(async () => {
    server = await startMysql({ flavour });
    const url = await server.createDatabase('live');
    sql = await createConnection({ uri: url });
    await sql.query('CREATE TABLE kept (id int PRIMARY KEY)');
    await sql.query('CREATE TABLE altered (id int PRIMARY KEY, v int)');
    settings = parseConfig(
      JSON.stringify({
        version: 1,
        nats: { servers: ['nats://127.0.0.1:1'] },
        sources: { live: { kind: flavour, url, tables: ['live.*'] } },
      }),
      {},
    ).sources['live'] as MysqlSourceConfig;
    client = await connectSource(settings);
    catalog = await open();
  }, TIMEOUT_MS);
  afterAll(async () => {
    client?.end();
    sql?.destroy();
    await server?.dispose();
  }, TIMEOUT_MS);

  /** The catalog of a capture that starts, after the one before it, if any, was killed. */
  async function open(rules = ColumnRules.compile(undefined)): Promise<LiveCatalog> {
    const tables = await matchingTables(client, flavour, settings.tables);
    const store = {
      put: async (id: string, told: ToldTable) => void stored.set(id, told),
      delete: async (id: string) => void stored.delete(id),
    };
    return new LiveCatalog({
      client: leavingOut(client),
      flavour,
      patterns: settings.tables,
      foldsNames: false,
      rules,
      tables,
      told: await ToldTables.open(store, new Map(stored), tables, { afresh: false, included: () => true }),
      executed: await readExecuted(client, flavour),
      log: createLogger('silent'),
      hold: (work) => void (held = work),
      onNewTable: async () => undefined,
      onShown: () => undefined,
      onRowsMoved: async () => undefined,
      onChanged: async ({ name }, why, narrower) =>
        void readAgain.push(`${name}: ${why}${narrower ? ' (narrower)' : ''}`),
    });
  }

  /** As MariaDB answers for a moment while a table is altered: lists of all tables lack it, questions by name do not. */
  function leavingOut(real: SqlClient): SqlClient {
    return new Proxy(real, {
      get: (target, name) =>
        name === 'query'
          ? async (text: string, doing: string) => {
              const rows = await target.query(text, doing);
              const isList = hidden !== undefined && text.includes(`information_schema.${hidden}`);
              return isList && text.includes('NOT IN') ? rows.filter((row) => row[1] !== 'altered') : rows;
            }
          : (Reflect.get(target, name) as unknown),
    });
  }

  /** What the stream is told once a statement was seen in the log. */
  async function told(statement: string): Promise<string[]> {
    await passed(statement);
    return await toldAgain();
  }

  /** The log brings a statement, and delivery waits for what that asks for. */
  async function passed(statement: string, gtid = LATER[flavour]): Promise<void> {
    const rest = { truncates: undefined, movesRows: false, inGroup: false };
    catalog.onStatement({ schema: 'live', sql: statement, verb: statement.split(' ')[0]!, ...rest }, gtid);
    await held;
  }

  /** Runs a statement, which the log brings then. */
  async function run(statement: string): Promise<void> {
    await sql.query(statement);
    await passed(statement);
  }

  async function drop(table: string): Promise<void> {
    await sql.query(`DROP TABLE ${table}`);
    expect(await told(`DROP TABLE ${table}`)).toEqual([`${table} gone dropped`]);
  }

  async function toldAgain(): Promise<string[]> {
    const marks: string[] = [];
    await catalog.look(async (_, work) => {
      for (const { table, what, mark } of work()) marks.push(`${table.schema.name} ${mark} ${what}`.trim());
    });
    return marks;
  }

  it.each(['TABLES', 'COLUMNS'] as const)('does not lack a table that the list of %s left out', async (list) => {
    hidden = list;
    expect(await told('ALTER TABLE altered ENGINE=InnoDB')).toEqual([]);
    expect(await catalog.current()).toEqual(
      expect.arrayContaining([expect.objectContaining({ name: 'altered' }), expect.objectContaining({ name: 'kept' })]),
    );
    hidden = undefined;
  });

  it('waits for a table that somebody holds, and looks again', async () => {
    await sql.query('LOCK TABLES altered WRITE');
    hidden = 'TABLES';
    expect(await told('ALTER TABLE altered ENGINE=InnoDB')).toEqual([]);
    await sql.query('UNLOCK TABLES');
    hidden = undefined;
    await sql.query('ALTER TABLE altered ADD COLUMN w int');
    expect(await told('ALTER TABLE altered ADD COLUMN w int')).toEqual(['altered schema']);
  });

  it('tells of changes that the capture before it passed and did not tell', async () => {
    await run('ALTER TABLE altered ADD COLUMN x int NOT NULL DEFAULT 7');
    catalog = await open();
    expect(await toldAgain()).toEqual(['altered schema']);
    expect(readAgain).toEqual([]);
    catalog = await open();
    expect(await toldAgain()).toEqual([]);
    expect(stored.get('live.altered')?.since).toBeUndefined();
  });

  it('has a table read again of which more was passed than the catalog shows by now', async () => {
    await run('ALTER TABLE altered ADD COLUMN y int NOT NULL DEFAULT 7');
    catalog = await open();
    await run('ALTER TABLE altered ALTER y SET DEFAULT 8');
    catalog = await open();
    expect(await toldAgain()).toEqual(['altered schema']);
    expect(readAgain).toEqual(['altered: it changed more than once']);
    await run('ALTER TABLE altered DROP COLUMN y, ADD COLUMN y int NOT NULL DEFAULT 8');
    expect(await toldAgain()).toEqual([]);
    expect(readAgain.slice(1)).toEqual(['altered: a column may have come again']);
  });

  it.each([
    'MODIFY y mediumint NOT NULL DEFAULT 9',
    // Whatever else came in the same statement.
    'DROP COLUMN x, ADD COLUMN z int, CHANGE y y smallint FIRST',
    'MODIFY y tinyint',
  ])('has a table read again whose type lost values, and says so: %s', async (statement) => {
    readAgain.length = 0;
    await run(`ALTER TABLE altered ${statement}`);
    expect(await toldAgain()).toEqual(['altered schema']);
    expect(readAgain).not.toEqual([]);
    expect(readAgain.filter((why) => !why.endsWith('(narrower)'))).toEqual([]);
  });

  it('says of a table that it was narrower until it was asked for and has begun to be read', async () => {
    await sql.query('CREATE TABLE narrowed (id int PRIMARY KEY, a bigint, b int)');
    catalog = await open();
    await toldAgain();
    readAgain.length = 0;
    await run('ALTER TABLE narrowed MODIFY a int');
    await toldAgain();
    await run('ALTER TABLE narrowed DROP COLUMN b, ADD COLUMN b int');
    await toldAgain();
    expect(readAgain).toEqual([
      'narrowed: column a has another type (narrower)',
      'narrowed: a column may have come again (narrower)',
    ]);
    readAgain.length = 0;
    catalog.begins({ schema: 'live', name: 'narrowed' });
    await run('ALTER TABLE narrowed DROP COLUMN b, ADD COLUMN b int');
    await toldAgain();
    expect(readAgain).toEqual(['narrowed: a column may have come again']);
    await drop('narrowed');
  });

  it('has a table read again whatever becomes of columns that rules leave out or change', async () => {
    await sql.query('CREATE TABLE ruled (id int PRIMARY KEY, secret bigint, masked bigint, b int)');
    catalog = await open(
      ColumnRules.compile({
        exclude: ['live.ruled.secret'],
        mask: [{ columns: ['live.ruled.masked'], keep_first: 0, keep_last: 0 }],
      }),
    );
    await toldAgain();
    readAgain.length = 0;
    await run('ALTER TABLE ruled MODIFY secret int');
    await toldAgain();
    expect(readAgain).toEqual([]);
    await run('ALTER TABLE ruled DROP COLUMN b, ADD COLUMN b int');
    await toldAgain();
    await run('ALTER TABLE ruled MODIFY secret smallint, ADD COLUMN d datetime DEFAULT CURRENT_TIMESTAMP');
    await toldAgain();
    await run('ALTER TABLE ruled MODIFY masked int');
    await toldAgain();
    expect(readAgain).toEqual([
      'ruled: a column may have come again',
      'ruled: column d has values of its own in all rows',
      'ruled: column masked has another type',
    ]);
    await drop('ruled');
  });

  it('has a table read again of which a column may have got another name, also where that has a default', async () => {
    await run("ALTER TABLE altered ADD COLUMN named varchar(10) DEFAULT 'new'");
    expect(await toldAgain()).toEqual(['altered schema']);
    readAgain.length = 0;
    await run('ALTER TABLE altered RENAME COLUMN named TO renamed');
    expect(await toldAgain()).toEqual(['altered schema']);
    expect(readAgain).toEqual(['altered: column renamed may be one that had another name']);
  });

  /** What has tables read again, where a table of these columns is altered like this and the stream is told of it. */
  async function readingsOf(columns: string, ...statements: readonly string[]): Promise<string[]> {
    await sql.query(`CREATE TABLE named (id int PRIMARY KEY, ${columns})`);
    catalog = await open();
    await toldAgain();
    readAgain.length = 0;
    for (const statement of statements) await run(`ALTER TABLE named ${statement}`);
    await toldAgain();
    await sql.query('DROP TABLE named');
    await told('DROP TABLE named');
    return [...new Set(readAgain)];
  }

  it.each([
    ['a int, b int', 'RENAME COLUMN a TO b, RENAME COLUMN b TO a'],
    ['a int, b int', 'CHANGE a b int, CHANGE `b` `a` int'],
    // Of each other's type, too.
    ['a int, b varchar(10)', 'RENAME COLUMN a TO b, RENAME COLUMN b TO a'],
    ['a int, b int, c int', 'RENAME COLUMN a TO b, RENAME COLUMN b TO c, RENAME COLUMN c TO a'],
    ['a int, b int', 'RENAME COLUMN a TO b, RENAME COLUMN b TO a, ADD COLUMN c int'],
    ['a int', 'RENAME COLUMN a TO b, ADD COLUMN a int'],
    ['a int, b varchar(10)', 'RENAME COLUMN a TO b, RENAME COLUMN b TO c'],
    // With places of their own, so that the columns look as before.
    ['a int, b int', 'CHANGE b a int AFTER id, CHANGE a b int'],
    ['a int, b int', 'CHANGE a b int, CHANGE b a int FIRST'],
    ['a int', 'CHANGE a b int, ADD COLUMN a int AFTER id'],
    ['a int', 'RENAME COLUMN a TO b, ADD COLUMN (a int, c int)'],
    ['a int, b varchar(10)', 'CHANGE a b int, CHANGE b a varchar(10) FIRST'],
    ['a int, b int', 'DROP COLUMN b, RENAME COLUMN a TO b'],
    ['a int, b varchar(10)', 'DROP COLUMN b, RENAME COLUMN a TO b'],
    ['a int, b int', 'DROP COLUMN a, ADD COLUMN a int'],
    ['a int, b varchar(10)', 'DROP COLUMN b, ADD COLUMN b int'],
    ['a int, b int', 'DROP `a`, ADD `a` int AFTER id'],
    ['a int, b int', 'ADD COLUMN c int, DROP a, ADD a int'],
  ])('has a table of %s read again whose names moved: %s', async (columns, statement) => {
    expect(await readingsOf(columns, statement)).toHaveLength(1);
  });

  it.each([
    ['DROP COLUMN a', 'ADD COLUMN a int'],
    ['RENAME COLUMN a TO x', 'RENAME COLUMN b TO a', 'RENAME COLUMN x TO b'],
    ['RENAME COLUMN b TO c', 'RENAME COLUMN a TO b'],
    ['DROP COLUMN b', 'RENAME COLUMN a TO b'],
  ])('has a table read again whose names moved in several statements: %s; %s', async (...statements) => {
    expect(await readingsOf('a int, b int', ...statements)).toHaveLength(1);
  });

  it.each([
    'MODIFY b int AFTER id',
    'MODIFY b int FIRST, ADD COLUMN c int',
    'ADD COLUMN c int AFTER id',
    'ADD COLUMN c int FIRST, ADD COLUMN d int AFTER a',
    'CHANGE a a int COMMENT "x", CHANGE COLUMN `b` `b` int COMMENT "y"',
    'CHANGE a a int, ADD COLUMN c int AFTER id',
    'DROP COLUMN a, ADD INDEX by_both (b, id)',
    'DROP COLUMN a',
    'DROP INDEX by_b, ADD COLUMN c int, ADD KEY by_c (c)',
    'DROP INDEX by_b, ADD INDEX by_b (b, id)',
  ])('does not have a table read again whose names stayed: %s', async (statement) => {
    expect(await readingsOf('a int, b int, KEY by_b (b)', statement)).toEqual([]);
  });

  it('has a table read again of which the catalog showed values before the log told of them, whatever the words', async () => {
    const [[row]] = (await sql.query(
      flavour === 'mysql' ? 'SELECT @@server_uuid AS id' : 'SELECT @@gtid_binlog_pos AS id',
    )) as unknown as [[{ id: string }]];
    const [domain = 0, from = 0] = row.id.split('-').map(Number);
    const earlier: Gtid =
      flavour === 'mysql'
        ? { kind: 'mysql', source: row.id, gno: 1 }
        : { kind: 'mariadb', domain, server: from, seq: 1 };
    await run('CREATE TABLE implied (id int PRIMARY KEY)');
    await toldAgain();
    const behind = async (...statements: readonly string[]): Promise<string[]> => {
      readAgain.length = 0;
      for (const statement of statements) await sql.query(statement);
      catalog = await open();
      for (const statement of statements) await passed(statement, earlier);
      await toldAgain();
      return [...new Set(readAgain)];
    };
    const why = 'implied: it changed before its version was known';
    expect(await behind('ALTER TABLE implied ADD COLUMN c serial')).toEqual([why]);
    expect(await behind('ALTER TABLE implied ADD COLUMN d int')).toEqual([]);
    await sql.query('SET SESSION explicit_defaults_for_timestamp = 0');
    expect(await behind('ALTER TABLE implied ADD COLUMN t timestamp', 'ALTER TABLE implied ADD COLUMN e int')).toEqual([
      why,
    ]);
    await run('DROP TABLE implied');
    await toldAgain();
  });

  it('knows a column that came again between two looks, one of which saw the table without it', async () => {
    await sql.query('CREATE TABLE again (id int PRIMARY KEY, a int)');
    catalog = await open();
    await toldAgain();
    readAgain.length = 0;
    await run('ALTER TABLE again DROP COLUMN a');
    await catalog.look(async (_, work) => {
      await run('ALTER TABLE again ADD COLUMN a int');
      expect(work()).toEqual([]);
    });
    expect(await toldAgain()).toEqual([]);
    expect(readAgain).toEqual(['again: it changed more than once']);
  });

  it('knows what rows have in a new column, also where another change came before the stream was told', async () => {
    await run('ALTER TABLE again ADD COLUMN n int NOT NULL DEFAULT 7');
    const existing: unknown[] = [];
    await catalog.look(async (_, work) => {
      await run('ALTER TABLE again ADD COLUMN m int');
      expect(work()).toEqual([]);
    });
    await catalog.look(async (_, work) => {
      for (const { table } of work()) existing.push(...table.schema.columns.map((column) => column.existing));
    });
    expect(existing).toEqual([undefined, undefined, '7', undefined]);
    await sql.query('DROP TABLE again');
    expect(await told('DROP TABLE again')).toEqual(['again gone dropped']);
  });

  it('tells of tables that were dropped or renamed while no capture ran, or before it told of that', async () => {
    await sql.query('CREATE TABLE away (id int PRIMARY KEY)');
    await sql.query('CREATE TABLE moved (id int PRIMARY KEY)');
    await sql.query('CREATE TABLE changed (id int PRIMARY KEY, n int, KEY by_n (n))');
    catalog = await open();
    expect(await toldAgain()).toEqual([]);
    await sql.query('DROP TABLE away');
    await run('RENAME TABLE moved TO elsewhere');
    // Names within a table are not its own.
    await run('ALTER TABLE changed RENAME COLUMN n TO m');
    await run('ALTER TABLE changed RENAME INDEX by_n TO by_m');
    await sql.query('DROP TABLE changed');
    catalog = await open();
    expect((await toldAgain()).sort()).toEqual(['away gone dropped', 'changed gone dropped', 'moved gone renamed']);
    expect([...stored.keys()].sort()).toEqual(['live.altered', 'live.elsewhere', 'live.kept']);
  });

  it('says that a table is gone when it is, also with its place taken by a view', async () => {
    await sql.query('DROP TABLE altered');
    expect(await told('DROP TABLE altered')).toEqual(['altered gone dropped']);
    await sql.query('DROP TABLE kept');
    await sql.query('CREATE VIEW kept AS SELECT 1 AS id');
    expect(await told('DROP TABLE kept')).toEqual(['kept gone dropped']);
    expect(await toldAgain()).toEqual([]);
  });
});
