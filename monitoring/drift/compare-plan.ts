/** What of two tables is compared, and how: columns that both have, kinds of text, and whether ranges of keys can be read. */
import { NO_COLUMN_RULES, type ColumnRules } from '../../core/column-rules.ts';
import { DELETED_AT } from '../../core/soft-deletes.ts';
import { isSized, textKind, type TextKind } from './canonical-text.ts';
import { crossKind, sortsAlike } from './cross-kind.ts';
import type { ComparedColumn, ComparedTable, SideColumn, SideTable, ZeroDates } from './side.ts';

export interface ComparePlan {
  readonly source: ComparedTable;
  /** undefined: the target has no such table. */
  readonly target: ComparedTable | undefined;
  /**
   * Keys sort the same on both sides, so that a range of keys means the same rows. Where that is believed and not so (two
   * builds of one collation), it costs time alone: each side has every row in one range at least, and what a range lacks or has
   * too much is looked up by its key before it counts.
   */
  readonly ranged: boolean;
  readonly keyed: boolean;
  readonly estimatedRows: number;
  /** Columns of the source that the target does not have, makes by itself, or holds encrypted. */
  readonly skipped: readonly string[];
  /** Those of them that the target should have: without them no row of the table is proven. */
  readonly lacking: readonly string[];
}

/**
 * `zeroDates`: what the flow makes of dates that the target does not have. `rules` are those of the source: what they hash
 * or mask is compared as the stream carries it. `marksDeleted`: rows that the target has marked as gone do not count.
 */
export function comparePlan(
  source: SideTable,
  target: SideTable | undefined,
  zeroDates: ZeroDates | 'reject' = 'reject',
  rules: ColumnRules = NO_COLUMN_RULES,
  marksDeleted = false,
): ComparePlan {
  const columns: { source: ComparedColumn; target: ComparedColumn; ordered: boolean }[] = [];
  const skipped: string[] = [];
  const lacking: string[] = [];
  for (const column of source.columns) {
    const { name, type } = column;
    const other = target === undefined ? column : target.columns.find((each) => each.name === name);
    const rule = rules.ruleOf(source.schema, source.name, name);
    // A ciphertext is another one each time.
    if (other === undefined || rule === 'exclude' || rule?.rule === 'encrypt') {
      skipped.push(name);
      if (other === undefined && rule !== 'exclude' && target?.generated?.includes(name) !== true) lacking.push(name);
      continue;
    }
    if (rule !== undefined) {
      columns.push({
        source: { name, type: column.base, kind: 'sized', guard: rule },
        target: { name, type: other.base, kind: 'sized' },
        ordered: false,
      });
      continue;
    }
    const crossing = source.dialect !== 'postgres' || (target !== undefined && target.dialect !== 'postgres');
    const kind = crossing ? crossKindOf(source, column, target ?? source, other) : textKind(type, other.type);
    const zeros =
      zeroDates !== 'reject' && target?.dialect === 'postgres' && source.dialect !== 'postgres'
        ? { zeroDates }
        : undefined;
    columns.push({
      // Of a domain its own output is what its base type prints.
      source: { name, type: crossing ? column.base : type, kind, ...zeros },
      target: { name, type: crossing ? other.base : other.type, kind },
      ordered:
        column.order !== undefined && column.order === other.order && ordersAlike(kind, crossing, type === other.type),
    });
  }
  const key = source.key.map((name) => columns.findIndex((column) => column.source.name === name));
  // Rows cannot be looked up by a hashed key: then they are told apart by their content.
  const keyed = key.length > 0 && key.every((index) => index >= 0 && columns[index]!.source.guard === undefined);
  const hash =
    source.dialect === 'postgres' && (target === undefined || target.dialect === 'postgres') ? 'md5' : 'sha256';
  const shared = { hash, key: keyed ? key : [] } as const;
  return {
    source: {
      dialect: source.dialect,
      schema: source.schema,
      name: source.name,
      columns: columns.map((column) => column.source),
      ...(source.isParent === true ? { isParent: true } : {}),
      ...shared,
    },
    target:
      target === undefined
        ? undefined
        : {
            dialect: target.dialect,
            schema: target.schema,
            name: target.name,
            columns: columns.map((column) => column.target),
            ...(target.isParent === true ? { isParent: true } : {}),
            ...(marksDeleted && target.columns.some(({ name }) => name === DELETED_AT)
              ? { deletedAt: DELETED_AT }
              : {}),
            ...shared,
          },
    ranged: keyed && key.every((index) => columns[index]!.ordered),
    keyed,
    estimatedRows: Math.max(source.estimatedRows, target?.estimatedRows ?? 0),
    skipped,
    lacking,
  };
}

function crossKindOf(source: SideTable, column: SideColumn, target: SideTable, other: SideColumn): TextKind {
  return crossKind({ dialect: source.dialect, type: column.base }, { dialect: target.dialect, type: other.base });
}

function ordersAlike(kind: TextKind, crossing: boolean, sameType: boolean): boolean {
  if (crossing) return sortsAlike(kind) || kind === 'sized';
  return sameType || !isSized(kind);
}

/** Buckets of about 256 rows: a power of two, less one. */
export function maskFor(rows: number, most: number): number {
  let size = 1;
  while (size < most && size * 256 < rows) size *= 2;
  return size - 1;
}
