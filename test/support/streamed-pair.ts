/**
 * One database that is captured twice: with transactions received at their commit, and while they are in progress. What
 * both streams hold must be the same, transaction by transaction.
 */
import pg from 'pg';
import type { TransactionEntry } from '../../core/frame.ts';
import type { NatsServer } from '../../sandbox/nats.ts';
import type { PostgresServer } from '../../sandbox/postgres.ts';
import { Source, type Frame, type Place } from './postgres-source.ts';

export interface Transaction {
  readonly xid: number;
  readonly commit: string;
  readonly end: string;
  readonly timeUs: number;
  readonly rows: readonly string[];
}

export class StreamedPair {
  readonly plain: Source;
  readonly streamed: Source;

  private constructor(plain: Source, streamed: Source) {
    this.plain = plain;
    this.streamed = streamed;
  }

  /** Small work memory has the server send transactions of more than 64 KB while they are in progress. */
  static async open(
    server: PostgresServer,
    nats: NatsServer,
    name: string,
    settings: Record<string, unknown> = {},
  ): Promise<StreamedPair> {
    const url = await server.createDatabase(name);
    const plain = await Source.open(`${name}_plain`, url, nats, { frame_bytes: '16KB' });
    await plain.query(`alter database ${name} set logical_decoding_work_mem = '64kB'`);
    const yaml = { frame_bytes: '16KB', streaming: 'on', ...settings };
    return new StreamedPair(plain, await Source.open(`${name}_streamed`, url, nats, yaml));
  }

  get both(): readonly [Source, Source] {
    return [this.plain, this.streamed];
  }

  /** Starts both and waits until they have read their tables; gives where their streams end. */
  async start(tables: number): Promise<readonly [Place, Place]> {
    for (const source of this.both) source.start();
    for (const source of this.both) await source.loaded(tables);
    return [await this.plain.caughtUp(), await this.streamed.caughtUp()];
  }

  async caughtUp(): Promise<void> {
    await Promise.all(this.both.map(async (source) => source.caughtUp()));
  }

  /** The transactions with changes of rows behind a place in each of the streams. */
  async transactions([plain, streamed]: readonly [Place, Place]): Promise<[Transaction[], Transaction[]]> {
    return [transactionsOf(await this.plain.frames(plain)), transactionsOf(await this.streamed.frames(streamed))];
  }

  /** Waits until the server has decoded all that is written now, and so sent what it sends of transactions in progress. */
  async decoded(): Promise<void> {
    // A commit has the log flushed up to here.
    const [[lsn]] = (await this.streamed.query("select pg_logical_emit_message(true, 'test', 'here')::text")) as [
      [string],
    ];
    await this.streamed.wait('the log to be decoded', async () => {
      const sent = await this.streamed.query(
        `select 1 from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid
          where slot_name = $1 and sent_lsn >= $2`,
        [this.streamed.slot, lsn],
      );
      return sent.length > 0;
    });
  }

  /** How many transactions the server has sent in blocks, by its own count. */
  async blocks(): Promise<number> {
    const [[count]] = (await this.streamed.query(
      'select stream_txns from pg_stat_replication_slots where slot_name = $1',
      [this.streamed.slot],
    )) as [[string]];
    return Number(count);
  }

  /** Waits until the server has sent this many transactions in blocks. */
  async sentInBlocks(transactions: number): Promise<void> {
    await this.streamed.wait(
      `${transactions} transactions sent in blocks`,
      async () => (await this.blocks()) >= transactions,
    );
  }

  async close(): Promise<void> {
    for (const source of this.both) await source.close();
    // Servers have room for a few slots only.
    const last = new pg.Client(this.plain.url);
    await last.connect();
    await last.query(
      'select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database() and not active',
    );
    await last.end();
  }
}

/** Marks and messages are not the same: each capture writes its own, and sees those of the other as of a stranger. */
export function transactionsOf(frames: readonly Frame[]): Transaction[] {
  const found = new Map<string, Omit<Transaction, 'rows'> & { rows: string[] }>();
  for (const { payload } of frames) {
    let at = 0;
    for (const entry of payload.tx) {
      const [xid, commit, end, timeUs, count]: TransactionEntry = entry;
      const rows = payload.rows.slice(at, (at += count)).filter(([op]) => !'msr'.includes(op));
      if (rows.length === 0) continue;
      const one = found.get(commit) ?? { xid, commit, end, timeUs, rows: [] };
      // Of a part that is not the last one the end is not known yet.
      found.set(commit, { ...one, end, timeUs });
      for (const [op, table, ...images] of rows) {
        const { schema, name, columns } = payload.tables[table]!;
        const shape = columns.map((column) => `${column.name} ${column.type}`).join();
        one.rows.push(JSON.stringify([op, `${schema}.${name}`, shape, ...images]));
      }
    }
  }
  return [...found.values()];
}
