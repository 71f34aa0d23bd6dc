/** A table that lives is never said to be gone, whatever a list of all tables leaves out while one is altered. */
import { createConnection, type Connection } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { matchingTables } from '../../capture/mysql/catalog.ts';
import { connectSource, type SqlClient } from '../../capture/mysql/connection.ts';
import { readExecuted } from '../../capture/mysql/executed.ts';
import { LiveCatalog } from '../../capture/mysql/live-catalog.ts';
import { NO_COLUMN_RULES } from '../../core/column-rules.ts';
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
  let catalog: LiveCatalog;
  /** Which list leaves the table out. */
  let hidden: 'TABLES' | 'COLUMNS' | undefined;

  beforeAll(async () => {
    server = await startMysql({ flavour });
    const url = await server.createDatabase('live');
    sql = await createConnection({ uri: url });
    await sql.query('CREATE TABLE kept (id int PRIMARY KEY)');
    await sql.query('CREATE TABLE altered (id int PRIMARY KEY, v int)');
    const settings = parseConfig(
      JSON.stringify({
        version: 1,
        nats: { servers: ['nats://127.0.0.1:1'] },
        sources: { live: { kind: flavour, url, tables: ['live.*'] } },
      }),
      {},
    ).sources['live'] as MysqlSourceConfig;
    client = await connectSource(settings);
    catalog = new LiveCatalog({
      client: leavingOut(client),
      flavour,
      patterns: settings.tables,
      rules: NO_COLUMN_RULES,
      tables: await matchingTables(client, flavour, settings.tables),
      executed: await readExecuted(client, flavour),
      log: createLogger('silent'),
      hold: () => undefined,
      onNewTable: async () => undefined,
      onRowsMoved: async () => undefined,
      onChanged: async () => undefined,
    });
  }, TIMEOUT_MS);
  afterAll(async () => {
    client?.end();
    sql?.destroy();
    await server?.dispose();
  }, TIMEOUT_MS);

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
    const rest = { truncates: undefined, movesRows: false, inGroup: false };
    catalog.onStatement({ schema: 'live', sql: statement, verb: statement.split(' ')[0]!, ...rest }, LATER[flavour]);
    return await toldAgain();
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

  it('says that a table is gone when it is, also with its place taken by a view', async () => {
    await sql.query('DROP TABLE altered');
    expect(await told('DROP TABLE altered')).toEqual(['altered gone dropped']);
    await sql.query('DROP TABLE kept');
    await sql.query('CREATE VIEW kept AS SELECT 1 AS id');
    expect(await told('DROP TABLE kept')).toEqual(['kept gone dropped']);
    expect(await toldAgain()).toEqual([]);
  });
});
