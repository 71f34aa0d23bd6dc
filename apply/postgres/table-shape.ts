/** What of a table that a target has does not fit the source's table: names, types, columns of its own. */
import { dialectOf } from '../../core/column-kind.ts';
import type { FlowConfig } from '../../core/config.ts';
import type { TableSchema } from '../../core/frame.ts';
import { mapToPostgres } from '../type-mapping.ts';
import { DELETED_AT } from '../../core/soft-deletes.ts';
import { leftBehind, softProblems } from '../soft-problems.ts';
import { qualifiedName, quoteName } from './sql.ts';
import type { TargetColumn } from './table-plan.ts';

/** What of a flow's settings says how its tables are shaped. */
export type ShapeSettings = Pick<FlowConfig, 'zero_dates' | 'deletes'>;

export interface FoundColumn extends TargetColumn {
  readonly name: string;
  readonly notNull: boolean;
  readonly defaulted: boolean;
}

export interface FoundTable {
  readonly oid: number;
  readonly holdsRows: boolean;
  readonly columns: FoundColumn[];
}

/** Type of the column that says since when a row is gone. */
export const DELETED_AT_TYPE = 'timestamp with time zone';

/** Most bytes of a name in Postgres. */
const MAX_NAME_BYTES = 63;

/** Why a table of this source cannot be written by this flow to Postgres; empty when it can. */
export function sourceProblems(table: TableSchema, settings: ShapeSettings): string[] {
  return [...softProblems(table, settings), ...foreignProblems(table, settings)];
}

/** Why a table of another kind of source cannot be written to Postgres; empty when it can. */
export function foreignProblems(table: TableSchema, settings: ShapeSettings): string[] {
  const dialect = dialectOf(table);
  if (dialect === 'postgres') return [];
  const long = [table.name, ...table.columns.map((column) => column.name)].filter(
    (name) => Buffer.byteLength(name) > MAX_NAME_BYTES,
  );
  return [
    ...long.map(
      (name) => `the name ${name} has more than ${MAX_NAME_BYTES} bytes; exclude the table, or rename it at the source`,
    ),
    ...table.columns
      .filter((column) => mapToPostgres(column, dialect, settings) === undefined)
      .map((column) => `column ${column.name} (${column.type}) has no type here; exclude the table`),
  ];
}

/**
 * Why rows of a version of a source table, of which the columns have the types `types` here, cannot be written to what the
 * target has. Of columns that it lacks nothing is said: they are added.
 */
export function columnProblems(
  table: TableSchema,
  found: FoundTable,
  types: ReadonlyMap<string, string>,
  settings: ShapeSettings,
  schema: string,
): string[] {
  const dialect = dialectOf(table);
  const byName = new Map(found.columns.map((column) => [column.name, column]));
  const problems: string[] = [];
  for (const column of table.columns) {
    const target = byName.get(column.name);
    byName.delete(column.name);
    if (target === undefined) continue;
    const mapped = types.get(column.name) ?? column.type;
    const fits =
      dialect === 'postgres'
        ? accepts(target.type, mapped) || accepts(target.type, column.portable)
        : accepts(target.type, mapped) ||
          mapToPostgres(column, dialect, settings)!.accepts.has(target.type.replace(/\([^)]*\)/, ''));
    if (!fits) problems.push(`column ${column.name} is ${target.type} in the target and ${column.type} in the source`);
  }
  for (const extra of byName.values())
    if (extra.name === DELETED_AT) problems.push(...markerProblems(extra, settings, qualifiedName(schema, table.name)));
    else if (extra.notNull && !extra.defaulted && !extra.generated)
      problems.push(`column ${extra.name} (${extra.type}) is not in the source, and is NOT NULL without a default`);
  return problems;
}

/** What is wrong with the column of ours that says since when a row is gone. */
function markerProblems(found: FoundColumn, { deletes }: ShapeSettings, qualified: string): string[] {
  if (deletes !== 'soft') return [leftBehind(qualified, quoteName(DELETED_AT))];
  const fits = found.type === DELETED_AT_TYPE && !found.notNull && !found.generated;
  return fits ? [] : [`column ${DELETED_AT} is ${found.type}; deletes: soft needs it as ${DELETED_AT_TYPE}, and NULL`];
}

const FAMILIES: readonly RegExp[] = [
  /^(smallint|integer|bigint|numeric|oid)/,
  /^(real|double precision|numeric)/,
  /^(character|bpchar|text|citext|name)/,
  /^(json|jsonb)$/,
  /^(inet|cidr)$/,
];

/** Whether a column of type `target` reads the text of type `source`. Rows that do not fit go to quarantine. */
export function accepts(target: string, source: string): boolean {
  const bare = (type: string): string => type.replace(/\([^)]*\)/, '');
  if (bare(target) === bare(source)) return true;
  if (/^(text|citext|character varying)$/.test(target)) return true;
  if (bare(source) === 'date' && target.startsWith('timestamp')) return true;
  if (target.endsWith('[]') !== source.endsWith('[]')) return false;
  return FAMILIES.some((family) => family.test(target) && family.test(source));
}
