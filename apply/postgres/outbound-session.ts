/** Writing to the tables of a system in Postgres: only what differs is written, in a transaction that says whose it is. */
import type { ClientBase } from 'pg';
import type { OutboundPlan, OutboundWrite } from '../../core/outbound.ts';
import { formatPosition, type Position } from '../../core/position.ts';
import type { Move } from '../batch-store.ts';
import type {
  Cells,
  Claim,
  Looked,
  OutboundSession,
  WaitingContent,
  WaitingRecord,
} from '../outbound/outbound-session.ts';
import { keyNames } from '../outbound/exact-columns.ts';
import { requireFit } from '../outbound/outbound-fit.ts';
import { tablesOf, type SystemTables } from '../outbound/outbound-shape.ts';
import type { ReasonCount, RowFailure } from '../quarantine-entry.ts';
import type { FlowPosition } from '../target-store.ts';
import { countKeys } from './quarantine.ts';
import { createOutboundStatements, type OutboundStatements } from './outbound-statements.ts';
import { advanceSql } from './position.ts';
import { quoteLiteral, quoteNullable } from './sql.ts';
import { readSystemTables } from './system-table.ts';
import { isRowError, rowFailureReason, sqlStateOf, targetError } from './target-error.ts';
import { TargetTransaction } from './target-transaction.ts';

export interface SessionOptions {
  readonly client: ClientBase;
  readonly flow: string;
  readonly source: string;
  readonly at: FlowPosition;
  /** SQL that marks each transaction; '' where the session has a replication origin. */
  readonly markSql: string;
}

