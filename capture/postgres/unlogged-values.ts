/**
 * Values that rows got without a change in the log, where a table was written anew, a generated column became a plain one or
 * a label of an enum got another name. Versions of a table do not tell: a default may be gone by the time that somebody looks, and `USING` leaves a
 * column as it was. So what the catalog had of the rows at one look is compared with what it has at the next.
 */
import type { ColumnRules } from '../../core/column-rules.ts';
import { classifyTypeChange, type TypeChange } from '../../core/type-widening.ts';
import type { CapturedTable } from './catalog.ts';

/** What the catalog has of a table's rows. */
export interface Written {
  /** The file of the rows: another one when all are written anew, or removed. Undefined where nobody looked it up. */
  readonly file?: number;
  /** How many columns the table ever had: their ids go up to that. */
  readonly width: number;
  /** By their ids. */
  readonly columns: Readonly<Record<number, WrittenColumn>>;
}

export interface WrittenColumn {
  readonly type: string;
  readonly portable: string;
  /** The transaction that changed its definition last. */
  readonly stamp: string;
  /** Its default, as an object of the catalog: another one after each change of type. */
  readonly preset?: string;
  /** Older rows of some partition have a value of it that was never written: the default that it came with. */
  readonly filled?: true;
  /** Of an enum, by their oids: rows have these, and are as those are called. */
  readonly labels?: Readonly<Record<string, string>>;
}

/** What the catalog had of a table when it was looked at last. Of one that an earlier version stored, what can be told. */
export function writtenOf({ schema, stamps, written }: CapturedTable): Written {
  if (written !== undefined) return written;
  const columns = schema.columns.map(
    ({ id, type, portable }, index) => [id, { type, portable, stamp: stamps[index]! }] as const,
  );
  return { width: Math.max(0, ...columns.map(([id]) => id ?? 0)), columns: Object.fromEntries(columns) };
}

/**
 * Why rows have values by now that no change in the log tells; undefined when they have none. Columns that `rules` leave out
 * are nobody's.
 */
export function unloggedReason(before: Written, after: CapturedTable, rules: ColumnRules): string | undefined {
  const now = writtenOf(after);
  const isAnew = before.file === undefined || before.file !== now.file;
  const names = new Map(after.schema.columns.map((column) => [column.id, column.name]));
  let why: string | undefined;
  for (const [id, column] of Object.entries(now.columns)) {
    const known = before.columns[Number(id)];
    const name = names.get(Number(id)) ?? '';
    if (rules.ruleOf(after.schema.schema, after.schema.name, name) === 'exclude') continue;
    if (known === undefined) {
      // One that the table had before and that nobody was told of was a generated one.
      // What rows have of a default, the catalog tells of the partitions and not of their root.
      const isOfParts = after.partitioned && (column.preset !== undefined || column.filled === true);
      if (isAnew || isOfParts || Number(id) <= before.width) why ??= `column ${name} has values of its own in all rows`;
      continue;
    }
    if (hasRenamedLabels(known, column)) why ??= `labels of column ${name} have other names`;
    const isDefinedAnew =
      known.stamp !== column.stamp && (known.preset === undefined || known.preset !== column.preset);
    // A narrower type stops the table only in targets to whose own types it makes a difference.
    if (typeChange(known, column) !== 'same' || (isAnew && isDefinedAnew))
      why ??= `column ${name} has new values in all rows`;
  }
  return why;
}

function hasRenamedLabels({ labels: before = {} }: WrittenColumn, { labels: now = {} }: WrittenColumn): boolean {
  return Object.entries(now).some(([oid, label]) => before[oid] !== undefined && before[oid] !== label);
}

/** Targets may know a type by its own name, or by what stands for it. */
function typeChange(from: WrittenColumn, to: WrittenColumn): TypeChange {
  const own = classifyTypeChange(from.type, to.type);
  return own === 'narrower' ? classifyTypeChange(from.portable, to.portable) : own;
}

/** Whether a version of a table has every column that the catalog had, of the same type. */
export function hasColumnsOf({ schema }: CapturedTable, written: Written): boolean {
  const types = new Map(schema.columns.map(({ id, type }) => [id, type]));
  return Object.entries(written.columns).every(([id, { type }]) => types.get(Number(id)) === type);
}
