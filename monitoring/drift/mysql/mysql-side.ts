/** A MySQL or MariaDB server as one side of a comparison. */
import { ReplicationError } from '../../../core/errors.ts';
import { gtidPosition, parseGtidSet } from '../../../core/gtid-position.ts';
import { parsePosition, type Position } from '../../../core/position.ts';
import { Buckets, bucketOf, formatDigest } from '../digest.ts';
import type { Pace } from '../pace.ts';
import { digestRow, isDigestedHere, rowValues } from '../row-digest.ts';
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
import { keyColumns, keysSql, orderSql, qualified, rangeSql, sumsSql, textSql, textsSql } from './row-sql.ts';
import { CompareSession, quoteText, type MysqlEndpoint, type TextRow } from './session.ts';

export interface MysqlSideOptions extends MysqlEndpoint {
  readonly applicationName: string;
  readonly include: (schema: string, name: string) => boolean;
  /** `here`: the server never works digests out, only texts. */
  readonly digests?: 'server' | 'here';
}

/** Rows between two rests while a whole table is read. */
const PIECE_ROWS = 20_000;

class MysqlSide {
  protected readonly session: CompareSession;
  readonly #options: MysqlSideOptions;

  protected constructor(session: CompareSession, options: MysqlSideOptions) {
    this.session = session;
    this.#options = options;
  }

  async tables(): Promise<SideTable[]> {
    return await readTables(this.session, this.#options.include);
  }

  async scan(table: ComparedTable, scope: Scope, mask: number, pace: Pace): Promise<Buckets> {
    if (scope.kind === 'range' && this.#digestsOnServer(table)) {
      const sums = await pace.work(() => this.#sums(table, rangeSql(table, scope.after, scope.upTo), mask));
      if (sums.result !== undefined) return sums.result;
    }
    const buckets = new Buckets(mask);
    await this.#read(table, scope, pace, (row) => buckets.addRow(row.digest));
    return buckets;
  }

  #digestsOnServer(table: ComparedTable): boolean {
    return this.#options.digests !== 'here' && !isDigestedHere(table);
  }

  /** undefined when a row is too large for the server to take its digest. */
  async #sums(table: ComparedTable, where: string, mask: number): Promise<Buckets | undefined> {
    const buckets = new Buckets(mask);
    const sql = sumsSql(table, where, mask, this.session.flavour);
    for (const [bucket, rows, digested, high, low] of await this.session.query(sql, `reading ${qualified(table)}`)) {
      if (rows !== digested) return undefined;
      buckets.add(Number(bucket), Number(rows), BigInt(high!), BigInt(low!));
    }
    return buckets;
  }

  async rows(
    table: ComparedTable,
    scope: Scope,
    mask: number,
    buckets: readonly number[],
    pace: Pace,
  ): Promise<Reading> {
    const wanted = new Set(buckets);
    const found: DigestedRow[] = [];
    const facts = await this.#read(table, scope, pace, (row) => {
      if (wanted.has(bucketOf(row.digest, mask))) found.push(row);
    });
    return { rows: found, ...facts };
  }

  async lookUp(table: ComparedTable, keys: readonly KeyTexts[]): Promise<Reading> {
    const rows: DigestedRow[] = [];
    const facts = await this.#inSnapshot(async () => {
      const sql = textsSql(table, keysSql(table, keys), this.session.flavour);
      for (const texts of await this.session.query(sql, `looking rows of ${qualified(table)} up`))
        rows.push(digestRow(table, texts));
    });
    return { rows, ...facts };
  }

  async read(table: ComparedTable, keys: readonly KeyTexts[]): Promise<readonly (string | null)[][]> {
    const sql = textsSql(table, keysSql(table, keys), this.session.flavour);
    const rows = await this.session.query(sql, `reading rows of ${qualified(table)}`);
    return rows.map((texts) => rowValues(table, texts));
  }

  async find(
    table: ComparedTable,
    digests: ReadonlySet<string>,
    pace: Pace,
    take: (values: (string | null)[]) => void,
  ): Promise<void> {
    await this.#read(table, { kind: 'all' }, pace, ({ digest }, texts) => {
      if (digests.has(formatDigest(digest))) take(rowValues(table, texts));
    });
  }

  /** Rows of a scope one by one, in one snapshot; rests after each piece while the server waits. */
  async #read(
    table: ComparedTable,
    scope: Scope,
    pace: Pace,
    take: (row: DigestedRow, texts: TextRow) => void,
  ): Promise<Pick<Reading, 'position'>> {
    const where = scope.kind === 'all' ? 'TRUE' : rangeSql(table, scope.after, scope.upTo);
    return await this.#inSnapshot(async () => {
      const sql = textsSql(table, where, this.session.flavour);
      const rows = this.session.stream(sql, `reading ${qualified(table)}`);
      for (let done = false; !done;)
        await pace.work(async () => {
          for (let i = 0; i < PIECE_ROWS; i++) {
            const next = await rows.next();
            if (next.done === true) {
              done = true;
              return;
            }
            take(digestRow(table, next.value), next.value);
          }
        });
    });
  }

  /** Facts that belong to the snapshot just taken. */
  protected async snapshotFacts(): Promise<Pick<Reading, 'position'>> {
    return {};
  }

  async #inSnapshot(work: () => Promise<void>): Promise<Pick<Reading, 'position'>> {
    await this.session.query('START TRANSACTION WITH CONSISTENT SNAPSHOT', 'taking a snapshot');
    let broken = true;
    try {
      const facts = await this.snapshotFacts();
      await work();
      broken = false;
      return facts;
    } finally {
      // A result that was left in the middle would come before the answer to anything else.
      if (broken) this.session.close();
      else await this.session.query('ROLLBACK', 'ending a snapshot');
    }
  }

  async close(): Promise<void> {
    this.session.close();
  }
}

