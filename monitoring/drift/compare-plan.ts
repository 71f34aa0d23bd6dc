/** What of two tables is compared, and how: columns that both have, kinds of text, and whether ranges of keys can be read. */
import { NO_COLUMN_RULES, type ColumnRules } from '../../core/column-rules.ts';
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
  /** Columns of the source that the target does not have, makes by itself, or holds encrypted. */
  readonly skipped: readonly string[];
}

/** `rules` are those of the source: what they hash or mask is compared as the stream carries it. */
export function comparePlan(
  source: SideTable,
  target: SideTable | undefined,
  rules: ColumnRules = NO_COLUMN_RULES,
): ComparePlan {
  const columns: { source: ComparedColumn; target: ComparedColumn; ordered: boolean }[] = [];
  const skipped: string[] = [];
  for (const column of source.columns) {
    const { name, type } = column;
    const rule = rules.ruleOf(source.schema, source.name, name);
    const other = target === undefined ? column : target.columns.find((each) => each.name === name);
    // A ciphertext is another one each time.
    if (other === undefined || rule === 'exclude' || rule?.rule === 'encrypt') {
      skipped.push(name);
      continue;
    }
    if (rule !== undefined) {
      columns.push({
        source: { name, type, kind: 'sized', guard: rule },
        target: { name, type: other.type, kind: 'sized' },
        ordered: false,
      });
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
  // Rows cannot be looked up by a hashed key: then they are told apart by their content.
  const keyed =
    key.length > 0 && key.every((index) => columns[index] !== undefined && !hasGuard(columns[index].source));
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

export function hasGuard(column: ComparedColumn): boolean {
  return column.guard !== undefined;
}

/** Buckets of about 256 rows: a power of two, less one. */
export function maskFor(rows: number, most: number): number {
  let size = 1;
  while (size < most && size * 256 < rows) size *= 2;
  return size - 1;
}
