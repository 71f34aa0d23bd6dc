/**
 * Writes a segment: upserts parents first, then deletes children first. Few rows of a table travel as literals, many by
 * COPY into a temporary table and one statement per kind of change, new rows alone by COPY into the table itself.
 */
import { ReplicationError } from '../../core/errors.ts';
import type { TableSchema } from '../../core/frame.ts';
import { countLines, type LineBlock } from '../../core/packed-rows.ts';
import type { Segment } from '../compact.ts';
import type { TableChanges } from '../table-changes.ts';
import { CopyBuffer } from './copy-text.ts';
import { deleteSql, keyCondition, rowStatement, tupleInFrame, updateSql, valuesTuple } from './row-statement.ts';
import { seenSql } from './seen-keys.ts';
import type { SnapshotMarks } from './snapshot-marks.ts';
import { writeStaged, type StagedTable } from './staging.ts';
import type { TablePlan } from './table-plan.ts';
import type { TablePlans } from './table-plans.ts';
import { sqlStateOf } from './target-error.ts';
import type { TargetTransaction } from './target-transaction.ts';

const MOST_LITERAL_ROWS = 100;
/** A row that is larger than this goes from its frame into COPY as bytes: as a literal it would be a string, several times over. */
const MOST_LITERAL_BYTES = 1 << 20;
const LINES_PIECE_BYTES = 256 * 1024;

export class SegmentWriter {
  readonly #plans: TablePlans;
  readonly #marks: SnapshotMarks;
  readonly #buffer = new CopyBuffer();
  /** Tables in which new rows met old ones: COPY straight into them is not tried again. */
  readonly #notDirect = new Set<string>();
  /** Tables that lacked rows which the source had updated: a mere update is not tried again. */
  readonly #notUpdate = new Set<string>();

  constructor(plans: TablePlans, marks: SnapshotMarks) {
    this.#plans = plans;
    this.#marks = marks;
  }

