/** A snapshot of a real server, of which the test decides what becomes of chunks: it stands where the log is followed. */
import type pg from 'pg';
import { readTables } from '../../capture/postgres/read-tables.ts';
import type { CapturedTable } from '../../capture/postgres/catalog.ts';
import { connectSource } from '../../capture/postgres/connection.ts';
import type { Mark } from '../../capture/postgres/log-marks.ts';
import { publishTable } from '../../capture/postgres/published-table.ts';
import { SnapshotReader } from '../../capture/postgres/snapshot.ts';
import type { ProgressStore, SnapshotProgress, TableProgress } from '../../capture/snapshot-request.ts';
import { StreamLead } from '../../capture/stream-lead.ts';
import { ColumnRules } from '../../core/column-rules.ts';
import { createLogger } from '../../core/logger.ts';
import { configFor } from './postgres-source.ts';
import { waitFor } from './wait.ts';

const PREFIX = 'by-hand';
/** Not connected to. */
const NATS_URL = 'nats://127.0.0.1:4222';
const HEADER_BYTES = 1 + 1 + 8;

type High = Extract<Mark, { k: 'high' }>;

interface HandChunk {
  readonly id: string;
  readonly end: string | undefined;
  readonly more: boolean;
  /** One for each row; empty where the table has no key. */
  readonly keys: readonly string[];
  readonly bytes: number;
}

export class SnapshotByHand {
  readonly progress: SnapshotProgress;
  readonly ended: Promise<void>;
  cancelled = false;
  readonly #client: pg.Client;
  readonly #reader: SnapshotReader;
  readonly #marks: Mark[] = [];
  readonly #taken = new Set<Mark>();
  readonly #aside = new Set<TableProgress>();

  /** Reads `tables` of a database over as many connections, in chunks of no more than so many rows. */
  static async start(
    url: string,
    tables: TableProgress[],
    { readers = 2, chunkRows = 1000 }: { readers?: number; chunkRows?: number } = {},
  ): Promise<SnapshotByHand> {
    const client = await connectSource(configFor('by_hand', url, NATS_URL).settings, 'test');
    await client.query('create publication by_hand');
    // A temporary one of its own, which goes with the connection.
    await client.query(`select pg_create_logical_replication_slot(current_database(), 'pgoutput', true)`);
    return new SnapshotByHand(client, url, tables, readers, chunkRows);
  }

  private constructor(client: pg.Client, url: string, tables: TableProgress[], readers: number, chunkRows: number) {
    const { settings } = configFor('by_hand', url, NATS_URL);
    const rules = ColumnRules.compile(settings.columns);
    this.#client = client;
    this.progress = { v: 1, id: 'hand', tables };
    const catalog = readTables(client, () => true);
    let known: readonly CapturedTable[] = [];
    this.#reader = new SnapshotReader({
      connect: () => connectSource(settings, 'by hand'),
      mostConnections: readers,
      progress: { write: () => Promise.resolve() } as unknown as ProgressStore,
      markPrefix: PREFIX,
      maxChunkRows: chunkRows,
      maxRowsPerSecond: undefined,
      log: createLogger('silent'),
      lead: new StreamLead(0),
      signal: new AbortController().signal,
      rules,
      tableByName: (schema, name) => {
        const table = known.find((each) => each.schema.schema === schema && each.schema.name === name);
        return table === undefined ? undefined : publishTable(table, rules);
      },
      isToCome: () => Promise.resolve(false),
      trackTransactions: () => {},
      forgetTransactions: () => {},
      storedBehind: () => Promise.resolve(),
      stored: () => Promise.resolve(),
      task: {
        progress: this.progress,
        cancelled: () => this.cancelled,
        isDue: (table) => table.state !== 'done' && !this.#aside.has(table),
        setAside: (table) => void this.#aside.add(table),
      },
    });
    this.ended = catalog.then(({ tables: found }) => {
      known = found;
      return this.#reader.run();
    });
    this.ended.catch(() => {});
  }

  /** The marks in the log so far, in their order. */
  async marks(): Promise<readonly Mark[]> {
    const { rows } = await this.#client.query<{ data: Buffer }>(
      `select data from pg_logical_slot_get_binary_changes(current_database(), null, null, 'proto_version', '1',
         'publication_names', 'by_hand', 'messages', 'true') where get_byte(data, 0) = ascii('M')`,
    );
    for (const { data } of rows) {
      const prefixEnd = data.indexOf(0, HEADER_BYTES);
      if (data.toString('utf8', HEADER_BYTES, prefixEnd) === PREFIX)
        this.#marks.push(JSON.parse(data.toString('utf8', prefixEnd + 1 + 4)) as Mark);
    }
    return this.#marks;
  }

  /** Waits for the next high watermark of a chunk or of a piece of one, and takes what was read as the log would. */
  async nextChunk(): Promise<HandChunk> {
    return await waitFor('the high watermark of a chunk', async () => {
      const high = (await this.marks()).find(
        (mark): mark is High => mark.k === 'high' && !this.#taken.has(mark) && this.#reader.reads(mark.chunk),
      );
      if (high === undefined) return undefined;
      this.#taken.add(high);
      const rows = this.#reader.takeChunk(high.chunk)?.rows;
      const keys = Array.from({ length: rows?.length ?? 0 }, (_, row) => rows!.key(row).join());
      return { id: high.chunk, end: high.end, more: high.more === true, keys, bytes: rows?.bytes ?? 0 };
    });
  }

  /** Says what became of a chunk: that it is kept, or has to be read again. */
  decide(id: string, fate: 'kept' | 'again'): void {
    this.#reader.chunkDone(id, fate === 'kept' ? { kept: 1, commitLsn: 1n } : undefined);
  }

  /** Takes a table out of the progress, as somebody does who has it read anew; resolves when a reader has seen it. */
  async supersede(table: TableProgress): Promise<void> {
    const others = this.progress.tables.filter((each) => each !== table);
    await new Promise<void>((resolve) => {
      const includes = (each: TableProgress): boolean => {
        if (each === table) resolve();
        return others.indexOf(each) >= 0;
      };
      this.progress.tables = Object.assign(others, { includes });
    });
  }

  async connections(): Promise<number> {
    const { rows } = await this.#client.query<{ n: number }>(
      `select count(*)::int as n from pg_stat_activity where application_name like '%by hand%' and datname = current_database()`,
    );
    return rows[0]!.n;
  }

  async close(): Promise<void> {
    await this.#client.end();
  }
}
