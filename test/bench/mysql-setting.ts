/** The setting of the benchmarks on MySQL and MariaDB: servers with equal settings, the workload, streams. */
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createConnection, type Connection, type RowDataPacket } from 'mysql2/promise';
import { cdcStreamName, readFrames, readTail } from '../../core/cdc-stream.ts';
import { parseConfig } from '../../core/config.ts';
import { parseGtidSet } from '../../core/gtid-position.ts';
import { compareGtidSets, type GtidSet } from '../../core/gtid-set.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { asGtidPosition, ORIGIN } from '../../core/position.ts';
import { startMysql, type MysqlServer } from '../../sandbox/mysql.ts';
import { Program, until } from './contenders.ts';
import { KEYS, nats } from './setting.ts';

export type Flavour = MysqlServer['flavour'];
export type Kind = 'small' | 'insert' | 'update';

const BUFFERS = { innodb_buffer_pool_size: '256M', max_binlog_cache_size: '4G' };
/** The content of the table, for a comparison of servers. */
export const DIGEST = `select concat(count(*), ' ', coalesce(sum(crc32(concat_ws('|', id, sku, qty, note, updated_at))), 0)) as v`;
let serial = 0;

/** A server with the table of the workload in database `bench`. */
export class Store {
  readonly server: MysqlServer;
  readonly sql: Connection;

  private constructor(server: MysqlServer, sql: Connection) {
    this.server = server;
    this.sql = sql;
  }

  static async start(flavour: Flavour): Promise<Store> {
    const server = await startMysql({ flavour, settings: BUFFERS });
    const sql = await createConnection({ uri: server.url, multipleStatements: true });
    sql.on('error', () => undefined);
    return new Store(server, sql);
  }

  async run(...statements: string[]): Promise<void> {
    for (const statement of statements) await this.sql.query(statement);
  }

  async value(statement: string): Promise<string> {
    const [[row]] = await this.sql.query<RowDataPacket[]>(statement);
    return String(Object.values(row ?? {})[0]);
  }

  /** Makes the table, and `rows` of it. */
  async fill(rows: number): Promise<void> {
    await this.run(
      'create database if not exists bench',
      'use bench',
      'drop table if exists items',
      'create table items (id int primary key, sku varchar(40) not null, qty int, note varchar(200), updated_at datetime(6))',
      'drop procedure if exists small',
      `create procedure small(n int) begin declare i int default 1; while i <= n do
         update items set qty = i, updated_at = now(6) where id = 1 + (i * 7919) mod ${KEYS}; set i = i + 1; end while; end`,
      // No temporary table: of what reads from one MariaDB does not log that it can be undone, which is not the usual case.
      'create table if not exists digits (n int primary key)',
      `replace into digits values ${Array.from({ length: 100 }, (_, n) => `(${n})`).join(',')}`,
    );
    await this.insert(rows);
  }

  /** One transaction that inserts rows. */
  async insert(rows: number): Promise<void> {
    if (rows === 0) return;
    await this.run(
      `insert into items select id, concat('SKU-', id), id mod 100, repeat('n', 60), '2026-03-01 08:15:02.123456'
         from (select 1 + a.n + 100 * b.n + 10000 * c.n as id from digits a, digits b, digits c) ids
        where id <= ${rows}`,
    );
  }

  /** Writes the backlog. */
  async backlog(kind: Kind, rows: number): Promise<void> {
    if (kind === 'small') await this.run(`call small(${rows})`);
    else if (kind === 'insert') await this.insert(rows);
    else await this.run('update items set qty = qty + 1, updated_at = now(6)');
  }

  async executed(): Promise<GtidSet> {
    const { flavour } = this.server;
    return parseGtidSet(
      await this.value(`select @@global.${flavour === 'mysql' ? 'gtid_executed' : 'gtid_binlog_pos'}`),
      flavour,
    )!;
  }

  /** Sessions that read the log, or did: the server notices only as it writes to one that its reader is gone. */
  async readers(): Promise<Set<number>> {
    const [sessions] = await this.sql.query<RowDataPacket[]>('show processlist');
    const reading = sessions.filter((session) => String(session['Command']).startsWith('Binlog Dump'));
    return new Set(reading.map((session) => Number(session['Id'])));
  }

  /** Waits until somebody new reads the log, besides those there were; gives the moment from which that is timed. */
  async beingRead(before: ReadonlySet<number>): Promise<number> {
    await until('the log to be read', performance.now(), async () =>
      [...(await this.readers())].some((reader) => !before.has(reader)),
    );
    return performance.now();
  }

  async newFile(): Promise<string> {
    await this.run('flush binary logs');
    const [logs] = await this.sql.query<RowDataPacket[]>('show binary logs');
    return String(logs.at(-1)!['Log_name']);
  }

  async dispose(): Promise<void> {
    this.sql.destroy();
    await this.server.dispose();
  }
}

export interface Setup {
  readonly prefix: string;
  readonly config: string;
}

/** A configuration of its own for one measurement, whose stream begins at what the source has now. */
export async function prime(source: Store, target: Store): Promise<Setup> {
  serial += 1;
  const prefix = `my${serial}`;
  const { flavour } = source.server;
  const config = join(await mkdtemp(join(tmpdir(), 'waybill-bench-')), 'waybill.yaml');
  await writeFile(
    config,
    JSON.stringify({
      version: 1,
      nats: { servers: [nats.url], prefix, stream: { sync_interval: '0s', max_bytes: '2GB' } },
      sources: {
        bench: { kind: flavour, url: source.server.urlFor('bench'), tables: ['bench.items'], snapshot: 'never' },
      },
      targets: { store: { kind: flavour, url: target.server.urlFor('bench') } },
      flows: { replica: { mirror: 'bench', to: 'store', schema: 'bench' } },
    }),
  );
  const executed = await source.executed();
  const capture = Program.start(config, 'capture:bench');
  await withBroker(async (broker) => {
    await until('the stream', performance.now(), async () => await holds(broker, prefix, executed));
  });
  await capture.stop();
  return { prefix, config };
}

export async function withBroker<T>(work: (broker: Nats) => Promise<T>): Promise<T> {
  const broker = await connectNats(parseConfig(`version: 1\nnats: { servers: ["${nats.url}"] }`, {}).nats, 'bench');
  try {
    return await work(broker);
  } finally {
    await broker.close();
  }
}

export async function holds(broker: Nats, prefix: string, wanted: GtidSet): Promise<boolean> {
  const tail = await readTail(broker, cdcStreamName(prefix, 'bench')).catch(() => undefined);
  const position = tail === undefined ? undefined : asGtidPosition(tail.end);
  return position !== undefined && position.open === undefined && covers(position.gtids, wanted);
}

export function covers(set: GtidSet, part: GtidSet): boolean {
  return ['equal', 'superset'].includes(compareGtidSets(set, part));
}

/** Rows in a stream. */
export async function rowsIn(broker: Nats, prefix: string): Promise<number> {
  const stream = cdcStreamName(prefix, 'bench');
  const { state } = await broker.manager.streams.info(stream);
  let rows = 0;
  const signal = AbortSignal.timeout(60_000);
  for await (const frame of readFrames(broker, stream, { startSeq: 1, position: ORIGIN, signal })) {
    rows += frame.rows;
    if (frame.seq >= state.last_seq) break;
  }
  return rows;
}
