/** What a new version of a table means for the rows that are there. docs/schema-changes.md. */
import { isBinaryColumn } from '../../core/column-kind.ts';
import type { ColumnRules } from '../../core/column-rules.ts';
import type { ColumnSchema, TableSchema } from '../../core/frame.ts';
import { classifyMysqlTypeChange } from '../../core/mysql-type-widening.ts';
import type { CapturedTable } from './catalog.ts';
import type { Statements } from './told-tables.ts';

export interface TableChange {
  /** The new version, with what the rows that were there have in its new columns, where that can be told. */
  readonly table: CapturedTable;
  /** Why the table must be read again, for rows may have changed without a change in the log; undefined when not. */
  readonly reread: string | undefined;
  /** Whether a type may have lost values: in targets to whose own types it makes a difference a person has to say what then. */
  readonly isNarrower: boolean;
}

const CONSTANT = /^(?:-?\d+(?:\.\d+)?|'(?:[^'\\]|'')*')$/;

/**
 * Compares two versions of a table. `statements` made the one the other, where they are known; `isTold`: the stream knows
 * the one before. Columns that `rules` leave out are nobody's, and those that they change have no types that could be narrower.
 */
export function compareTables(
  before: CapturedTable,
  after: CapturedTable,
  {
    isTold,
    statements,
    rules,
  }: { readonly isTold: boolean; readonly statements: Statements | undefined; readonly rules: ColumnRules },
): TableChange {
  const old = new Map(before.schema.columns.map((column) => [column.name, column]));
  const generated = new Set(before.columns.filter((column) => column.generated).map(({ schema }) => schema.name));
  const moved = movedName(before, after, statements);
  const reasons = moved === undefined ? [] : [mayBeRenamed(moved)];
  // Whatever has another type under its name is another column, and lost no values.
  const isAnother = moved !== undefined || statements?.exchanges === true || statements?.retypes === false;
  let isNarrower = false;
  const filled = new Map<ColumnSchema, ColumnSchema>();
  for (const column of after.columns) {
    const { schema } = column;
    const rule = rules.ruleOf(after.schema.schema, after.schema.name, schema.name);
    if (column.generated || rule === 'exclude') continue;
    const known = old.get(schema.name);
    if (known === undefined) {
      if (generated.has(schema.name)) {
        reasons.push(`column ${schema.name} was a generated one`);
        continue;
      }
      const existing = existingText(after.schema, schema);
      // Its values are those that it had then, whatever its default is.
      if (before.schema.columns.some(({ name }) => !after.schema.columns.some((each) => each.name === name)))
        reasons.push(mayBeRenamed(schema.name));
      else if (existing !== undefined) filled.set(schema, { ...schema, existing });
      else if (schema.notNull || schema.default !== undefined || column.computed)
        reasons.push(`column ${schema.name} has values of its own in all rows`);
      continue;
    }
    if (!isTold && known.existing !== undefined) filled.set(schema, { ...schema, existing: known.existing });
    const change = classifyMysqlTypeChange(known.type, schema.type);
    if (change === 'narrower' && !isAnother && rule === undefined) isNarrower = true;
    if (change !== 'same') reasons.push(`column ${schema.name} has another type`);
    else if (known.collation !== schema.collation) reasons.push(`column ${schema.name} has another collation`);
    else if (schema.notNull && !known.notNull) reasons.push(`column ${schema.name} may not be NULL any more`);
  }
  if (before.schema.key.join('\0') !== after.schema.key.join('\0')) reasons.push('it has another key');
  const fill = (schema: ColumnSchema): ColumnSchema => filled.get(schema) ?? schema;
  return {
    table:
      filled.size === 0
        ? after
        : {
            ...after,
            schema: { ...after.schema, columns: after.schema.columns.map(fill) },
            columns: after.columns.map((column) => ({ ...column, schema: fill(column.schema) })),
          },
    reread: reasons[0],
    isNarrower,
  };
}

function mayBeRenamed(name: string): string {
  return `column ${name} may be one that had another name`;
}

/**
 * The first column whose place tells that it had another name: these servers number no columns, but those that no statement
 * dropped or gave a place keep theirs, and new ones come behind them.
 */
function movedName(
  before: CapturedTable,
  after: CapturedTable,
  statements: Statements | undefined,
): string | undefined {
  if (statements?.places === true) return undefined;
  const [was, is] = [before, after].map(({ columns }) => columns.map(({ schema }) => schema.name)) as [
    string[],
    string[],
  ];
  if (statements !== undefined && !statements.drops) return was.length > is.length ? undefined : differing(was, is);
  // Columns that are gone, and new ones wherever they came, leave the others in their order.
  return differing(
    was.filter((name) => is.includes(name)),
    is.filter((name) => was.includes(name)),
  );
}

function differing(was: readonly string[], is: readonly string[]): string | undefined {
  return is.slice(0, was.length).find((name, index) => name !== was[index]);
}

/** The text that a constant default has in rows, where that is the one that frames carry. */
function existingText(table: TableSchema, column: ColumnSchema): string | undefined {
  const text = column.default;
  if (text === undefined || !CONSTANT.test(text) || isBinaryColumn(table.dialect!, column)) return undefined;
  const value = text.startsWith("'") ? text.slice(1, -1).replaceAll("''", "'") : text;
  // Numbers and texts of these types stand in rows as they are written; others may get another form.
  if (/^(?:tiny|small|medium|big)?int\b/.test(column.type) && /^-?\d+$/.test(value) && !/zerofill/.test(column.type))
    return value;
  return /^(?:varchar|tinytext|text|mediumtext|longtext)\b/.test(column.type) ? value : undefined;
}
