/**
 * Decoding a binary log into frames, against `mysqlbinlog -vv --read-from-remote-server` to /dev/null on the same log,
 * side by side: `node dist/test/bench/mysql-decode.js [mysql] [mariadb] [--scale 0.1]`. No broker is involved.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { randomUUID } from 'node:crypto';
import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise';
import type { BinlogHandler } from '../../capture/mysql/binlog-handler.ts';
import { BinlogStream } from '../../capture/mysql/binlog-stream.ts';
import type { RowReader } from '../../capture/mysql/row-reader.ts';
import { FrameWriter } from '../../core/frame-writer.ts';
import type { TableSchema } from '../../core/frame.ts';
import { GtidCursor, type GtidSet } from '../../core/gtid-set.ts';
import { MariadbGtidSet } from '../../core/mariadb-gtid-set.ts';
import { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';
import { findMysqlTool } from '../../sandbox/mysql-tools.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { median } from './contenders.ts';

const args = process.argv.slice(2);
const scale = Number(args[args.indexOf('--scale') + 1] || 1) || 1;
const chosen = args.filter((arg) => arg === 'mysql' || arg === 'mariadb');
const ROWS = Math.round(300_000 * scale);
const SMALL = Math.round(30_000 * scale);
const REPEATS = 3;
const FRAME_BYTES = 512 * 1024;
const TABLE: TableSchema = {
  schema: 'bench',
  name: 'stock',
  version: '1',
  identity: 'full',
  key: ['id'],
  columns: ['id', 'sku', 'qty', 'price', 'at', 'status', 'note', 'site', 'weight', 'batch', 'expires'].map((name) => ({
    name,
    type: 'text',
    portable: 'text',
    notNull: false,
  })),
};

type Case = 'insert' | 'update' | 'small';
const NAMES: Readonly<Record<Case, string>> = {
  insert: `${ROWS} rows inserted`,
  update: `${ROWS} rows updated in one transaction`,
  small: `${SMALL} one-row update transactions`,
};

async function position(sql: Connection, flavour: MysqlServer['flavour']): Promise<GtidSet> {
  const variable = flavour === 'mysql' ? 'gtid_executed' : 'gtid_binlog_pos';
  const [rows] = await sql.query<RowDataPacket[]>(`SELECT @@global.${variable} AS p`);
  const text = String(rows[0]!['p']);
  return flavour === 'mysql' ? MysqlGtidSet.parse(text)! : MariadbGtidSet.parse(text)!;
}

/** Starts a new file of the log; gives its name. */
async function newFile(sql: Connection): Promise<string> {
  await sql.query('FLUSH BINARY LOGS');
  const [logs] = await sql.query<RowDataPacket[]>('SHOW BINARY LOGS');
  return String(logs.at(-1)!['Log_name']);
}

async function fill(sql: Connection, kind: Case): Promise<void> {
  if (kind === 'insert') {
    for (let id = 1; id <= ROWS; id += 1000) {
      const rows = Array.from(
        { length: Math.min(1000, ROWS - id + 1) },
        (_, n) =>
          `(${id + n}, 'SKU-${(id + n) * 7919}', ${(id + n) % 5000}, ${((id + n) % 99_999) / 100}, '2026-03-01 08:15:02.123456', 'open', 'Received at dock ${(id + n) % 40}, inspected, no damage', 'DE01', ${(id + n) / 8}, NULL, '2026-04-01')`,
      );
      await sql.query(`INSERT INTO stock VALUES ${rows.join(',')}`);
    }
  } else if (kind === 'update') await sql.query('UPDATE stock SET qty = qty + 1, price = price + 0.5');
  else for (let n = 1; n <= SMALL; n++) await sql.query(`UPDATE stock SET qty = qty + 1 WHERE id = ${n}`);
}

