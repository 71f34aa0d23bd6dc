/** A Postgres database as one side of a comparison. */
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { ReplicationError } from '../../../core/errors.ts';
import { partitionTreeSql } from '../../../core/partition-tree.ts';
import { PgSnapshot, SNAPSHOT_SQL, UNDER_WAY_SQL } from '../../../core/pg-snapshot.ts';
import { parsePosition, pgPosition, type Position } from '../../../core/position.ts';
import { Buckets, bucketOf, formatDigest } from '../digest.ts';
import { digestRow, isDigestedHere, rowValues } from '../row-digest.ts';
import { PieceSize, type Pace } from '../pace.ts';
import type {
  ComparedTable,
  DigestedRow,
  DriftSource,
  DriftTarget,
  KeyTexts,
  Reading,
  Scope,
  SideTable,
  Visible,
} from '../side.ts';
import { readTables } from './catalog.ts';
import { copyRows } from './copy-rows.ts';
import {
  digestIsOneOfSql,
  digestsSql,
  keyColumns,
  keyJoinSql,
  qualified,
  quoteName,
  rangeSql,
  rowsOf,
  sumsSql,
  textSql,
  textsSql,
} from './row-sql.ts';
import { openSession, sideError, type Role } from './session.ts';

/** Whether the server works digests out, or only gives the texts: where its encoding is not UTF-8, or it has no MD5. */
export type DigestPlace = 'server' | 'here';

export interface PostgresSideOptions {
  readonly url: string;
  readonly tls?: Parameters<typeof openSession>[1]['tls'];
  readonly applicationName: string;
  readonly include: (schema: string, name: string) => boolean;
  /** Left out: on the server where that gives the same answer. */
  readonly digests?: DigestPlace;
}

const FIRST_PAGES = 256;
const MAX_PAGES = 65_536;
const PIECE_MS = 250;
/** How often, and how many times, a transaction is looked at to end. */
const END_POLL_MS = 20;
const END_ROUNDS = 50;
/** So long it is waited for commits that wait for a standby. */
const STANDBY_MS = 10_000;
const SNAPSHOT = 'begin isolation level repeatable read read only';

interface Connected {
  readonly client: pg.Client;
  readonly place: DigestPlace;
}

async function connect(role: Role, options: PostgresSideOptions): Promise<Connected> {
  const client = await openSession(role, options, options.applicationName);
  try {
    return { client, place: options.digests ?? (await digestPlace(client)) };
  } catch (thrown) {
    await client.end().catch(() => undefined);
    throw sideError(role, thrown, 'connecting for a comparison');
  }
}

class PostgresSide {
  protected readonly client: pg.Client;
  readonly #role: Role;
  readonly #include: PostgresSideOptions['include'];
  readonly #place: DigestPlace;

  protected constructor(role: Role, connected: Connected, options: PostgresSideOptions) {
    this.#role = role;
    this.client = connected.client;
    this.#place = connected.place;
    this.#include = options.include;
  }

  async tables(): Promise<SideTable[]> {
    return await this.guard('reading the catalog', () => readTables(this.client, this.#role, this.#include));
  }

  async scan(table: ComparedTable, scope: Scope, mask: number, pace: Pace): Promise<Buckets> {
    const buckets = new Buckets(mask);
    await this.#pieces(table, scope, pace, (where) => this.#sum(table, where, buckets));
    return buckets;
  }

  #placeFor(table: ComparedTable): DigestPlace {
    return isDigestedHere(table) ? 'here' : this.#place;
  }

  async #sum(table: ComparedTable, where: string, buckets: Buckets): Promise<void> {
    if (this.#placeFor(table) === 'server') {
      type Sum = { bucket: number; rows: string; high: string; low: string };
      const { rows } = await this.client.query<Sum>(sumsSql(table, where, buckets.mask));
      for (const row of rows) buckets.add(row.bucket, Number(row.rows), BigInt(row.high), BigInt(row.low));
      return;
    }
    for await (const row of this.#digestHere(table, `${rowsOf(table)} t`, where)) buckets.addRow(row.digest);
  }

  async *#digestHere(table: ComparedTable, from: string, where: string): AsyncGenerator<DigestedRow, void, void> {
    for await (const values of copyRows(this.client, textsSql(table, from, where))) yield digestRow(table, values);
  }

