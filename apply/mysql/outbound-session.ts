/** Writing to the tables of a system in MySQL or MariaDB: only what differs, in a transaction that says whose it is. */
import { markerTable } from '../../core/origin.ts';
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
import type { MysqlSession } from './session.ts';
import { qualifiedName, quoteLiteral, quoteNullable } from './sql.ts';
import { readSystemTables, type MysqlSystemTable } from './system-table.ts';
import { errnoOf, isRowError, rowFailureReason, sqlStateOf, targetError } from './target-error.ts';
import { TargetTransaction } from './target-transaction.ts';

export interface SessionOptions {
  readonly session: MysqlSession;
  readonly database: string | undefined;
  readonly flow: string;
  readonly source: string;
  readonly installation: string;
  readonly at: FlowPosition;
}

export class MysqlOutboundSession implements OutboundSession {
  readonly #options: SessionOptions;
  readonly #session: MysqlSession;
  readonly at: FlowPosition;
  readonly #marker: string;
  readonly #statements = new Map<OutboundWrite, OutboundStatements>();
  #tables: SystemTables = new Map();
  /** What was looked at, and has not been written yet. */
  #staged: { write: OutboundWrite; rows: readonly Cells[]; waiting: ReadonlySet<number> } | undefined;
  #plan: OutboundPlan | undefined;
  #transaction: TargetTransaction | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#session = options.session;
    this.at = options.at;
    this.#marker = qualifiedName('waybill', markerTable(options.installation));
  }

  async prepare(plan: OutboundPlan): Promise<SystemTables> {
    const session = this.#session;
    this.#plan = plan;
    const tables = await readSystemTables(session, this.#options.database, tablesOf(plan));
    this.#tables = tables;
    requireFit(plan, tables);
    await session.run(
      `CREATE TABLE IF NOT EXISTS ${this.#marker} (flow varchar(64) NOT NULL PRIMARY KEY, transactions bigint NOT NULL) ENGINE=InnoDB`,
    );
    for (const { write, gone } of plan.blocks) {
      await this.#prepareWrite(write, tables, plan.zone);
      if (gone !== 'ignore') await this.#prepareWrite(gone.write, tables, plan.zone);
    }
    return tables;
  }

  async #prepareWrite(
    write: OutboundWrite,
    tables: ReadonlyMap<string, MysqlSystemTable | undefined>,
    zone: string | undefined,
  ): Promise<void> {
    const statements = createOutboundStatements(write, tables, zone);
    await this.#session.run(statements.create);
    this.#statements.set(write, statements);
  }

  async begin(move: Move): Promise<void> {
    this.#transaction = await TargetTransaction.begin(this.#session, move);
    await this.#session.run(
      `INSERT INTO ${this.#marker} (flow, transactions) VALUES (${quoteLiteral(this.#options.flow)}, 1)` +
        ' ON DUPLICATE KEY UPDATE transactions = transactions + 1',
    );
  }

  async look(write: OutboundWrite, rows: readonly Cells[]): Promise<Looked> {
    const { stage, look } = this.#statements.get(write)!;
    await this.#session.run(stage(rows));
    const names: (readonly string[] | undefined)[] = rows.map(() => undefined);
    const waiting = new Set<number>();
    const asName = keyNames(write, this.#tables.get(write.table)!);
    for (const [i, waits, ...texts] of await this.#session.rows(look)) {
      names[Number(i)] = asName(texts);
      if (waits === '1') waiting.add(Number(i));
    }
    this.#staged = { write, rows, waiting };
    return { waiting, names };
  }

  async write(write: OutboundWrite, rows: readonly Cells[]): Promise<ReadonlySet<number>> {
    const statements = this.#statements.get(write)!;
    const staged = this.#staged;
    const there = staged?.write === write && staged.rows === rows;
    const waiting = there ? staged.waiting : await this.#stage(statements, rows);
    this.#staged = undefined;
    if (statements.write !== '') await this.#session.run(statements.write);
    return waiting;
  }

  async #stage({ stage, waiting }: OutboundStatements, rows: readonly Cells[]): Promise<ReadonlySet<number>> {
    await this.#session.run(stage(rows));
    if (waiting === undefined) return new Set();
    return new Set((await this.#session.rows(waiting)).map(([i]) => Number(i)));
  }

  async remove(write: OutboundWrite, rows: readonly Cells[]): Promise<void> {
    const statements = this.#statements.get(write)!;
    await this.#session.run(`${statements.stage(rows)}; ${statements.remove}`);
  }

  async claim(claims: readonly Claim[]): Promise<void> {
    const flow = quoteLiteral(this.#options.flow);
    const tuples = claims.map(({ row, record, key }) => `(${flow}, '${row}', '${record}', ${quoteLiteral(key)})`);
    await this.#session.run(
      `INSERT INTO waybill.outbound_rows (flow, row_id, record_id, \`key\`) VALUES ${tuples.join(', ')}`,
    );
  }

  async claimed(claims: readonly string[]): Promise<Map<string, string>> {
    const rows = await this.#session.rows(
      `SELECT row_id, \`key\` FROM waybill.outbound_rows WHERE ${this.#own()} AND row_id IN (${listOf(claims)})`,
    );
    return new Map(rows.map(([row, key]) => [row!, key!]));
  }

  async unclaim(rows: readonly string[]): Promise<void> {
    await this.#session.run(`DELETE FROM waybill.outbound_rows WHERE ${this.#own()} AND row_id IN (${listOf(rows)})`);
  }

  async release(records: readonly string[], kept: readonly string[]): Promise<void> {
    const but = kept.length === 0 ? '' : ` AND row_id NOT IN (${listOf(kept)})`;
    await this.#session.run(
      `DELETE FROM waybill.outbound_rows WHERE ${this.#own()} AND record_id IN (${listOf(records)})${but}`,
    );
  }

  async savepoint(): Promise<void> {
    await this.#session.run('SAVEPOINT outbound');
  }

  /** No constraint waits for the commit here, and a savepoint takes the place of the one before. */
  async settle(): Promise<void> {}

  async rollbackToSavepoint(): Promise<void> {
    this.#staged = undefined;
    await this.#session.run('ROLLBACK TO SAVEPOINT outbound');
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
    return await countKeys(this.#session, this.#options.flow);
  }

  async waitingKeys(): Promise<Set<string>> {
    const rows = await this.#session.rows(`SELECT \`key\` FROM waybill.quarantine WHERE ${this.#own()}`);
    return new Set(rows.map(([key]) => key!));
  }

  async waitingAfter(id: string, limit: number): Promise<WaitingRecord[]> {
    return await this.#waitingWhere(`id > ${id} ORDER BY id LIMIT ${limit}`);
  }

  async waitingOf(keys: readonly string[]): Promise<WaitingRecord[]> {
    return await this.#waitingWhere(`BINARY \`key\` IN (${textsOf(keys)}) ORDER BY id`);
  }

  async #waitingWhere(where: string): Promise<WaitingRecord[]> {
    const rows = await this.#session.rows(
      'SELECT id, `key`, reason, `sqlstate`, message, `change` FROM waybill.quarantine' +
        ` WHERE ${this.#own()} AND ${where}`,
    );
    return rows.map(([own, key, reason, sqlState, message, change]) => ({
      id: own!,
      key: key!,
      content: JSON.parse(change!) as WaitingContent,
      failure: { reason: reason!, sqlState: sqlState ?? null, message: message ?? null },
    }));
  }

  async keep(records: readonly Omit<WaitingRecord, 'id'>[], position: Position): Promise<void> {
    const { flow, source } = this.#options;
    await this.forget(records.map(({ key }) => key));
    const tuples = records.map(
      ({ key, content, failure }) =>
        `(${quoteLiteral(flow)}, ${quoteLiteral(source)}, 'canonical', ${quoteLiteral(this.#plan!.entity)},` +
        ` ${quoteLiteral(key)}, '${formatPosition(position)}', 0, ${content.row === null ? "'d'" : "'u'"},` +
        ` ${quoteLiteral(failure.reason)}, ${quoteNullable(failure.sqlState)}, ${quoteNullable(failure.message)},` +
        ` ${quoteLiteral(JSON.stringify(content))}, UTC_TIMESTAMP(6))`,
    );
    await this.#session.run(
      'INSERT INTO waybill.quarantine (flow, source, table_schema, table_name, `key`, position, ordinal, op, reason,' +
        ` \`sqlstate\`, message, \`change\`, created_at) VALUES ${tuples.join(', ')}`,
    );
  }

  async forget(keys: readonly string[]): Promise<void> {
    await this.#session.run(
      `DELETE FROM waybill.quarantine WHERE ${this.#own()} AND BINARY \`key\` IN (${textsOf(keys)})`,
    );
  }

  #own(): string {
    return `flow = ${quoteLiteral(this.#options.flow)}`;
  }

  rowFailure(thrown: unknown): RowFailure | undefined {
    if (!isRowError(thrown)) return undefined;
    const sqlState = sqlStateOf(thrown)!;
    const { message } = targetError(thrown, 'writing a row');
    return { reason: rowFailureReason(sqlState, errnoOf(thrown)), sqlState, message };
  }

  error(thrown: unknown, doing: string): Error {
    return targetError(thrown, doing);
  }
}

function listOf(ids: readonly string[]): string {
  return ids.map((id) => `'${id}'`).join(', ');
}

/** Keys as SQL: their texts are told apart by their bytes. */
function textsOf(keys: readonly string[]): string {
  return keys.map((key) => `BINARY ${quoteLiteral(key)}`).join(', ');
}
