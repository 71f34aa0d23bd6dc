/** What of a target table does not fit the source's table: names, types, keys, collations. */
import { dialectOf, parseTypeText } from '../../core/column-kind.ts';
import type { FlowConfig } from '../../core/config.ts';
import type { ColumnSchema, TableSchema } from '../../core/frame.ts';
import { DELETED_AT } from '../../core/soft-deletes.ts';
import { leftBehind } from '../soft-problems.ts';
import type { ColumnMapping } from '../type-mapping.ts';
import { qualifiedName, quoteName } from './sql.ts';
import { DELETED_AT_TYPE, exactCollation, mappingsOf } from './table-ddl.ts';

export interface TargetColumn {
  readonly name: string;
  /** COLUMN_TYPE, e.g. `bigint unsigned`. */
  readonly type: string;
  readonly notNull: boolean;
  readonly defaulted: boolean;
  /** The default as SQL. */
  readonly fallback: string | undefined;
  readonly generated: boolean;
  readonly autoIncrement: boolean;
  readonly collation: string | undefined;
  readonly charset: string | undefined;
}

export interface FoundTable {
  /** By lower-case name: column names do not differ by case. */
  readonly columns: ReadonlyMap<string, TargetColumn>;
  /** Lower-case column names of each unique index over whole columns. */
  readonly uniques: readonly ReadonlySet<string>[];
  /** Lower-case column names of the primary key, in its order. */
  readonly primary: readonly string[];
}

const MAX_NAME = 64;

/** Every reason why the table cannot be written; `found` is undefined for one that will be made. */
export function shapeProblems(
  table: TableSchema,
  schema: string,
  found: FoundTable | undefined,
  flavour: 'mysql' | 'mariadb',
  deletes: FlowConfig['deletes'],
): string[] {
  const problems: string[] = [];
  const mappings = mappingsOf(table, flavour);
  const names = new Set<string>();
  for (const [index, column] of table.columns.entries()) {
    const lower = column.name.toLowerCase();
    if (column.name.length > MAX_NAME)
      problems.push(`column ${column.name}: names have at most ${MAX_NAME} characters`);
    if (names.has(lower)) problems.push(`column ${column.name}: another column differs from it only by case`);
    names.add(lower);
    const mapping = mappings[index]!;
    const target = found?.columns.get(lower);
    if (target === undefined) {
      if (mapping.type.kind === 'none')
        problems.push(
          `column ${column.name} (${column.type}) has no type here: ${mapping.type.reason}; exclude the table, or narrow the column at the source`,
        );
      continue;
    }
    const misfit = typeMisfit(column, mapping, target);
    if (misfit !== undefined) problems.push(misfit);
  }
  if (table.name.length > MAX_NAME) problems.push(`its name is longer than ${MAX_NAME} characters`);
  if (found !== undefined) problems.push(...keyProblems(table, schema, found, flavour), ...extraProblems(found, names));
  const own = names.has(DELETED_AT) ? undefined : found?.columns.get(DELETED_AT);
  if (own !== undefined) problems.push(...markerProblems(own, deletes, qualifiedName(schema, table.name)));
  return problems;
}

export function typeMisfit(column: ColumnSchema, mapping: ColumnMapping, target: TargetColumn): string | undefined {
  const type = parseTypeText(target.type);
  if (!mapping.accepts.has(type.name) && !sameType(mapping, type.name))
    return `column ${column.name} is ${target.type} in the target and ${column.type} in the source; change it to one of: ${[...mapping.accepts].join(', ') || 'none fits'}`;
  const room = type.name === 'decimal' ? (type.args[1] ?? 0) : (type.args[0] ?? 0);
  const counted = /^(decimal|datetime|timestamp|time)$/.test(type.name);
  if (mapping.scale !== undefined && counted && room < mapping.scale)
    return `column ${column.name} is ${target.type} in the target and keeps ${room} of the ${mapping.scale} fractional digits of ${column.type}; widen it`;
  return undefined;
}

function sameType({ type }: ColumnMapping, name: string): boolean {
  return type.kind === 'plain' && parseTypeText(type.sql).name === name;
}

function keyProblems(table: TableSchema, schema: string, found: FoundTable, flavour: 'mysql' | 'mariadb'): string[] {
  if (table.key.length === 0) return [];
  const key = table.key.map((name) => name.toLowerCase());
  const unique = found.uniques.some((columns) => columns.size === key.length && key.every((name) => columns.has(name)));
  if (!unique)
    return [
      `it has no unique index on its key columns (${table.key.join(', ')}); ALTER TABLE ${qualifiedName(schema, table.name)} ADD PRIMARY KEY (${table.key.map(quoteName).join(', ')})`,
    ];
  const problems: string[] = [];
  for (const name of table.key) {
    const target = found.columns.get(name.toLowerCase())!;
    const source = table.columns.find((column) => column.name === name)!;
    const modify = `ALTER TABLE ${qualifiedName(schema, table.name)} MODIFY ${quoteName(target.name)} ${target.type}`;
    if (!target.notNull) problems.push(`key column ${name} may be NULL; ${modify} NOT NULL`);
    if (!comparesAlike(target, source, table))
      problems.push(
        `key column ${name} has collation ${target.collation}, which may take two keys of the source for one; ${modify} CHARACTER SET utf8mb4 COLLATE ${exactCollation(flavour)} NOT NULL`,
      );
  }
  return problems;
}

/** Whether the collation is exact, or the source's own. */
function comparesAlike(target: TargetColumn, source: ColumnSchema, table: TableSchema): boolean {
  if (target.collation === undefined || isExact(target) || /^(enum|set)\b/.test(target.type)) return true;
  return dialectOf(table) !== 'postgres' && source.collation === target.collation;
}

/** Whether equal keys always have the same text in this column. */
export function isExact({ collation }: TargetColumn): boolean {
  return collation === undefined || /(_0900_bin|_nopad_bin|^binary)$/.test(collation);
}

/** What is wrong with the column of ours that says since when a row is gone. */
function markerProblems(found: TargetColumn, deletes: FlowConfig['deletes'], qualified: string): string[] {
  if (deletes !== 'soft') return [leftBehind(qualified, quoteName(found.name))];
  const fits = found.type === DELETED_AT_TYPE && !found.notNull && !found.generated;
  return fits ? [] : [`column ${found.name} is ${found.type}; deletes: soft needs it as ${DELETED_AT_TYPE}, and NULL`];
}

function extraProblems(found: FoundTable, known: ReadonlySet<string>): string[] {
  return [...found.columns]
    .filter(([name, column]) => !known.has(name) && column.notNull && !column.defaulted && !column.generated)
    .map(([, { name, type }]) => `column ${name} (${type}) is not in the source, and is NOT NULL without a default`);
}