export class PostgresOutboundSession implements OutboundSession {
  readonly #options: SessionOptions;
  readonly #client: ClientBase;
  readonly at: FlowPosition;
  readonly #statements = new Map<OutboundWrite, OutboundStatements>();
  #tables: SystemTables = new Map();
  #plan: OutboundPlan | undefined;
  #transaction: TargetTransaction | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#client = options.client;
    this.at = options.at;
  }

  async prepare(plan: OutboundPlan): Promise<SystemTables> {
    this.#plan = plan;
    this.#tables = await readSystemTables(this.#client, tablesOf(plan));
    requireFit(plan, this.#tables);
    return this.#tables;
  }

  async begin(move: Move): Promise<void> {
    this.#transaction = new TargetTransaction(this.#client);
    this.#transaction.add(advanceSql(move));
    this.#transaction.add(this.#options.markSql);
    await this.#transaction.flush();
  }

  async look(write: OutboundWrite, rows: readonly Cells[]): Promise<Looked> {
    const { rows: found } = await this.#client.query<{ i: number; w: boolean; names: (string | null)[] }>(
      this.#statementsOf(write).look(rows),
    );
    const names: (readonly string[] | undefined)[] = rows.map(() => undefined);
    const asName = keyNames(write, this.#tables.get(write.table)!);
    for (const { i, names: texts } of found) names[i] = asName(texts);
    return { waiting: new Set(found.filter(({ w }) => w).map(({ i }) => i)), names };
  }

  async write(write: OutboundWrite, rows: readonly Cells[]): Promise<ReadonlySet<number>> {
    const { rows: waiting } = await this.#client.query<{ i: number }>(this.#statementsOf(write).write(rows));
    return new Set(waiting.map(({ i }) => i));
  }

  async remove(write: OutboundWrite, rows: readonly Cells[]): Promise<void> {
    await this.#client.query(this.#statementsOf(write).remove(rows));
  }

  #statementsOf(write: OutboundWrite): OutboundStatements {
    let statements = this.#statements.get(write);
    if (statements === undefined) {
      statements = createOutboundStatements(write, this.#tables, this.#plan?.zone);
      this.#statements.set(write, statements);
    }
    return statements;
  }

  async claim(claims: readonly Claim[]): Promise<void> {
    await this.#client.query(
      `INSERT INTO waybill.outbound_rows (flow, row_id, record_id, key)
       SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[])`,
      [
        this.#options.flow,
        claims.map(({ row }) => row),
        claims.map(({ record }) => record),
        claims.map(({ key }) => key),
      ],
    );
  }

  async claimed(claims: readonly string[]): Promise<Map<string, string>> {
    const { rows } = await this.#client.query<{ row_id: string; key: string }>(
      'SELECT row_id, key FROM waybill.outbound_rows WHERE flow = $1 AND row_id = ANY ($2)',
      [this.#options.flow, claims],
    );
    return new Map(rows.map(({ row_id: row, key }) => [row, key]));
  }

  async unclaim(rows: readonly string[]): Promise<void> {
    await this.#client.query('DELETE FROM waybill.outbound_rows WHERE flow = $1 AND row_id = ANY ($2)', [
      this.#options.flow,
      rows,
    ]);
  }

  async release(records: readonly string[], kept: readonly string[]): Promise<void> {
    const { rows } = await this.#client.query<{ row_id: string }>(
      'SELECT row_id FROM waybill.outbound_rows WHERE flow = $1 AND record_id = ANY ($2)',
      [this.#options.flow, records],
    );
    // Before version 15 Postgres goes through a whole list for each row that is not to be in it.
    const keeps = new Set(kept);
    const released = rows.flatMap(({ row_id: row }) => (keeps.has(row) ? [] : [row]));
    if (released.length > 0) await this.unclaim(released);
  }

  async savepoint(): Promise<void> {
    // Rows that need each other go in together, also where the ones before them have been settled.
    await this.#client.query('SAVEPOINT outbound; SET CONSTRAINTS ALL DEFERRED');
  }

  async settle(): Promise<void> {
    // A deferred constraint must fail while there is still a savepoint to go back to.
    await this.#client.query('SET CONSTRAINTS ALL IMMEDIATE; RELEASE SAVEPOINT outbound');
  }

  async rollbackToSavepoint(): Promise<void> {
    await this.#client.query('ROLLBACK TO SAVEPOINT outbound; RELEASE SAVEPOINT outbound');
  }

  async commit(): Promise<void> {
    await this.#transaction!.commit();
    this.#transaction = undefined;
  }

  async rollback(): Promise<void> {
    await this.#transaction?.rollback();
    this.#transaction = undefined;
  }

  async countKeys(): Promise<ReasonCount[]> {
    return await countKeys(this.#client, this.#options.flow);
  }

  async waitingKeys(): Promise<Set<string>> {
    const { rows } = await this.#client.query<{ key: string }>(
      'SELECT DISTINCT key FROM waybill.quarantine WHERE flow = $1',
      [this.#options.flow],
    );
    return new Set(rows.map(({ key }) => key));
  }

  async waitingAfter(id: string, limit: number): Promise<WaitingRecord[]> {
    return await this.#waitingWhere('id > $2::bigint ORDER BY id LIMIT $3', [id, limit]);
  }

  async waitingOf(keys: readonly string[]): Promise<WaitingRecord[]> {
    return await this.#waitingWhere('key = ANY ($2) ORDER BY id', [keys]);
  }

  /** `values` begin at `$2`. */
  async #waitingWhere(where: string, values: readonly unknown[]): Promise<WaitingRecord[]> {
    const { rows } = await this.#client.query<{
      id: string;
      key: string;
      reason: string;
      sqlstate: string | null;
      message: string | null;
      change: WaitingContent;
    }>(`SELECT id, key, reason, sqlstate, message, change FROM waybill.quarantine WHERE flow = $1 AND ${where}`, [
      this.#options.flow,
      ...values,
    ]);
    return rows.map(({ id: own, key, reason, sqlstate, message, change }) => ({
      id: own,
      key,
      content: change,
      failure: { reason, sqlState: sqlstate, message },
    }));
  }

  async keep(records: readonly Omit<WaitingRecord, 'id'>[], position: Position): Promise<void> {
    const { flow, source } = this.#options;
    await this.forget(records.map(({ key }) => key));
    const tuples = records.map(
      ({ key, content, failure }) =>
        `(${quoteLiteral(flow)}, ${quoteLiteral(source)}, 'canonical', ${quoteLiteral(this.#plan!.entity)},` +
        ` ${quoteLiteral(key)}, '${formatPosition(position)}', 0, ${content.row === null ? "'d'" : "'u'"}, ${quoteLiteral(failure.reason)},` +
        ` ${quoteNullable(failure.sqlState)}, ${quoteNullable(failure.message)}, ${quoteLiteral(JSON.stringify(content))}, md5(${quoteLiteral(key)}))`,
    );
    await this.#client.query(
      'INSERT INTO waybill.quarantine (flow, source, table_schema, table_name, key, position, ordinal, op, reason,' +
        ` sqlstate, message, change, hold) VALUES ${tuples.join(', ')}`,
    );
  }

  async forget(keys: readonly string[]): Promise<void> {
    await this.#client.query('DELETE FROM waybill.quarantine WHERE flow = $1 AND key = ANY ($2)', [
      this.#options.flow,
      keys,
    ]);
  }

  rowFailure(thrown: unknown): RowFailure | undefined {
    if (!isRowError(thrown)) return undefined;
    const error = targetError(thrown, 'writing a row');
    const sqlState = sqlStateOf(thrown)!;
    return { reason: rowFailureReason(sqlState), sqlState, message: error.message };
  }

  error(thrown: unknown, doing: string): Error {
    return targetError(thrown, doing);
  }
}