  async write(transaction: TargetTransaction, segment: Segment<TablePlan>): Promise<void> {
    const tables = [...segment.tables.values()];
    tables.sort((a, b) => this.#plans.rank(a.plan) - this.#plans.rank(b.plan));
    const deletesLast: string[] = [];
    const staged = new Map<TableChanges<TablePlan>, StagedTable>();
    for (const table of tables)
      if (!table.ordered && !this.#direct(table) && !isSmall(table))
        staged.set(table, await writeStaged(transaction, table, this.#buffer));
    for (const table of tables) {
      const { plan } = table;
      const parts = staged.get(table);
      const seen = this.#marks.seenTable(plan);
      if (seen !== undefined) await transaction.addAndFlushIfLarge(seenSql(plan, seen, table.decodedRows()));
      if (parts !== undefined) await this.#addStaged(transaction, plan, parts, this.#deletesFirst(table), deletesLast);
      else if (this.#direct(table) && !isSmall(table)) await this.#copyDirect(transaction, table, deletesLast);
      else if (table.ordered)
        for (const [frame, row] of table.rowRefs())
          await transaction.addAndFlushIfLarge(rowStatement(plan, frame.row(row), frame.commitTimeOf(row)));
      else addLiteral(transaction, table, this.#deletesFirst(table), deletesLast);
    }
    for (const sql of deletesLast.toReversed()) await transaction.addAndFlushIfLarge(sql);
    if (staged.size > 0) for (const parts of staged.values()) transaction.add(`TRUNCATE ${parts.stage}`);
  }

  #direct(table: TableChanges<TablePlan>): boolean {
    return table.insertsOnly && this.#marks.seenTable(table.plan) === undefined && !this.#notDirect.has(table.plan.id);
  }

  /** Where no other table refers to this one, deleting first frees unique values for the upserts. */
  #deletesFirst(table: TableChanges<TablePlan>): boolean {
    return !this.#plans.referenced(table.plan) || !table.plan.keyIsText;
  }

  async #addStaged(
    transaction: TargetTransaction,
    plan: TablePlan,
    parts: StagedTable,
    deletesFirst: boolean,
    deletesLast: string[],
  ): Promise<void> {
    if (deletesFirst) transaction.add(parts.deletes);
    // An update costs the target less than an insert that meets its row. Rows that are not there show in the count.
    if (parts.update === '' || this.#notUpdate.has(plan.id)) transaction.add(parts.upsert);
    else if ((await transaction.run(parts.update)) !== parts.upserts) {
      this.#notUpdate.add(plan.id);
      transaction.add(parts.upsert);
    }
    for (const sql of parts.writes) transaction.add(sql);
    if (!deletesFirst && parts.deletes !== '') deletesLast.push(parts.deletes);
  }

  async #copyDirect(
    transaction: TargetTransaction,
    table: TableChanges<TablePlan>,
    deletesLast: string[],
  ): Promise<void> {
    const { plan } = table;
    const columns = plan.written.map((index) => plan.names[index]).join(', ');
    // What gathered may fail by itself, and then there is no savepoint.
    await transaction.flush();
    try {
      const copy = `SAVEPOINT direct; COPY ${plan.qualified} (${columns}) FROM STDIN`;
      const taken = await transaction.copy(copy, directPieces(table, this.#buffer)).finally(() => this.#buffer.clear());
      // A trigger may have kept rows out; nobody has looked into those that came as lines.
      if (taken !== table.size) for (const rows of table.newRows()) if ('lines' in rows) checkLines(rows, plan.table);
      transaction.add('RELEASE SAVEPOINT direct');
    } catch (thrown) {
      if (sqlStateOf(thrown) !== '23505' || plan.key.length === 0) throw thrown;
      this.#notDirect.add(plan.id);
      await transaction.rollbackTo('direct');
      const parts = await writeStaged(transaction, table, this.#buffer);
      await this.#addStaged(transaction, plan, parts, true, deletesLast);
      transaction.add(`TRUNCATE ${parts.stage}`);
    }
  }
}

/** Whether the changes of a table are few and short enough to be written as literals. */
function isSmall(table: TableChanges<TablePlan>): boolean {
  if (table.insertsOnly) {
    if (table.size > MOST_LITERAL_ROWS) return false;
    for (const rows of table.newRows()) {
      const bytes = 'lines' in rows ? rows.lines.length : rows[0].rowBytes(rows[1]);
      if (bytes > MOST_LITERAL_BYTES) return false;
    }
    return true;
  }
  if (table.keys > MOST_LITERAL_ROWS) return false;
  for (const { frame, row } of table.net()) if (frame.rowBytes(row) > MOST_LITERAL_BYTES) return false;
  return true;
}

function* directPieces(table: TableChanges<TablePlan>, buffer: CopyBuffer): Generator<Buffer> {
  for (const rows of table.newRows()) {
    if ('lines' in rows) {
      if (!buffer.empty) yield buffer.take();
      const { lines } = rows;
      for (let at = 0; at < lines.length; at += LINES_PIECE_BYTES) yield lines.subarray(at, at + LINES_PIECE_BYTES);
    } else buffer.frameRow(table.plan, rows[0], rows[1], '');
    if (buffer.full) yield buffer.take();
  }
  if (!buffer.empty) yield buffer.take();
}

function addLiteral(
  transaction: TargetTransaction,
  table: TableChanges<TablePlan>,
  first: boolean,
  last: string[],
): void {
  const { plan } = table;
  const tuples: string[] = [];
  const updates: string[] = [];
  const deletes: string[] = [];
  /** The keys of rows to mark, by the moment at which they went. */
  const marks = new Map<number, string[]>();
  for (const change of table.net()) {
    const { kind } = change;
    const inFrame = kind === 'upsert' && change.asInFrame ? tupleInFrame(plan, change.frame, change.row) : undefined;
    if (inFrame !== undefined) {
      tuples.push(inFrame);
      continue;
    }
    const { image, deletedAtUs } = change;
    if (kind === 'upsert' || kind === 'buried') tuples.push(valuesTuple(plan, image, deletedAtUs));
    else if (kind === 'delete') deletes.push(`(${keyCondition(plan, image)})`);
    else if (kind === 'partial') updates.push(updateSql(plan, image, plan.settable, keyCondition(plan, image)));
    else {
      const keys = marks.get(deletedAtUs!);
      if (keys === undefined) marks.set(deletedAtUs!, [`(${keyCondition(plan, image)})`]);
      else keys.push(`(${keyCondition(plan, image)})`);
    }
  }
  const gone = [
    ...(deletes.length === 0 ? [] : [`DELETE FROM ${plan.rows} WHERE ${deletes.join(' OR ')}`]),
    ...[...marks].map(([timeUs, keys]) => deleteSql(plan, keys.join(' OR '), timeUs)),
  ].join('; ');
  if (first) transaction.add(gone);
  if (tuples.length > 0) transaction.add(`${plan.insertHead}VALUES ${tuples.join(',\n')}${plan.conflict}`);
  for (const sql of updates) transaction.add(sql);
  if (!first && gone !== '') last.push(gone);
}

function checkLines({ from, to, lines }: LineBlock, { schema, name }: TableSchema): void {
  const count = countLines(lines);
  if (count !== to - from)
    throw new ReplicationError('frame_unreadable', `${to - from} rows of ${schema}.${name} came as ${count} lines`);
}
