/**
 * Compaction: the net result per key of a batch. A batch is cut into segments where the order of whole statements
 * matters (truncate, snapshot marks, a new version of a table); within a segment only the last state of a key counts.
 * Invariant 3: a table whose rows cannot be reduced to that is written row by row in source order.
 */
import type { FlowConfig } from '../core/config.ts';
import { ReplicationError } from '../core/errors.ts';
import type { Op, RowChange, TableSchema } from '../core/frame.ts';
import { RowPlaces, type Run } from './batch.ts';
import type { HeldKeys } from './held-keys.ts';
import { TableChanges, type PlanShape } from './table-changes.ts';
import { appliesDeletes } from './target-schema.ts';

export interface SourceRow<P extends PlanShape> {
  readonly plan: P;
  readonly row: RowChange;
  /** The place of the row in its source, as the quarantine names it. */
  readonly position: string;
  readonly ordinal: number;
  /** When its transaction was committed, microseconds since 1970. */
  readonly commitTimeUs: number;
}

export interface Segment<P extends PlanShape> {
  readonly tables: Map<string, TableChanges<P>>;
  /** Changes of held keys. */
  readonly held: SourceRow<P>[];
  /** What follows the segment's rows: a truncate or a snapshot mark. */
  barrier?: SourceRow<P>;
}

/** Rows that came by of one table, by operation. */
export interface TableCount {
  readonly table: TableSchema;
  readonly counts: Readonly<Record<Op, number>>;
}

export interface Compacted<P extends PlanShape> {
  readonly segments: Segment<P>[];
  readonly counts: TableCount[];
}

/** The plans for the tables of a run's frame, by their index; undefined for tables that the flow leaves out. */
export type Plans<P extends PlanShape> = (run: Run) => readonly (P | undefined)[];

/** True for a row that this flow does nothing with. */
export function isIgnored(op: Op, { table }: PlanShape, settings: FlowConfig): boolean {
  if (op === 'd') return !appliesDeletes(table, settings);
  return op === 'm' || (op === 't' && settings.truncate === 'ignore');
}

/** Of a table whose rows are passed over. */
const LEFT_OUT = 'left out';

/** A table of a batch: looked up once per frame, not per row. */
interface Slot<P extends PlanShape> {
  readonly plan: P;
  readonly counts: Record<Op, number>;
  changes: TableChanges<P> | undefined;
}

/**
 * The net result of the rows of some runs. `leavesOut` says of which tables rows are passed over; throws `internal` for a
 * row of any other that has no plan: nothing is lost in silence.
 */
export function compact<P extends PlanShape>(
  runs: readonly Run[],
  plansOf: Plans<P>,
  settings: FlowConfig,
  heldKeys: HeldKeys,
  leavesOut: (table: TableSchema) => boolean,
): Compacted<P> {
  const segments: Segment<P>[] = [];
  const slots = new Map<P, Slot<P>>();
  let segment: Segment<P> = { tables: new Map(), held: [] };
  const cut = (barrier?: SourceRow<P>): void => {
    if (barrier !== undefined) segment.barrier = barrier;
    if (segment.tables.size > 0 || segment.held.length > 0 || barrier !== undefined) segments.push(segment);
    segment = { tables: new Map(), held: [] };
    for (const slot of slots.values()) slot.changes = undefined;
  };
  const open = (slot: Slot<P>): TableChanges<P> => {
    // Another version of a table that has changes already: what came before must be written before.
    if (segment.tables.has(slot.plan.id)) cut();
    const changes = new TableChanges(slot.plan);
    segment.tables.set(slot.plan.id, changes);
    slot.changes = changes;
    return changes;
  };
  for (const run of runs) {
    const byIndex = slotsFor(plansOf(run), slots, run.frame.tables, leavesOut);
    const { frame } = run;
    const places = new RowPlaces(run);
    for (let row = run.from; row < run.to; row++) {
      const slot = byIndex[frame.tableIndex(row)];
      if (slot === LEFT_OUT) continue;
      const op = frame.op(row);
      if (slot === undefined) {
        // Marks may tell of a table that came to its end before anything of it was here.
        if (op !== 's' && op !== 'm') throw unplanned(run, row);
        continue;
      }
      const { plan } = slot;
      if (isIgnored(op, plan, settings)) continue;
      slot.counts[op] += 1;
      if (op === 't' || op === 's') {
        cut({ plan, row: frame.row(row), ...places.of(row) });
        if (op === 't') heldKeys.releaseTable(plan.id);
        continue;
      }
      if (!heldKeys.empty && heldKeys.concerns(plan.id)) {
        const change = { plan, row: frame.row(row), ...places.of(row) };
        if (heldKeys.holds(change)) {
          heldKeys.hold(change);
          segment.held.push(change);
          continue;
        }
      }
      const changes = slot.changes ?? open(slot);
      const block = frame.linesAt(row);
      if (block !== undefined && heldKeys.empty && block.to <= run.to && changes.addLines(frame, block)) {
        slot.counts[op] += block.to - block.from - 1;
        row = block.to - 1;
      } else changes.add(frame, row);
    }
  }
  cut();
  return { segments, counts: [...slots.values()].map(({ plan, counts }) => ({ table: plan.table, counts })) };
}

function unplanned(run: Run, row: number): ReplicationError {
  const table = run.frame.tables[run.frame.tableIndex(row)];
  return new ReplicationError(
    'internal',
    `a row of ${table?.schema}.${table?.name} at ${new RowPlaces(run).of(row).position} would be passed over: its table is followed, and has no plan`,
  );
}

function slotsFor<P extends PlanShape>(
  plans: readonly (P | undefined)[],
  slots: Map<P, Slot<P>>,
  tables: readonly TableSchema[],
  leavesOut: (table: TableSchema) => boolean,
): (Slot<P> | typeof LEFT_OUT | undefined)[] {
  return plans.map((plan, index) => {
    if (plan === undefined) return leavesOut(tables[index]!) ? LEFT_OUT : undefined;
    let slot = slots.get(plan);
    if (slot === undefined) {
      slot = { plan, counts: { i: 0, u: 0, d: 0, r: 0, t: 0, s: 0, m: 0 }, changes: undefined };
      slots.set(plan, slot);
    }
    return slot;
  });
}
