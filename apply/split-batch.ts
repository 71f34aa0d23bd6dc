/**
 * A batch, cut where a table changes: what a version of a table brings is done to the target before its first row, and
 * behind the last row of the version before. Changes of tables that the part at hand has no rows of are done first.
 */
import type { TableSchema } from '../core/frame.ts';
import { positionAfter, type Position } from '../core/position.ts';
import type { Batch, Run } from './batch.ts';
import { transactionsOf } from './batch.ts';
import { REBUILDING } from './rebuilding.ts';
import { nameOf, type FollowedTables, type SchemaStep } from './followed-tables.ts';

/** The mark of a table that the source no longer has. */
const GONE = 'gone';
/** The mark of a reading that begins. */
const BEGIN = 'begin';
/** Stands in the mark of a reading that begins because of what became of the table. */
const UNASKED = 'unasked';
const NARROWER = 'narrower';
/** Which of the columns is which may have been told wrongly before. */
const GUESSED = 'unsure';
const UNSURE = Symbol('unsure');

export interface BatchPart {
  readonly batch: Batch;
  /** Done before the part's rows, in this order. */
  readonly steps: readonly SchemaStep[];
}

/**
 * A batch in which nothing changes is one part. Parts that end between transactions carry the position there. A part must
 * have been written when the next one is asked for: what a step or a mark made of a table is seen in `followed` only.
 */
export function* splitBatch(batch: Batch, followed: FollowedTables): Generator<BatchPart, void, void> {
  if (batch.runs.some((run) => needsLook(run, followed))) yield* new Splitter(batch, followed).parts();
  else yield { batch, steps: [] };
}

function needsLook(run: Run, followed: FollowedTables): boolean {
  const { frame, from, to } = run;
  if (frame.tables.some((table) => followed.includes(table) && !followed.isCurrent(table))) return true;
  // A table that is read may have been stopped by what came before, where another one is.
  const mayStop = followed.unwritten().length > 0;
  return frame.marks.some((row) => {
    if (row < from || row >= to) return false;
    const mark = markAt(run, row);
    return mark === GONE || (mayStop && mark === BEGIN);
  });
}

class Splitter {
  readonly #batch: Batch;
  readonly #followed: FollowedTables;
  /** Tables that the part at hand changes: the version that they have then, undefined where they are gone. */
  readonly #changed = new Map<string, string | typeof UNSURE | undefined>();
  #runs: Run[] = [];
  #steps: SchemaStep[] = [];
  #touched = new Set<string>();
  /** Tables that the part at hand empties: where that cannot be done, it stops them. */
  #emptied = new Set<string>();
  #rows = 0;
  #transactions = 0;
  /** The part at hand begins in the middle of a transaction. */
  #midway: boolean;

  constructor(batch: Batch, followed: FollowedTables) {
    const [run] = batch.runs;
    this.#midway = run !== undefined && /^(?:middle|last)$/.test(run.frame.partOf(run.firstEntry) ?? '');
    this.#batch = batch;
    this.#followed = followed;
  }

