/**
 * Compaction: the net result per key of a batch. A batch is cut into segments where the order of whole statements
 * matters (truncate, snapshot marks, a new version of a table); within a segment only the last state of a key counts.
 * Invariant 3: a table whose rows cannot be reduced to that is written row by row in source order.
 */
import type { FlowConfig } from '../../core/config.ts';
import type { RowChange, Value } from '../../core/frame.ts';
import { rowPosition, type Run } from './batch.ts';
import { touchedKeys, type HeldKeys } from './held-keys.ts';
import { filledImage, isPartial } from './row-statement.ts';
import { changedKey, keyText, type TablePlan } from './table-plan.ts';

/** The net state of one key: an image to write, or the key (as an image) of a row to delete. */
export interface NetChange {
  readonly kind: 'upsert' | 'partial' | 'delete';
  readonly image: readonly Value[];
}

export interface TableChanges {
  readonly plan: TablePlan;
  readonly net: Map<string, NetChange>;
  /** All rows, in source order: what counts when `ordered`. */
  readonly rows: RowChange[];
  ordered: boolean;
  /** Only new rows came, each key once. */
  insertsOnly: boolean;
  deletes: number;
}

export interface SourceRow {
  readonly plan: TablePlan;
  readonly row: RowChange;
  readonly position: string;
  readonly ordinal: number;
}

export interface Segment {
  readonly tables: Map<string, TableChanges>;
  /** What follows the segment's rows: a truncate or a snapshot mark. */
  barrier?: SourceRow;
}

export interface Compacted {
  readonly segments: Segment[];
  /** Changes of held keys. */
  readonly held: SourceRow[];
  /** Rows per table and operation, as `schema\0table\0op`. */
  readonly counts: Map<string, number>;
}

export type Plans = (run: Run) => readonly (TablePlan | undefined)[];

/** True for a row that this flow does nothing with. */
export function isIgnored(row: RowChange, settings: FlowConfig): boolean {
  const op = row[0];
  return op === 'm' || (op === 'd' && settings.deletes === 'ignore') || (op === 't' && settings.truncate === 'ignore');
}

export function compact(runs: readonly Run[], plansOf: Plans, settings: FlowConfig, heldKeys: HeldKeys): Compacted {
  const held: SourceRow[] = [];
  const segments: Segment[] = [];
  const counts = new Map<string, number>();
  let segment: Segment = { tables: new Map() };
  const cut = (barrier?: SourceRow): void => {
    if (barrier !== undefined) segment.barrier = barrier;
    if (segment.tables.size > 0 || barrier !== undefined) segments.push(segment);
    segment = { tables: new Map() };
  };
  for (const run of runs) {
    const plans = plansOf(run);
    for (let index = run.from; index < run.to; index++) {
      const row = run.frame.rows[index]!;
      const plan = plans[row[1]];
      if (plan === undefined || isIgnored(row, settings)) continue;
      const count = `${plan.table.schema}\0${plan.table.name}\0${row[0]}`;
      counts.set(count, (counts.get(count) ?? 0) + 1);
      const source = (): SourceRow => ({
        plan,
        row,
        position: rowPosition(run),
        ordinal: run.entry[6] + index - run.from,
      });
      if (row[0] === 't' || row[0] === 's') {
        cut(source());
        if (row[0] === 't') heldKeys.releaseTable(plan.id);
        continue;
      }
      if (!heldKeys.empty) {
        const keys = touchedKeys(plan, row);
        if (keys.some((key) => heldKeys.has(plan.id, key))) {
          for (const key of keys) heldKeys.add(plan.id, key);
          held.push(source());
          continue;
        }
      }
      let changes = segment.tables.get(plan.id);
      if (changes !== undefined && changes.plan !== plan) {
        cut();
        changes = undefined;
      }
      if (changes === undefined) {
        const keyless = plan.key.length === 0;
        changes = { plan, net: new Map(), rows: [], ordered: keyless, insertsOnly: true, deletes: 0 };
        segment.tables.set(plan.id, changes);
      }
      addRow(changes, row);
    }
  }
  cut();
  return { segments, held, counts };
}

function addRow(changes: TableChanges, row: RowChange): void {
  const { plan, net } = changes;
  changes.rows.push(row);
  const op = row[0];
  if (changes.ordered) {
    if (op !== 'i' && op !== 'r') changes.insertsOnly = false;
    return;
  }
  if (op === 'd') {
    changes.insertsOnly = false;
    changes.deletes += 1;
    net.set(keyText(plan, row[4]!), { kind: 'delete', image: row[4]! });
    return;
  }
  if (op !== 'u') {
    const key = keyText(plan, row[2]!);
    if (net.has(key)) changes.insertsOnly = false;
    net.set(key, { kind: 'upsert', image: row[2]! });
    return;
  }
  changes.insertsOnly = false;
  let image = filledImage(row);
  const key = keyText(plan, image, row[4]);
  const oldKey = changedKey(plan, row);
  const earlier = net.get(oldKey ?? key);
  if (image.includes(0)) {
    if (earlier?.kind === 'delete') changes.ordered = true;
    else if (earlier !== undefined) image = merge(earlier.image, image);
    for (const index of plan.key) if (image[index] === 0) image = withKey(plan, image, row[4]);
  }
  const partial = isPartial(plan, image);
  if (oldKey !== undefined) {
    // The unchanged columns of the moved row are only in the target: it must be moved there.
    if (partial) changes.ordered = true;
    net.set(oldKey, { kind: 'delete', image: row[4]! });
    changes.deletes += 1;
  }
  net.set(key, { kind: partial ? 'partial' : 'upsert', image });
}

/** The later image, with what it leaves unchanged taken from the earlier one. */
function merge(earlier: readonly Value[], later: readonly Value[]): Value[] {
  return later.map((value, index) => (value === 0 ? earlier[index]! : value));
}

function withKey(plan: TablePlan, image: readonly Value[], before: readonly Value[] | undefined): Value[] {
  return image.map((value, index) => (value === 0 && plan.key.includes(index) ? before![index]! : value));
}