  async rows(
    table: ComparedTable,
    scope: Scope,
    mask: number,
    buckets: readonly number[],
    pace: Pace,
  ): Promise<Reading> {
    const found: DigestedRow[] = [];
    const wanted = new Set(buckets);
    const facts = await this.#pieces(table, scope, pace, async (where) => {
      const from = `${rowsOf(table)} t`;
      if (this.#placeFor(table) === 'server')
        found.push(...(await this.#query(table, digestsSql(table, from, where, { mask, list: buckets }))));
      else
        for await (const row of this.#digestHere(table, from, where))
          if (wanted.has(bucketOf(row.digest, mask))) found.push(row);
    });
    return { rows: found, ...facts };
  }

  async #query(table: ComparedTable, sql: string, parameters: unknown[] = []): Promise<DigestedRow[]> {
    const { rows } = await this.client.query({ text: sql, values: parameters, rowMode: 'array' });
    const width = table.key.length;
    return rows.map((row) => ({
      key: row.slice(0, width),
      digest: { high: BigInt(row[width]), low: BigInt(row[width + 1]) },
    }));
  }

  /**
   * Does `piece` for conditions that together make the scope, in one snapshot where there are several of them. A table
   * without usable order is read by ranges of pages, in its physical order.
   */
  async #pieces(
    table: ComparedTable,
    scope: Scope,
    pace: Pace,
    piece: (where: string) => Promise<void>,
  ): Promise<Pick<Reading, 'position' | 'inProgress'>> {
    const doing = `reading ${table.schema}.${table.name}`;
    if (scope.kind === 'range') {
      const where = rangeSql(table, scope.after, scope.upTo);
      return (await pace.work(() => this.inSnapshot(doing, () => piece(where)))).result;
    }
    return await this.inSnapshot(doing, async () => {
      const pages = await this.#pages(table);
      const size = new PieceSize(FIRST_PAGES, MAX_PAGES, PIECE_MS);
      let from = 0;
      while (from + size.size < pages) {
        const to = from + size.size;
        const { ms } = await pace.work(() => piece(`t.ctid >= '(${from},0)' and t.ctid < '(${to},0)'`));
        from = to;
        size.took(ms);
      }
      // The last piece has no end: the table may have grown.
      await pace.work(() => piece(from === 0 ? 'true' : `t.ctid >= '(${from},0)'`));
    });
  }

  /** Pages of the table or of its largest partition; 0 for what has none (views, foreign tables). */
  async #pages(table: ComparedTable): Promise<number> {
    const { rows } = await this.client.query<{ pages: string | null }>(
      `select max(pg_relation_size(relid) / current_setting('block_size')::int)::text as pages
         from ${partitionTreeSql('$1::regclass')} p`,
      [qualified(table)],
    );
    return Number(rows[0]?.pages ?? 0);
  }

  async lookUp(table: ComparedTable, keys: readonly KeyTexts[]): Promise<Reading> {
    const parameters = table.key.map((_, i) => keys.map((key) => key[i]!));
    let rows: DigestedRow[] = [];
    const facts = await this.inSnapshot(`looking rows of ${table.schema}.${table.name} up`, async () => {
      const from = keyJoinSql(table);
      if (this.#placeFor(table) === 'server')
        rows = await this.#query(table, digestsSql(table, from, 'true'), parameters);
      else {
        const texts = await this.client.query({
          text: textsSql(table, from, 'true'),
          values: parameters,
          rowMode: 'array',
        });
        rows = texts.rows.map((values: (string | null)[]) => digestRow(table, values));
      }
    });
    return { rows, ...facts };
  }

  async read(table: ComparedTable, keys: readonly KeyTexts[]): Promise<readonly (string | null)[][]> {
    const { rows } = await this.guard(`reading rows of ${table.schema}.${table.name}`, () =>
      this.client.query({
        text: textsSql(table, keyJoinSql(table), 'true'),
        values: table.key.map((_, i) => keys.map((key) => key[i]!)),
        rowMode: 'array',
      }),
    );
    return rows.map((texts) => rowValues(table, texts));
  }

  async find(
    table: ComparedTable,
    digests: ReadonlySet<string>,
    pace: Pace,
    take: (values: (string | null)[]) => void,
  ): Promise<void> {
    // Where the server works digests out, no other rows leave it.
    const only = this.#placeFor(table) === 'server' ? ` and ${digestIsOneOfSql(table, digests)}` : '';
    await this.#pieces(table, { kind: 'all' }, pace, async (where) => {
      for await (const texts of copyRows(this.client, textsSql(table, `${rowsOf(table)} t`, where + only)))
        if (only !== '' || digests.has(formatDigest(digestRow(table, texts).digest))) take(rowValues(table, texts));
    });
  }

  /** Facts that belong to the snapshot just taken. */
  protected async snapshotFacts(): Promise<Pick<Reading, 'position' | 'inProgress'>> {
    return {};
  }

  protected async inSnapshot(
    doing: string,
    work: () => Promise<void>,
  ): Promise<Pick<Reading, 'position' | 'inProgress'>> {
    return await this.guard(doing, async () => {
      await this.client.query(SNAPSHOT);
      try {
        const facts = await this.snapshotFacts();
        await work();
        return facts;
      } finally {
        await this.client.query('rollback').catch(() => undefined);
      }
    });
  }

  protected async guard<T>(doing: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (thrown) {
      // What a pace throws when it is told to stop is not an error of the database.
      if (thrown instanceof Error && thrown.name === 'AbortError') throw thrown;
      throw sideError(this.#role, thrown, doing);
    }
  }

  async close(): Promise<void> {
    await this.client.end().catch(() => undefined);
  }
}

