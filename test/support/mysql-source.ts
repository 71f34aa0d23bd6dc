/** A MySQL or MariaDB source under test: its capture, its stream, and both compared. */
import { createConnection, type Connection } from 'mysql2/promise';
import { expect } from 'vitest';
import { runMysqlCapture } from '../../capture/mysql/capture.ts';
import { readTable } from '../../capture/mysql/catalog.ts';
import { connectSource, type SqlClient } from '../../capture/mysql/connection.ts';
import { contains, readExecuted } from '../../capture/mysql/executed.ts';
import { readTexts } from '../../capture/mysql/chunk-rows.ts';
import { chunkSql } from '../../capture/mysql/chunk-sql.ts';
import { cdcStreamName, readFrames, readTail } from '../../core/cdc-stream.ts';
import { parseConfig, type MysqlSourceConfig, type NatsConfig } from '../../core/config.ts';
import { decodeFrame, type RowChange, type TableSchema, type TransactionEntry, type Value } from '../../core/frame.ts';
import { createLogger } from '../../core/logger.ts';
import { NO_CAPTURE_REPORT } from '../../core/metrics.ts';
import { connectNats, type Nats } from '../../core/nats.ts';
import { asGtidPosition, ORIGIN, type Position } from '../../core/position.ts';
import type { MysqlServer } from '../../sandbox/mysql.ts';
import { queryRow } from '../../sandbox/mysql-client.ts';
import type { NatsServer } from '../../sandbox/nats.ts';
import { waitFor } from './wait.ts';

const DEADLINE_MS = 100_000;

export interface Change {
  readonly table: TableSchema;
  readonly row: RowChange;
  readonly entry: TransactionEntry;
}

/** One source with its capture, in this process. */
export class Source {
  readonly name: string;
  readonly database: string;
  readonly settings: MysqlSourceConfig;
  readonly config: NatsConfig;
  readonly sql: Connection;
  readonly client: SqlClient;
  readonly nats: Nats;
  readonly states: string[] = [];
  #stop = new AbortController();
  #running: Promise<void> | undefined;
  failure: unknown;

  private constructor(
    name: string,
    database: string,
    of: { settings: MysqlSourceConfig; config: NatsConfig; sql: Connection; client: SqlClient; nats: Nats },
  ) {
    this.name = name;
    this.database = database;
    this.settings = of.settings;
    this.config = of.config;
    this.sql = of.sql;
    this.client = of.client;
    this.nats = of.nats;
  }

  static async open(
    name: string,
    server: MysqlServer,
    nats: NatsServer,
    yaml: Record<string, unknown> = {},
  ): Promise<Source> {
    const url = await server.createDatabase(name);
    return await Source.at(name, url, server.flavour, nats, yaml);
  }

  /** A source whose database is there, under any name and prefix. */
  static async at(
    name: string,
    url: string,
    flavour: 'mysql' | 'mariadb',
    nats: NatsServer,
    yaml: Record<string, unknown> = {},
  ): Promise<Source> {
    const parsed = parseConfig(
      JSON.stringify({
        version: 1,
        nats: { servers: [nats.url], prefix: `t_${name}`, stream: { max_bytes: '512MB' } },
        sources: { [name]: { kind: flavour, url, tables: [`${name}.*`], heartbeat: '1s', ...yaml } },
      }),
      {},
    );
    const settings = parsed.sources[name] as MysqlSourceConfig;
    const sql = await createConnection({ uri: url, multipleStatements: true, timezone: 'Z' });
    return new Source(name, name, {
      settings,
      config: parsed.nats,
      sql,
      client: await connectSource(settings),
      nats: await connectNats(parsed.nats, 'test'),
    });
  }

  get stream(): string {
    return cdcStreamName(this.config.prefix, this.name);
  }

