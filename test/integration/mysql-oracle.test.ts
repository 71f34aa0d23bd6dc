/**
 * The database as oracle: random rows of every column type, inserted, updated and deleted, decoded from the real binary
 * log, and compared with what the server itself prints for the row by `columnTextSql`. WAYBILL_TEST_SEED repeats a run.
 */
import { randomInt, randomUUID } from 'node:crypto';
import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise';
import { describe, expect, it } from 'vitest';
import type { BinlogHandler, Flavour } from '../../capture/mysql/binlog-handler.ts';
import { BinlogStream } from '../../capture/mysql/binlog-stream.ts';
import { columnTextSql, type CatalogColumn } from '../../core/mysql-column-text.ts';
import type { Image, RowReader } from '../../capture/mysql/row-reader.ts';
import type { ColumnHint, TableMap } from '../../capture/mysql/table-map.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import { MariadbGtidSet } from '../../core/mariadb-gtid-set.ts';
import { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';
import { createRandom, type Random } from '../../sandbox/demo/random.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { tableCases, type TableCase } from '../support/mysql-columns.ts';

const TIMEOUT_MS = 300_000;
const ROWS_A_STATEMENT = 50;
/** Of each flavour one server with thousands of rows, and another that logs the same values in another way. */
const SERVERS = [
  { flavour: 'mysql', version: '9.7', rowsPerTable: 1100, settings: {} },
  { flavour: 'mysql', version: '9.7', rowsPerTable: 300, settings: { binlog_transaction_compression: 'ON' } },
  { flavour: 'mariadb', version: '10.11', rowsPerTable: 300, settings: {} },
  {
    flavour: 'mariadb',
    version: '11.8',
    rowsPerTable: 1100,
    settings: { log_bin_compress: 'ON', log_bin_compress_min_len: '10' },
  },
] as const;

type Row = (string | null | 0)[];
/** Rows by id. */
type Rows = Map<string, Row>;

async function texts(connection: Connection, sql: string): Promise<(string | null)[][]> {
  const [rows] = await connection.query<RowDataPacket[]>({ sql, rowsAsArray: true, typeCast: (f) => f.string() });
  return rows as unknown as (string | null)[][];
}

async function open(server: MysqlServer): Promise<Connection> {
  const connection = await createConnection({ uri: server.urlFor('oracle'), charset: 'utf8mb4_general_ci' });
  await connection.query("SET time_zone = '+00:00', sql_mode = ''");
  return connection;
}

interface OracleColumn extends CatalogColumn {
  readonly omitted: boolean;
}

async function catalog(connection: Connection, table: string, flavour: Flavour): Promise<OracleColumn[]> {
  const rows = await texts(
    connection,
    `SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, EXTRA FROM information_schema.COLUMNS
     WHERE TABLE_SCHEMA = 'oracle' AND TABLE_NAME = '${table}' ORDER BY ORDINAL_POSITION`,
  );
  return rows.map(([name, dataType, columnType, extra]) => ({
    name: name!,
    dataType: dataType!,
    columnType: columnType!,
    // MariaDB does not log them reliably, and neither flavour needs them captured.
    omitted: flavour === 'mariadb' && /GENERATED/.test(extra!),
  }));
}

async function snapshot(
  connection: Connection,
  table: string,
  columns: readonly CatalogColumn[],
  flavour: Flavour,
): Promise<Rows> {
  const list = columns.map((column) => columnTextSql(column, flavour)).join(', ');
  const rows = await texts(connection, `SELECT ${list} FROM ${table} ORDER BY id`);
  return new Map(rows.map((row) => [row[0]!, row]));
}

function valueOf(random: Random, value: (random: Random) => string): string {
  return random.chance(0.08) ? 'NULL' : value(random);
}

async function insertRows(connection: Connection, table: TableCase, count: number, random: Random): Promise<void> {
  const columns = table.columns.filter((column) => column.value !== undefined);
  for (let done = 0; done < count; done += ROWS_A_STATEMENT) {
    const rows = Array.from(
      { length: Math.min(ROWS_A_STATEMENT, count - done) },
      () => `(${columns.map((column) => valueOf(random, column.value!)).join(', ')})`,
    );
    await connection.query(
      `INSERT INTO ${table.name} (${columns.map((c) => c.name).join(', ')}) VALUES ${rows.join(', ')}`,
    );
  }
}

async function updateRows(connection: Connection, table: TableCase, count: number, random: Random): Promise<void> {
  const columns = table.columns.filter((column) => column.value !== undefined);
  await connection.beginTransaction();
  for (let id = 1; id <= count; id += 3) {
    const changed = columns.filter(() => random.chance(0.3));
    const sets = changed.map((column) => `${column.name} = ${valueOf(random, column.value!)}`);
    await connection.query(
      `UPDATE ${table.name} SET ${[...sets, 'touched = touched + 1'].join(', ')} WHERE id = ${id}`,
    );
  }
  await connection.commit();
}

interface LoggedRow {
  readonly op: string;
  readonly before: Row | undefined;
  readonly after: Row | undefined;
}

/** Reads the whole log and keeps the rows of the oracle's tables. */
async function readLog(
  server: MysqlServer,
  hints: ReadonlyMap<string, readonly (ColumnHint | undefined)[]>,
): Promise<Map<string, LoggedRow[]>> {
  const logged = new Map<string, LoggedRow[]>();
  const writer = new FrameWriter(64 * 1024);
  const image = (rows: RowReader, which: Image): Row => {
    writer.reset();
    const from = writer.bytes;
    rows.write(writer, which);
    return JSON.parse(writer.textFrom(from)) as Row;
  };
  let groups = 0;
  let ends = 0;
  const handler: BinlogHandler = {
    gtid: () => (groups += 1),
    tableMap(map: TableMap) {
      for (const [index, hint] of (hints.get(map.name) ?? []).entries()) if (hint !== undefined) map.hint(index, hint);
    },
    rows(rows) {
      if (rows.map.schema !== 'oracle') return;
      const count = rows.count();
      const list = logged.get(rows.map.name) ?? [];
      logged.set(rows.map.name, list);
      expect(rows.complete).toBe(true);
      let seen = 0;
      while (rows.next()) {
        seen += 1;
        // An update's images are written in both orders.
        const after = rows.op === 'd' ? undefined : image(rows, 'after');
        const before = rows.op === 'i' ? undefined : image(rows, 'before');
        list.push({ op: rows.op, before, after });
        if (before !== undefined) expect(rows.values('before', [0])).toEqual([before[0]]);
        if (rows.op === 'u') expect(rows.differs([0])).toBe(false);
      }
      expect(seen).toBe(count);
    },
    statement: () => undefined,
    savepoint: () => undefined,
    rollbackTo: () => undefined,
    end: () => (ends += 1),
    rotate: () => undefined,
    heartbeat: () => undefined,
  };
  const { flavour } = server;
  const start: GtidSet = flavour === 'mysql' ? MysqlGtidSet.EMPTY : MariadbGtidSet.EMPTY;
  const stream = new BinlogStream({
    flavour,
    connection: { host: server.host, port: server.port, user: 'root' },
    serverId: randomInt(2 ** 31, 2 ** 32 - 1),
    replicaUuid: randomUUID(),
    start,
    heartbeatMs: 1000,
    stopAtEnd: true,
    handler,
    onActivity: () => undefined,
  });
  await stream.run();
  expect(ends).toBe(groups);
  return logged;
}

describe.each(SERVERS)('$flavour $version $settings', ({ flavour, version, rowsPerTable, settings }) => {
  it(
    'prints every value of the log as the server prints it',
    async () => {
      const seed = Number(process.env['WAYBILL_TEST_SEED'] ?? randomInt(1, 2 ** 31));
      const random = createRandom(seed);
      const server = await startMysql({ flavour, version, settings });
      try {
        await server.createDatabase('oracle');
        const connection = await open(server);
        const tables = tableCases(flavour, server.version);
        const catalogs = new Map<string, OracleColumn[]>();
        const states = new Map<string, { inserted: Rows; updated: Rows }>();
        for (const table of tables) {
          const definitions = table.columns.map(({ name, definition }) => `${name} ${definition}`);
          await connection.query(
            `CREATE TABLE ${table.name} (id int unsigned PRIMARY KEY AUTO_INCREMENT, touched int NOT NULL DEFAULT 0, ${definitions.join(', ')}) CHARACTER SET utf8mb4`,
          );
          const columns = await catalog(connection, table.name, flavour);
          const kept = columns.filter(({ omitted }) => !omitted);
          catalogs.set(table.name, columns);
          await insertRows(connection, table, rowsPerTable, random);
          const inserted = await snapshot(connection, table.name, kept, flavour);
          await updateRows(connection, table, rowsPerTable, random);
          const updated = await snapshot(connection, table.name, kept, flavour);
          await connection.query(`DELETE FROM ${table.name} WHERE id % 2 = 0`);
          states.set(table.name, { inserted, updated });
        }
        await connection.end();
        const hints = new Map(
          [...catalogs].map(([name, columns]) => [
            name,
            columns.map(({ dataType, omitted }): ColumnHint | undefined =>
              omitted ? 'omit' : /^(uuid|inet4|inet6)$/.test(dataType) ? (dataType as ColumnHint) : undefined,
            ),
          ]),
        );
        const logged = await readLog(server, hints);

        const differences: string[] = [];
        let values = 0;
        const compare = (
          table: string,
          id: string,
          what: string,
          expected: Row | undefined,
          given: Row | undefined,
        ) => {
          const columns = catalogs.get(table)!.filter(({ omitted }) => !omitted);
          for (const [index, column] of columns.entries()) {
            values += 1;
            const [a, b] = [expected?.[index], given?.[index]];
            if (a !== b)
              differences.push(
                `${table}.${column.name} ${column.columnType} #${id} ${what}: server ${show(a)}, log ${show(b)}`,
              );
          }
        };
        for (const table of tables) {
          const { inserted, updated } = states.get(table.name)!;
          const counts = { i: 0, u: 0, d: 0 };
          for (const { op, before, after } of logged.get(table.name)!) {
            counts[op as 'i'] += 1;
            const id = String((after ?? before)![0]);
            if (op === 'i') compare(table.name, id, 'inserted', inserted.get(id), after);
            else if (op === 'u') {
              compare(table.name, id, 'before update', inserted.get(id), before);
              compare(table.name, id, 'after update', updated.get(id), after);
            } else compare(table.name, id, 'deleted', updated.get(id), before);
          }
          expect(counts).toEqual({ i: rowsPerTable, u: Math.ceil(rowsPerTable / 3), d: rowsPerTable / 2 });
        }
        process.stdout.write(
          `${flavour} ${server.version} ${JSON.stringify(settings)}: seed ${seed}, ${values} values of ${tables.length * rowsPerTable} rows compared, ${differences.length} differences\n`,
        );
        expect(differences.slice(0, 40)).toEqual([]);
      } finally {
        await server.dispose();
      }
    },
    TIMEOUT_MS,
  );
});

function show(value: string | null | 0 | undefined): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
