/**
 * Compaction: the net result per key of a batch. A batch is cut into segments where the order of whole statements
 * matters (truncate, snapshot marks, a new version of a table); within a segment only the last state of a key counts.
 * Invariant 3: a table whose rows cannot be reduced to that is written row by row in source order.
 */
import type { FlowConfig } from '../core/config.ts';
import type { Op, RowChange, TableSchema, Value } from '../core/frame.ts';
import { rowPlace, type Run } from './batch.ts';
import type { HeldKeys } from './held-keys.ts';
import { changedKey, filledImage, isPartial, keyText, touchedKeys, type KeyShape } from './row-key.ts';

/** What compaction needs of a store's plan for a table. */
export interface PlanShape extends KeyShape {
  readonly table: TableSchema;
  /** Positions of the columns that are written. */
  readonly written: readonly number[];
}

/** The net state of one key: an image to write, or the key (as an image) of a row to delete. */
export interface NetChange {
  kind: 'upsert' | 'partial' | 'delete';
  image: readonly Value[];
}

export interface TableChanges<P extends PlanShape> {
  readonly plan: P;
  readonly net: Map<string, NetChange>;
  /** All rows, in source order: what counts when `ordered`. */
  readonly rows: RowChange[];
  ordered: boolean;
  /** Only new rows came, each key once. */
  insertsOnly: boolean;
  deletes: number;
}

export interface SourceRow<P extends PlanShape> {
  readonly plan: P;
  readonly row: RowChange;
  /** The place of the row in its source, as the quarantine names it. */
  readonly position: string;
  readonly ordinal: number;
}

export interface Segment<P extends PlanShape> {
  readonly tables: Map<string, TableChanges<P>>;
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
  /** Changes of held keys. */
  readonly held: SourceRow<P>[];
  readonly counts: TableCount[];
}

/** The plans for the tables of a run's frame, by their index; undefined for tables that the flow leaves out. */
export type Plans<P extends PlanShape> = (run: Run) => readonly (P | undefined)[];

/** True for a row that this flow does nothing with. */
export function isIgnored(row: RowChange, settings: FlowConfig): boolean {
  const op = row[0];
  return op === 'm' || (op === 'd' && settings.deletes === 'ignore') || (op === 't' && settings.truncate === 'ignore');
}

/** A table of a batch: looked up once per frame, not per row. */
interface Slot<P extends PlanShape> {
  readonly plan: P;
  readonly counts: Record<Op, number>;
  changes: TableChanges<P> | undefined;
}

export function compact<P extends PlanShape>(
  runs: readonly Run[],
  plansOf: Plans<P>,
  settings: FlowConfig,
  heldKeys: HeldKeys,
): Compacted<P> {
  const held: SourceRow<P>[] = [];
  const segments: Segment<P>[] = [];
  const slots = new Map<P, Slot<P>>();
  let segment: Segment<P> = { tables: new Map() };
  const cut = (barrier?: SourceRow<P>): void => {
    if (barrier !== undefined) segment.barrier = barrier;
    if (segment.tables.size > 0 || barrier !== undefined) segments.push(segment);
    segment = { tables: new Map() };
    for (const slot of slots.values()) slot.changes = undefined;
  };
  const open = (slot: Slot<P>): TableChanges<P> => {
    // Another version of a table that has changes already: what came before must be written before.
    if (segment.tables.has(slot.plan.id)) cut();
    const keyless = slot.plan.key.length === 0;
    const changes = {
      plan: slot.plan,
      net: new Map<string, NetChange>(),
      rows: [],
      ordered: keyless,
      insertsOnly: true,
      deletes: 0,
    };
    segment.tables.set(slot.plan.id, changes);
    slot.changes = changes;
    return changes;
  };
  for (const run of runs) {
    const byIndex = slotsFor(plansOf(run), slots);
    const { rows } = run.frame;
    for (let index = run.from; index < run.to; index++) {
      const row = rows[index]!;
      const slot = byIndex[row[1]];
      if (slot === undefined || isIgnored(row, settings)) continue;
      const { plan } = slot;
      const op = row[0];
      slot.counts[op] += 1;
      if (op === 't' || op === 's') {
        cut({ plan, row, ...rowPlace(run, index) });
        if (op === 't') heldKeys.releaseTable(plan.id);
        continue;
      }
      if (!heldKeys.empty) {
        const keys = touchedKeys(plan, row);
        if (keys.some((key) => heldKeys.has(plan.id, key))) {
          for (const key of keys) heldKeys.add(plan.id, key);
          held.push({ plan, row, ...rowPlace(run, index) });
          continue;
        }
      }
      addRow(slot.changes ?? open(slot), row);
    }
  }
  cut();
  return { segments, held, counts: [...slots.values()].map(({ plan, counts }) => ({ table: plan.table, counts })) };
}

function slotsFor<P extends PlanShape>(
  plans: readonly (P | undefined)[],
  slots: Map<P, Slot<P>>,
): (Slot<P> | undefined)[] {
  return plans.map((plan) => {
    if (plan === undefined) return undefined;
    let slot = slots.get(plan);
    if (slot === undefined) {
      slot = { plan, counts: { i: 0, u: 0, d: 0, r: 0, t: 0, s: 0, m: 0 }, changes: undefined };
      slots.set(plan, slot);
    }
    return slot;
  });
}

function addRow<P extends PlanShape>(changes: TableChanges<P>, row: RowChange): void {
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
    setNet(net, keyText(plan, row[4]!), 'delete', row[4]!);
    return;
  }
  const after = row[2]!;
  if (op !== 'u') {
    if (!setNet(net, keyText(plan, after), 'upsert', after)) changes.insertsOnly = false;
    return;
  }
  changes.insertsOnly = false;
  // The usual update: all columns are given, and the key is as it was.
  if (row[4] === undefined && !after.includes(0)) setNet(net, keyText(plan, after), 'upsert', after);
  else addUpdate(changes, row);
}

/** An update that leaves columns unchanged, or brings the old key or row. */
function addUpdate<P extends PlanShape>(changes: TableChanges<P>, row: RowChange): void {
  const { plan, net } = changes;
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
    setNet(net, oldKey, 'delete', row[4]!);
    changes.deletes += 1;
  }
  setNet(net, key, partial ? 'partial' : 'upsert', image);
}

/** Sets the net state of a key. True when it had none in this segment. */
function setNet(net: Map<string, NetChange>, key: string, kind: NetChange['kind'], image: readonly Value[]): boolean {
  const known = net.get(key);
  if (known === undefined) {
    net.set(key, { kind, image });
    return true;
  }
  known.kind = kind;
  known.image = image;
  return false;
}

/** The later image, with what it leaves unchanged taken from the earlier one. */
function merge(earlier: readonly Value[], later: readonly Value[]): Value[] {
  return later.map((value, index) => (value === 0 ? earlier[index]! : value));
}

function withKey(plan: KeyShape, image: readonly Value[], before: readonly Value[] | undefined): Value[] {
  return image.map((value, index) => (value === 0 && plan.key.includes(index) ? before![index]! : value));
}
