/** What of two tables is compared, and how: columns that both have, kinds of text, and whether ranges of keys can be read. */
import { isSized, textKind } from './canonical-text.ts';
import type { ComparedColumn, ComparedTable, SideTable } from './side.ts';

export interface ComparePlan {
  readonly source: ComparedTable;
  /** undefined: the target has no such table. */
  readonly target: ComparedTable | undefined;
  /** Keys sort the same on both sides, so that a range of keys means the same rows. */
  readonly ranged: boolean;
  readonly keyed: boolean;
  readonly estimatedRows: number;
  /** Columns of the source that the target does not have, or makes by itself. */
  readonly skipped: readonly string[];
}

export function comparePlan(source: SideTable, target: SideTable | undefined): ComparePlan {
  const columns: { source: ComparedColumn; target: ComparedColumn; ordered: boolean }[] = [];
  const skipped: string[] = [];
  for (const column of source.columns) {
    const { name, type } = column;
    const other = target === undefined ? column : target.columns.find((each) => each.name === name);
    if (other === undefined) {
      skipped.push(name);
      continue;
    }
    const kind = textKind(type, other.type);
    columns.push({
      source: { name, type, kind },
      target: { name, type: other.type, kind },
      ordered: column.ordered && other.ordered && (type === other.type || !isSized(kind)),
    });
  }
  const key = source.key.map((name) => columns.findIndex((column) => column.source.name === name));
  const keyed = key.length > 0 && !key.includes(-1);
  const shared = { key: keyed ? key : [] };
  return {
    source: {
      schema: source.schema,
      name: source.name,
      columns: columns.map((column) => column.source),
      ...shared,
    },
    target:
      target === undefined
        ? undefined
        : { schema: target.schema, name: target.name, columns: columns.map((column) => column.target), ...shared },
    ranged: keyed && key.every((index) => columns[index]!.ordered),
    keyed,
    estimatedRows: Math.max(source.estimatedRows, target?.estimatedRows ?? 0),
    skipped,
  };
}

/** Buckets of about 256 rows: a power of two, less one. */
export function maskFor(rows: number, most: number): number {
  let size = 1;
  while (size < most && size * 256 < rows) size *= 2;
  return size - 1;
}