/** MD5 is of the bytes in the server's encoding, and some builds of OpenSSL forbid it. */
async function digestPlace(client: pg.Client): Promise<DigestPlace> {
  const { rows } = await client.query<{ encoding: string }>(`select current_setting('server_encoding') as encoding`);
  if (rows[0]?.encoding !== 'UTF8') return 'here';
  try {
    await client.query(`select md5('')`);
    return 'server';
  } catch {
    return 'here';
  }
}

export class PostgresDriftSource extends PostgresSide implements DriftSource {
  readonly #markPrefix: string;
  readonly #options: PostgresSideOptions;
  /** Of the server's process. */
  readonly #pid: number;

  private constructor(prefix: string, pid: number, connected: Connected, options: PostgresSideOptions) {
    super('source', connected, options);
    this.#markPrefix = prefix;
    this.#pid = pid;
    this.#options = options;
  }

  /** `prefix`: of the messages of the source's capture (`markPrefix`). */
  static async open(prefix: string, options: PostgresSideOptions): Promise<PostgresDriftSource> {
    const connected = await connect('source', options);
    try {
      const { rows } = await connected.client.query<{ pid: number }>('select pg_backend_pid() as pid');
      return new PostgresDriftSource(prefix, rows[0]!.pid, connected, options);
    } catch (thrown) {
      await connected.client.end().catch(() => undefined);
      throw sideError('source', thrown, 'connecting for a comparison');
    }
  }

  async watermark(): Promise<Position> {
    const { rows } = await this.guard('reading the end of the log', () =>
      this.client.query<{ lsn: string }>(
        `select ((case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end)
                 - '0/0')::text as lsn`,
      ),
    );
    return pgPosition(BigInt(rows[0]!.lsn));
  }

  async horizon(): Promise<Position> {
    const horizon = await this.watermark();
    await this.#commit();
    return horizon;
  }

