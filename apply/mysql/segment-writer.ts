/**
 * Writes a segment: upserts parents first, then deletes children first. Few rows of a table travel as literals, many by
 * LOAD DATA LOCAL into a temporary table and one statement per kind of change, new rows alone by LOAD DATA into the table
 * itself. Where the server does not allow LOAD DATA LOCAL, or a row nearly fills a packet, all travel as literals.
 */
import { parseCopyLine } from '../../core/copy-line.ts';
import type { Segment } from '../compact.ts';
import type { TableChanges } from '../table-changes.ts';
import { loadLine, loadSql, readsLines } from './load-data.ts';
import {
  deleteSql,
  keyColumns,
  keyCondition,
  keyTuple,
  rowStatement,
  updateSql,
  valuesTuple,
} from './row-statement.ts';
import { seenSql } from './seen-keys.ts';
import type { ServerFacts } from './session.ts';
import type { SnapshotMarks } from './snapshot-marks.ts';
import { dropStage, writeStaged, type StagedTable } from './staging.ts';
import type { TablePlan } from './table-plan.ts';
import type { TablePlans } from './table-plans.ts';
import type { TargetTransaction } from './target-transaction.ts';

const MOST_LITERAL_ROWS = 100;
/** Characters of one statement with many rows. */
const STATEMENT_CHARS = 256 * 1024;
/** Keys of one DELETE: more would exceed what the optimizer takes as a range. */
const MOST_KEYS = 1000;

export class SegmentWriter {
  readonly #plans: TablePlans;
  readonly #marks: SnapshotMarks;
  readonly #facts: Pick<ServerFacts, 'localInfile' | 'maxPacketBytes'>;
  /** Tables in which new rows met old ones: loading straight into them is not tried again. */
  readonly #notDirect = new Set<string>();

  constructor(plans: TablePlans, marks: SnapshotMarks, facts: Pick<ServerFacts, 'localInfile' | 'maxPacketBytes'>) {
    this.#plans = plans;
    this.#marks = marks;
    this.#facts = facts;
  }