  *parts(): Generator<BatchPart, void, void> {
    for (const run of this.#batch.runs) yield* this.#add(run);
    yield this.#part(this.#batch.next, this.#batch.seq);
  }

  *#add(run: Run): Generator<BatchPart, void, void> {
    let from = run.from;
    for (const { entry, index, start, from: first, to } of transactionsOf(run)) {
      const ends = entry[5] === 'whole' || entry[5] === 'last';
      const begins = first === start && (entry[5] === 'whole' || entry[5] === 'first');
      for (let row = first, next: number; row < to; row = next) {
        // Lines are rows of one table, of which the first tells all.
        const block = run.frame.linesAt(row);
        next = block === undefined ? row + 1 : Math.min(block.to, to);
        const table = run.frame.tables[run.frame.tableIndex(row)];
        if (table === undefined || !this.#followed.includes(table)) continue;
        let step = this.#stepAt(run, row, table);
        const isLater = begins && (this.#rows > 0 || from < start);
        // What a later transaction asks for is not done inside of the one that the part goes on with.
        if (this.#mustCut(run, row, table, step) || (step !== undefined && this.#midway && isLater)) {
          // Before the transaction, if that helps: not every target can change a table in the middle of one.
          const at = isLater ? start : row;
          this.#take(run, from, at, index, start);
          from = at;
          // Its frame has been taken in part only.
          yield this.#part(begins && at === start ? this.#boundary(run, index) : undefined, run.seq - 1);
          if (at < row) {
            next = at;
            continue;
          }
          step = this.#stepAt(run, row, table);
        }
        if (step !== undefined) this.#do(step);
        else if (markAt(run, row) === GONE && this.#followed.isCurrent(table))
          this.#changed.set(nameOf(table), undefined);
        if (run.frame.op(row) === 't') this.#emptied.add(nameOf(table));
        this.#touch(table);
      }
      if (ends) this.#transactions += 1;
    }
    this.#take(run, from, run.to, run.endEntry, run.to);
  }

  /** Whether a row may ask for something that cannot be done before the rows of the part at hand. */
  #mustCut(run: Run, row: number, table: TableSchema, step: SchemaStep | undefined): boolean {
    const name = nameOf(table);
    const mark = markAt(run, row);
    if (mark === BEGIN && this.#emptied.has(name)) return true;
    if (!this.#changed.has(name)) return step !== undefined && this.#isTouched(table);
    const version = this.#changed.get(name);
    if (mark === GONE) return version !== undefined;
    // Whether the step before has stopped the table shows when it is done.
    return mark === BEGIN || version !== table.version;
  }

  /** Adds a step before the part's rows. */
  #do(step: SchemaStep): void {
    const { table, gone } = step;
    this.#steps.push(step);
    this.#changed.set(nameOf(table), gone === undefined ? table.version : undefined);
    // It may take along what the target has of it under that name.
    const old = this.#followed.underOtherName(table);
    if (old !== undefined) this.#changed.set(nameOf(old), UNSURE);
  }

  /** What a row asks to be done first; undefined where the part at hand has changed its table already. */
  #stepAt(run: Run, row: number, table: TableSchema): SchemaStep | undefined {
    const followed = this.#followed;
    if (this.#changed.has(nameOf(table))) return undefined;
    const record = followed.of(table);
    const stopped = record?.state === 'stopped';
    const gone = record?.state === 'gone';
    const lost = followed.isLost(table);
    const isCurrent = record?.definition?.version === table.version;
    const mark = markAt(run, row);
    const content = mark === BEGIN ? (run.frame.row(row)[2] ?? []) : [];
    const isUnasked = mark === BEGIN && followed.isUnasked(table, content[2] === UNASKED);
    const narrower = isUnasked && content[3] === NARROWER;
    const restart = mark === BEGIN && followed.mayRestart(isUnasked);
    // A type that only looks narrower, since columns were taken for each other, is changed like any other.
    const unasked = isUnasked && content[3] !== GUESSED;
    if (restart && (stopped || lost)) return { table, restart, unasked, narrower };
    if (mark === GONE) {
      // What is gone need not be made first; and a flow that is being rebuilt has not come to where the table begins.
      if (record === undefined || gone || (stopped && record.reason === REBUILDING)) return undefined;
      // Another table has come under its name, and goes on there.
      if (!stopped && followed.replaces(table)) return undefined;
      // A capture that comes back may name a version from before.
      if (isCurrent && !stopped && !lost) return undefined;
      return { table, restart: false, gone: String(run.frame.row(row)[2]?.[0]) };
    }
    if (lost) return { table, restart, unasked, narrower };
    if (stopped || (isCurrent && !gone)) return undefined;
    if (!gone && followed.isSuperseded(table)) return undefined;
    // One that was stopped under another name is read under this one.
    return { table, restart, unasked, narrower };
  }

  /** Under its name and under its id: a renamed table must not be altered before its rows under the old name are written. */
  #touch(table: TableSchema): void {
    this.#touched.add(nameOf(table));
    if (table.id !== undefined) this.#touched.add(`#${table.id}`);
  }

  #isTouched(table: TableSchema): boolean {
    return this.#touched.has(nameOf(table)) || (table.id !== undefined && this.#touched.has(`#${table.id}`));
  }

  /** The rows `[from, to)` of a run, which end in transaction `index` or before it. */
  #take(run: Run, from: number, to: number, index: number, entryStart: number): void {
    if (from >= to && !(to === run.to && from === run.from)) return;
    let { firstEntry, entryFrom } = run;
    while (firstEntry < run.endEntry && entryFrom + run.frame.tx[firstEntry]![4] <= from && from < to) {
      entryFrom += run.frame.tx[firstEntry]![4];
      firstEntry += 1;
    }
    const endEntry = to > entryStart ? index + 1 : index;
    this.#runs.push({ ...run, from, to, firstEntry, entryFrom, endEntry: Math.min(run.endEntry, endEntry) });
    this.#rows += to - from;
  }

  /** Where the target stands before transaction `index`; undefined in the middle of one. */
  #boundary(run: Run, index: number): Position | undefined {
    return index === 0 ? run.start : positionAfter(run.start, run.frame.tx, index - 1);
  }

  /** What has been taken. `seq`: the last frame that was taken whole. */
  #part(next: Position | undefined, seq: number): BatchPart {
    const { commitTimeUs } = this.#batch;
    const part: BatchPart = {
      batch: { runs: this.#runs, rows: this.#rows, transactions: this.#transactions, seq, commitTimeUs, next },
      steps: this.#steps,
    };
    this.#runs = [];
    this.#steps = [];
    this.#touched = new Set();
    this.#emptied = new Set();
    this.#changed.clear();
    this.#midway = next === undefined;
    this.#rows = 0;
    this.#transactions = 0;
    return part;
  }
}

/** What a mark says; undefined for any other row. */
function markAt({ frame }: Run, row: number): unknown {
  return frame.op(row) === 's' ? frame.row(row)[2]?.[1] : undefined;
}
