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

export interface BatchPart {
  readonly batch: Batch;
  /** Done before the part's rows, in this order. */
  readonly steps: readonly SchemaStep[];
}

/** A batch in which nothing changes is one part. Parts that end between transactions carry the position there. */
export function splitBatch(batch: Batch, followed: FollowedTables): BatchPart[] {
  if (batch.runs.every(({ frame }) => !frame.tables.some((table) => needsLook(table, followed))))
    return [{ batch, steps: [] }];
  const splitter = new Splitter(batch, followed);
  for (const run of batch.runs) splitter.add(run);
  return splitter.end();
}

function needsLook(table: TableSchema, followed: FollowedTables): boolean {
  return followed.includes(table) && !followed.isCurrent(table);
}

class Splitter {
  readonly #batch: Batch;
  readonly #followed: FollowedTables;
  readonly #parts: BatchPart[] = [];
  /** Versions as they are at the place looked at, where that is not what the target has. */
  readonly #versions = new Map<string, string | undefined>();
  #runs: Run[] = [];
  #steps: SchemaStep[] = [];
  #touched = new Set<string>();
  #rows = 0;
  #transactions = 0;

  constructor(batch: Batch, followed: FollowedTables) {
    this.#batch = batch;
    this.#followed = followed;
  }

  add(run: Run): void {
    let from = run.from;
    for (const { entry, index, start, from: first, to } of transactionsOf(run)) {
      const ends = entry[5] === 'whole' || entry[5] === 'last';
      for (let row = first, next: number; row < to; row = next) {
        // Lines are rows of one table, of which the first tells all.
        const block = run.frame.linesAt(row);
        next = block === undefined ? row + 1 : Math.min(block.to, to);
        const table = run.frame.tables[run.frame.tableIndex(row)];
        if (table === undefined || !this.#followed.includes(table)) continue;
        const step = this.#stepAt(run, row, table);
        if (step !== undefined) {
          if (this.#isTouched(table)) {
            const between = row === start && (entry[5] === 'whole' || entry[5] === 'first');
            this.#take(run, from, row, index, start);
            from = row;
            // Its frame has been taken in part only.
            this.#cut(between ? this.#boundary(run, index) : undefined, run.seq - 1);
          }
          this.#steps.push(step);
          this.#versions.set(nameOf(table), step.gone === undefined ? table.version : undefined);
        }
        this.#touch(table);
      }
      if (ends) this.#transactions += 1;
    }
    this.#take(run, from, run.to, run.endEntry, run.to);
  }

  /** What a row asks to be done first. */
  #stepAt(run: Run, row: number, table: TableSchema): SchemaStep | undefined {
    const name = nameOf(table);
    const known = this.#versions.has(name);
    const record = this.#followed.of(table);
    const stopped = !known && record?.state === 'stopped';
    const gone = !known && record?.state === 'gone';
    const lost = !known && this.#followed.isLost(table);
    const current = known ? this.#versions.get(name) : record?.definition?.version;
    let restart = false;
    if (run.frame.op(row) === 's') {
      const [what, mark] = run.frame.row(row)[2] ?? [];
      restart = mark === 'begin';
      // A step before it may have stopped the table.
      if (restart && (stopped || lost || known)) return { table, restart };
      if (mark === 'gone') {
        // What is gone need not be made first; and a flow that is being rebuilt has not come to where the table begins.
        if (stopped && record.reason === REBUILDING) return undefined;
        if (known ? current === undefined : record === undefined || gone) return undefined;
        // A capture that comes back may name a version from before; a step before it may have stopped the table.
        const followed = !known && current === table.version && !stopped && !lost;
        return followed ? undefined : { table, restart: false, gone: String(what) };
      }
    }
    if (lost) return { table, restart };
    if (stopped || (current === table.version && !gone)) return undefined;
    if (!known && this.#followed.isSuperseded(table)) return undefined;
    // One that was stopped under another name is read under this one.
    return { table, restart };
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

  /** `seq`: the last frame that was taken whole. */
  #cut(next: Position | undefined, seq: number): void {
    const { commitTimeUs } = this.#batch;
    this.#parts.push({
      batch: {
        runs: this.#runs,
        rows: this.#rows,
        transactions: this.#transactions,
        seq,
        commitTimeUs,
        next,
      },
      steps: this.#steps,
    });
    this.#runs = [];
    this.#steps = [];
    this.#touched = new Set();
    this.#rows = 0;
    this.#transactions = 0;
  }

  end(): BatchPart[] {
    this.#cut(this.#batch.next, this.#batch.seq);
    return this.#parts;
  }
}