  /**
   * Commits as others do: behind every commit so far that waits for a synchronous standby. What these did is in the log, and
   * may be in the target for as long as nobody sees it here. Throws `verify_stalled` where no standby answers.
   */
  async #commit(): Promise<void> {
    let stalled: Promise<void> | undefined;
    const timer = setTimeout(() => {
      stalled = this.#endWait();
      stalled.catch(() => {});
    }, STANDBY_MS);
    try {
      await this.#mark(false);
    } finally {
      clearTimeout(timer);
    }
    if (stalled === undefined) return;
    await stalled;
    throw new ReplicationError(
      'verify_stalled',
      `commits at the source have waited for a synchronous standby for ${STANDBY_MS / 1000} s: what differs cannot be told from what is on its way`,
    );
  }

  /** A commit that waits for a standby heeds only who cancels it from another session; it is done all the same. */
  async #endWait(): Promise<void> {
    const client = await openSession('source', this.#options, this.#options.applicationName);
    try {
      await client.query('select pg_cancel_backend($1)', [this.#pid]);
    } catch (thrown) {
      throw sideError('source', thrown, 'ending a wait for a synchronous standby');
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  async visible(): Promise<Visible> {
    const horizon = await this.horizon();
    const read = async (): Promise<ReadonlySet<number>> => {
      const { rows } = await this.guard('reading which transactions are in progress', () =>
        this.client.query<{ xid: string }>(UNDER_WAY_SQL),
      );
      return new Set(rows.map(({ xid }) => Number(xid)));
    };
    let inProgress = await read();
    // Most of them end at once, and then there is nothing to make allowance for.
    for (let round = 0; inProgress.size > 0 && round < END_ROUNDS; round++) {
      await delay(END_POLL_MS);
      const now = await read();
      inProgress = new Set([...inProgress].filter((xid) => now.has(xid)));
    }
    return { horizon, inProgress };
  }

  async nudge(): Promise<void> {
    await this.#mark(true);
  }

  async mark(): Promise<Position | undefined> {
    return await this.#mark(true);
  }

  /** Commits a mark of the capture: `alone`, or no sooner than what was committed before and waits for a standby. */
  async #mark(alone: boolean): Promise<Position | undefined> {
    const level = alone
      ? `'local'`
      : `case current_setting('synchronous_commit') when 'remote_apply' then 'remote_apply' else 'on' end`;
    const { rows } = await this.guard('writing a mark into the log of the source', () =>
      this.client.query<{ lsn: string | null }>(
        `select (case when not pg_is_in_recovery() then pg_logical_emit_message(true, $1, '{"k":"heartbeat"}') end
                 - '0/0')::text as lsn, set_config('synchronous_commit', ${level}, true)`,
        [this.#markPrefix],
      ),
    );
    const { lsn } = rows[0]!;
    return lsn === null ? undefined : pgPosition(BigInt(lsn));
  }

  async boundary(table: ComparedTable, after: KeyTexts | null, rows: number): Promise<KeyTexts | undefined> {
    const key = keyColumns(table);
    const order = key.map((column) => `t.${quoteName(column.name)}`).join(', ');
    const result = await this.guard(`finding a range of ${table.schema}.${table.name}`, () =>
      this.client.query({
        text:
          `select ${key.map(textSql).join(', ')} from ${rowsOf(table)} t where ${rangeSql(table, after, null)}` +
          ` order by ${order} offset ${Math.max(0, rows - 1)} limit 1`,
        rowMode: 'array',
      }),
    );
    return result.rows[0];
  }

  protected override async snapshotFacts(): Promise<{ inProgress: PgSnapshot }> {
    const { rows } = await this.client.query<{ snapshot: string }>(SNAPSHOT_SQL);
    return { inProgress: PgSnapshot.parse(rows[0]!.snapshot) };
  }
}

export class PostgresDriftTarget extends PostgresSide implements DriftTarget {
  readonly #flow: string;

  private constructor(flow: string, connected: Connected, options: PostgresSideOptions) {
    super('target', connected, options);
    this.#flow = flow;
  }

  static async open(flow: string, options: PostgresSideOptions): Promise<PostgresDriftTarget> {
    return new PostgresDriftTarget(flow, await connect('target', options), options);
  }

  async position(): Promise<Position | undefined> {
    return await this.guard('reading the position of the flow', async () => {
      const known = await this.client.query<{ there: boolean }>(
        `select to_regclass('waybill.position') is not null as there`,
      );
      if (known.rows[0]?.there !== true) return undefined;
      const { rows } = await this.client.query<{ position: string }>(
        'select position from waybill.position where flow = $1',
        [this.#flow],
      );
      return rows[0] === undefined ? undefined : parsePosition(rows[0].position);
    });
  }

  protected override async snapshotFacts(): Promise<Pick<Reading, 'position'>> {
    const position = await this.position();
    return position === undefined ? {} : { position };
  }
}