/** Seconds in which Waybill turns the log after `start` into frames; `rows` is checked. */
async function waybill(server: MysqlServer, start: GtidSet, rows: number): Promise<number> {
  const writer = new FrameWriter(FRAME_BYTES);
  const cursor = new GtidCursor(start);
  let count = 0;
  const handler: BinlogHandler = {
    gtid: (gtid) => cursor.add(gtid),
    tableMap: () => undefined,
    rows: (reader: RowReader) => {
      const { op } = reader;
      while (reader.next()) {
        count += 1;
        writer.beginRow(op, TABLE);
        reader.write(writer, 'after');
        // As for Postgres: the old row travels only where the key changed.
        if (op === 'u' && reader.differs([0])) {
          writer.before('f');
          reader.write(writer, 'before');
        }
        writer.endRow();
        if (writer.bytes >= FRAME_BYTES) writer.reset();
      }
    },
    statement: () => undefined,
    savepoint: () => undefined,
    rollbackTo: () => undefined,
    end: () => undefined,
    rotate: () => undefined,
    heartbeat: () => undefined,
  };
  const stream = new BinlogStream({
    flavour: server.flavour,
    connection: { host: server.host, port: server.port, user: 'root' },
    serverId: 4_100_000_000,
    replicaUuid: randomUUID(),
    start,
    heartbeatMs: 1000,
    stopAtEnd: true,
    handler,
    onActivity: () => undefined,
  });
  const began = performance.now();
  await stream.run();
  if (count !== rows) throw new Error(`${count} rows were decoded instead of ${rows}`);
  return (performance.now() - began) / 1000;
}

async function mysqlbinlog(server: MysqlServer, file: string): Promise<number> {
  const command = await findMysqlTool('mysqlbinlog', server.flavour);
  const options = [
    '--no-defaults',
    '-vv',
    '--read-from-remote-server',
    `--host=${server.host}`,
    `--port=${server.port}`,
  ];
  const began = performance.now();
  const child = spawn(command.file, [...command.args, ...options, '--user=root', file], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const [code] = (await once(child, 'exit')) as [number];
  if (code !== 0) throw new Error(`mysqlbinlog ended with ${code}`);
  return (performance.now() - began) / 1000;
}

async function measure(flavour: MysqlServer['flavour']): Promise<void> {
  const server = await startMysql({ flavour, log: (line) => console.log(line) });
  try {
    const sql = await createConnection({ uri: await server.createDatabase('bench') });
    await sql.query(`CREATE TABLE stock (id int PRIMARY KEY, sku varchar(40), qty int, price decimal(12,2),
      at timestamp(6) NULL, status enum('open','held','gone'), note varchar(200), site char(4), weight double,
      batch varchar(20), expires date)`);
    for (const kind of ['insert', 'update', 'small'] as const) {
      const file = await newFile(sql);
      const start = await position(sql, flavour);
      await fill(sql, kind);
      await newFile(sql);
      const rows = kind === 'small' ? SMALL : ROWS;
      const theirs: number[] = [];
      const ours: number[] = [];
      for (let n = 0; n < REPEATS; n++) {
        if (n % 2 === 0) theirs.push(await mysqlbinlog(server, file));
        ours.push(await waybill(server, start, rows));
        if (n % 2 === 1) theirs.push(await mysqlbinlog(server, file));
      }
      const micros = (seconds: number): string => `${((seconds * 1e6) / rows).toFixed(2)} us`;
      const ratio = median(theirs.map((seconds, n) => seconds / ours[n]!));
      console.log(
        `${flavour}: ${NAMES[kind]}: mysqlbinlog -vv ${micros(median(theirs))} a row, waybill ${micros(median(ours))}, ratio ${ratio.toFixed(2)}`,
      );
    }
    await sql.end();
  } finally {
    await server.dispose();
  }
}

for (const flavour of ['mysql', 'mariadb'] as const)
  if (chosen.length === 0 || chosen.includes(flavour)) await measure(flavour);