export class MysqlDriftSource extends MysqlSide implements DriftSource {
  static async open(options: MysqlSideOptions): Promise<MysqlDriftSource> {
    return new MysqlDriftSource(await CompareSession.open('source', options, options.applicationName), options);
  }

  async watermark(): Promise<Position> {
    const variable = this.session.flavour === 'mysql' ? '@@global.gtid_executed' : '@@global.gtid_binlog_pos';
    return await this.#position(`SELECT ${variable}`);
  }

  /**
   * `gtid_executed` of MySQL follows what snapshots see. `gtid_binlog_pos` of MariaDB runs ahead of it, so there it is
   * the place that belongs to a snapshot.
   */
  async horizon(): Promise<Position> {
    const { flavour } = this.session;
    if (flavour === 'mysql') return await this.watermark();
    const doing = 'reading the place of a snapshot in the log';
    await this.session.query('START TRANSACTION WITH CONSISTENT SNAPSHOT', doing);
    const status = new Map(
      (await this.session.query("SHOW STATUS LIKE 'binlog_snapshot_%'", doing)).map(([name, value]) => [
        name!.toLowerCase(),
        value ?? '',
      ]),
    );
    await this.session.query('ROLLBACK', doing);
    const file = status.get('binlog_snapshot_file') ?? '';
    const offset = Number(status.get('binlog_snapshot_position') ?? 0);
    return await this.#position(`SELECT BINLOG_GTID_POS(${quoteText(file)}, ${offset})`);
  }

  async visible(): Promise<Visible> {
    return { horizon: await this.horizon(), inProgress: new Set() };
  }

  async #position(sql: string): Promise<Position> {
    const [[text] = []] = await this.session.query(sql, 'reading the end of the log');
    const set = parseGtidSet(text ?? '', this.session.flavour);
    if (set === undefined) throw new ReplicationError('source_protocol', `the source gave the GTID set "${text}"`);
    return gtidPosition(set);
  }

  /** Nothing is written into a source of this kind: capture itself reports the end of an idle log. */
  async nudge(): Promise<void> {}

  async mark(): Promise<undefined> {
    return undefined;
  }

  async boundary(table: ComparedTable, after: KeyTexts | null, rows: number): Promise<KeyTexts | undefined> {
    const texts = keyColumns(table).map((column) => textSql(column, this.session.flavour));
    const [found] = await this.session.query(
      `SELECT ${texts.join(', ')} FROM ${qualified(table)} WHERE ${rangeSql(table, after, null)}` +
        ` ORDER BY ${orderSql(table)} LIMIT 1 OFFSET ${Math.max(0, rows - 1)}`,
      `finding a range of ${qualified(table)}`,
    );
    return found as KeyTexts | undefined;
  }
}

export class MysqlDriftTarget extends MysqlSide implements DriftTarget {
  readonly #flow: string;

  private constructor(flow: string, session: CompareSession, options: MysqlSideOptions) {
    super(session, options);
    this.#flow = flow;
  }

  static async open(flow: string, options: MysqlSideOptions): Promise<MysqlDriftTarget> {
    return new MysqlDriftTarget(flow, await CompareSession.open('target', options, options.applicationName), options);
  }

  async position(): Promise<Position | undefined> {
    const doing = 'reading the position of the flow';
    const known = await this.session.query(
      "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'waybill' AND TABLE_NAME = 'position'",
      doing,
    );
    if (known.length === 0) return undefined;
    const [row] = await this.session.query(
      `SELECT position FROM waybill.position WHERE flow = ${quoteText(this.#flow)}`,
      doing,
    );
    return row?.[0] == null ? undefined : parsePosition(row[0]);
  }

  protected override async snapshotFacts(): Promise<Pick<Reading, 'position'>> {
    const position = await this.position();
    return position === undefined ? {} : { position };
  }
}