  start(): void {
    this.#stop = new AbortController();
    this.failure = undefined;
    this.#running = runMysqlCapture({
      name: this.name,
      settings: this.settings,
      nats: this.config,
      holder: 'test',
      leaseTtlMs: 10_000,
      log: createLogger('silent'),
      signal: this.#stop.signal,
      report: {
        ...NO_CAPTURE_REPORT,
        state: (state, detail) => void this.states.push(detail === undefined ? state : `${state} ${detail}`),
      },
    }).catch((thrown: unknown) => void (this.failure = thrown));
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    if (this.failure !== undefined) throw this.failure;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    await this.sql.end();
    this.client.end();
    await this.nats.close();
  }

  async run(sql: string): Promise<void> {
    await this.sql.query(sql);
  }

  async wait<T>(what: string, probe: () => Promise<T | undefined | false>): Promise<T> {
    const found = await waitFor(
      what,
      async () => {
        if (this.failure !== undefined) return { value: undefined };
        const value = await probe();
        return value === undefined || value === false ? undefined : { value };
      },
      DEADLINE_MS,
    ).catch((cause: unknown) => {
      throw new Error(`no ${what}; last states ${JSON.stringify(this.states.slice(-4))}`, { cause });
    });
    if (this.failure !== undefined) throw this.failure;
    return found.value as T;
  }

  /** Waits until the stream holds all that the source has executed. */
  async caughtUp(): Promise<void> {
    const executed = await readExecuted(this.client, this.settings.kind);
    await this.wait(`the stream holding ${executed.toString()}`, async () => {
      const position = asGtidPosition((await readTail(this.nats, this.stream)).end);
      return position !== undefined && position.open === undefined && contains(position.gtids, executed);
    });
  }

  async loaded(tables: number): Promise<void> {
    const from = { seq: 0, end: ORIGIN };
    let read = 0;
    await this.wait(`${tables} tables read`, async () => {
      const ends = (await this.changes(from)).filter(({ row }) => row[0] === 's' && (row[2] as string[])[1] === 'end');
      read += ends.length;
      return read >= tables;
    });
  }

  /** The changes behind a place, which is moved to where they end. */
  async changes(from: { seq: number; end: Position } = { seq: 0, end: ORIGIN }): Promise<Change[]> {
    const { state } = await this.nats.manager.streams.info(this.stream).catch(() => ({ state: { last_seq: 0 } }));
    const found: Change[] = [];
    if (state.last_seq <= from.seq) return found;
    const stop = new AbortController();
    for await (const frame of readFrames(this.nats, this.stream, {
      startSeq: from.seq + 1,
      position: from.end,
      signal: stop.signal,
    })) {
      const payload = decodeFrame(frame.payload, frame.place);
      let at = 0;
      for (const entry of payload.tx)
        for (let i = 0; i < entry[4]; i++) {
          const row = payload.rows[at++]!;
          found.push({ table: payload.tables[row[1]]!, row, entry });
        }
      [from.seq, from.end] = [frame.seq, frame.end];
      if (frame.seq >= state.last_seq) break;
    }
    stop.abort();
    return found;
  }

  /** What the stream builds of a table: rows by key, each as its texts. */
  async folded(table: string): Promise<Map<string, readonly Value[]>> {
    const rows = new Map<string, readonly Value[]>();
    let seen: Set<string> | undefined;
    for (const { table: schema, row } of await this.changes()) {
      if (schema.name !== table) continue;
      const key = (image: readonly Value[]): string =>
        JSON.stringify(schema.key.map((name) => image[schema.columns.findIndex((column) => column.name === name)]));
      const [op, , after, , before] = row;
      if (op === 't') rows.clear();
      if (op === 's' && after![1] === 'begin') seen = new Set();
      if (op === 's' && after![1] === 'end') {
        for (const known of rows.keys()) if (seen?.has(known) === false) rows.delete(known);
        seen = undefined;
      }
      if (before !== undefined) rows.delete(key(before));
      if (op !== 'i' && op !== 'u' && op !== 'r') continue;
      rows.set(key(after!), after!);
      seen?.add(key(after!));
    }
    return rows;
  }

  /** What the server says of the table, in the same texts. */
  async actual(table: string): Promise<Map<string, readonly Value[]>> {
    const captured = await readTable(this.client, this.settings.kind, this.database, table);
    if (captured === undefined || captured === 'absent') throw new Error(`no table ${table}`);
    const indexes = captured.schema.key.map((name) => captured.schema.columns.findIndex((c) => c.name === name));
    const rows = await readTexts(this.client, captured, chunkSql(captured, null, undefined), 'test');
    return new Map(rows.map((row) => [JSON.stringify(indexes.map((index) => row[index])), row as Value[]]));
  }

  async expectEqual(table: string): Promise<void> {
    await this.caughtUp();
    const [folded, actual] = [await this.folded(table), await this.actual(table)];
    const sorted = (rows: Map<string, readonly Value[]>): unknown => [...rows].sort(([a], [b]) => (a < b ? -1 : 1));
    expect(sorted(folded)).toEqual(sorted(actual));
  }
}

/** Before it stops, MySQL waits eight seconds for those that read its log, also for readers that have left without a word. */
export async function endDumps(server: MysqlServer): Promise<void> {
  const dumps = `select min(id) from information_schema.processlist where command like 'Binlog Dump%'`;
  for (;;) {
    const [id] = await queryRow(server.url, dumps);
    if (id === null || id === undefined) return;
    await queryRow(server.url, `kill ${id}`).catch(() => {});
  }
}