  async write(transaction: TargetTransaction, segment: Segment<TablePlan>): Promise<void> {
    const tables = [...segment.tables.values()];
    tables.sort((a, b) => this.#plans.rank(a.plan) - this.#plans.rank(b.plan));
    const deletesLast: string[] = [];
    const staged = new Map<TableChanges<TablePlan>, StagedTable>();
    for (const table of tables)
      if (!table.ordered && !this.#direct(table) && table.keys > MOST_LITERAL_ROWS && this.#loads(table))
        staged.set(table, await writeStaged(transaction, table));
    for (const table of tables) {
      const { plan } = table;
      const parts = staged.get(table);
      const seen = this.#marks.seenTable(plan);
      if (seen !== undefined)
        for (const sql of seenSql(plan, seen, table.decodedRows())) await transaction.addAndFlushIfLarge(sql);
      if (parts !== undefined) await addStaged(transaction, parts, this.#deletesFirst(table), deletesLast);
      else if (table.size > MOST_LITERAL_ROWS && this.#direct(table) && this.#loads(table))
        await this.#loadDirect(transaction, table, deletesLast);
      else if (table.ordered) await addRows(transaction, table);
      else await addLiteral(transaction, table, this.#deletesFirst(table), deletesLast);
    }
    for (const sql of deletesLast.toReversed()) await transaction.addAndFlushIfLarge(sql);
    if (staged.size > 0) await transaction.run([...staged.values()].map((parts) => dropStage(parts.stage)).join('; '));
  }

  /** No field of LOAD DATA may be longer than a packet, and the server breaks it off in the middle. */
  #loads(table: TableChanges<TablePlan>): boolean {
    const { localInfile, maxPacketBytes } = this.#facts;
    return localInfile && !table.hasRowBeyond(maxPacketBytes / 2);
  }

  #direct(table: TableChanges<TablePlan>): boolean {
    return table.insertsOnly && this.#marks.seenTable(table.plan) === undefined && !this.#notDirect.has(table.plan.id);
  }

  /** Where no other table refers to this one, deleting first frees unique values for the upserts. */
  #deletesFirst(table: TableChanges<TablePlan>): boolean {
    return !this.#plans.referenced(table.plan) || !table.plan.keyIsText;
  }

  async #loadDirect(
    transaction: TargetTransaction,
    table: TableChanges<TablePlan>,
    deletesLast: string[],
  ): Promise<void> {
    const { plan } = table;
    transaction.add('SAVEPOINT direct');
    const outcome = await transaction.load(loadSql(plan, plan.qualified, ''), directLines(table));
    // LOCAL leaves out rows whose key is there already, and says so in a warning.
    if (outcome.warnings === 0 && outcome.rows === table.size) {
      transaction.add('RELEASE SAVEPOINT direct');
      return;
    }
    await transaction.rollbackTo('direct');
    if (table.ordered) {
      await addRows(transaction, table);
      return;
    }
    this.#notDirect.add(plan.id);
    const parts = await writeStaged(transaction, table);
    await addStaged(transaction, parts, true, deletesLast);
    await transaction.run(dropStage(parts.stage));
  }
}

/** Rows that came as lines of COPY pass as they are, where that is what LOAD DATA reads. */
function* directLines(table: TableChanges<TablePlan>): Generator<string | Buffer> {
  const { plan } = table;
  for (const rows of table.newRows()) {
    if (!('lines' in rows)) yield loadLine(plan, plan.written, rows[0].row(rows[1])[2]!, '');
    else if (readsLines(rows.lines)) yield rows.lines;
    else
      for (const line of rows.lines.toString('utf8').split('\n').slice(0, -1))
        yield loadLine(plan, plan.written, parseCopyLine(line), '');
  }
}

/** Row by row, in source order. */
async function addRows(transaction: TargetTransaction, table: TableChanges<TablePlan>): Promise<void> {
  for (const [frame, row] of table.rowRefs())
    await transaction.addAndFlushIfLarge(rowStatement(table.plan, frame.row(row), frame.commitTimeOf(row)));
}

async function addStaged(
  transaction: TargetTransaction,
  parts: StagedTable,
  first: boolean,
  last: string[],
): Promise<void> {
  if (first) transaction.add(parts.deletes);
  for (const sql of parts.writes) transaction.add(sql);
  if (!first && parts.deletes !== '') last.push(parts.deletes);
  await transaction.flush();
}

async function addLiteral(
  transaction: TargetTransaction,
  table: TableChanges<TablePlan>,
  first: boolean,
  last: string[],
): Promise<void> {
  const { plan } = table;
  const tuples: string[] = [];
  const updates: string[] = [];
  const keys: string[] = [];
  /** The keys of rows to mark, by the moment at which they went. */
  const marks = new Map<number, string[]>();
  for (const { kind, image, deletedAtUs } of table.net()) {
    if (kind === 'upsert' || kind === 'buried') tuples.push(valuesTuple(plan, image, deletedAtUs));
    else if (kind === 'delete') keys.push(keyTuple(plan, image));
    else if (kind === 'partial') updates.push(updateSql(plan, image, plan.settable, keyCondition(plan, image)));
    else {
      const marked = marks.get(deletedAtUs!);
      if (marked === undefined) marks.set(deletedAtUs!, [keyTuple(plan, image)]);
      else marked.push(keyTuple(plan, image));
    }
  }
  const columns = keyColumns(plan);
  const deletes = [
    ...lists(keys, MOST_KEYS).map((list) => `DELETE FROM ${plan.qualified} WHERE ${columns} IN (${list})`),
    ...[...marks].flatMap(([timeUs, marked]) =>
      lists(marked, MOST_KEYS).map((list) => deleteSql(plan, `${columns} IN (${list})`, timeUs)),
    ),
  ];
  if (first) for (const sql of deletes) await transaction.addAndFlushIfLarge(sql);
  for (const list of lists(tuples, Infinity))
    await transaction.addAndFlushIfLarge(`${plan.insertHead}VALUES ${list}${plan.upsertValues}`);
  for (const sql of updates) await transaction.addAndFlushIfLarge(sql);
  if (!first) last.push(...deletes.toReversed());
}

/** Joins items by commas, into texts that are not much longer than a statement should be. */
function lists(items: readonly string[], most: number): string[] {
  const texts: string[] = [];
  let text = '';
  let count = 0;
  for (const item of items) {
    if (text !== '' && (text.length + item.length > STATEMENT_CHARS || count >= most)) {
      texts.push(text);
      text = '';
      count = 0;
    }
    text += text === '' ? item : `, ${item}`;
    count += 1;
  }
  if (text !== '') texts.push(text);
  return texts;
}
