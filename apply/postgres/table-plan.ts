/** All that writing one version of one table needs, worked out once: names, key, and the fixed parts of statements. */
import { dialectOf, isBinaryColumn } from '../../core/column-kind.ts';
import type { TableSchema, Value } from '../../core/frame.ts';
import { DELETED_AT, deletedAtText } from '../../core/soft-deletes.ts';
import type { PlanShape } from '../table-changes.ts';
import { keyShape } from '../row-key.ts';
import { mapToPostgres } from '../type-mapping.ts';
import { ValueMisfit, type Convert } from '../value-misfit.ts';
import type { ShapeSettings } from './table-shape.ts';
import { byteaText, qualifiedName, quoteLiteral, quoteName } from './sql.ts';

export interface TargetTable {
  readonly schema: string;
  readonly name: string;
  readonly oid: number;
  /** It holds its rows itself: no partitions, no view. */
  readonly holdsRows: boolean;
  readonly columns: ReadonlyMap<string, TargetColumn>;
}

export interface TargetColumn {
  readonly type: string;
  readonly generated: boolean;
  readonly identityAlways: boolean;
}

/**
 * Positions are indexes into the columns of the source table, as rows are. `written` leaves out the generated columns of
 * the target.
 */
export interface TablePlan extends PlanShape {
  readonly target: TargetTable;
  readonly qualified: string;
  /** The same in statements about rows that are there: without those of tables that inherit from it. */
  readonly rows: string;
  readonly bytea: readonly boolean[];
  /** For columns whose text is not what Postgres reads. */
  readonly convert: readonly (Convert | undefined)[];
  /** Whether any column is converted. */
  readonly converts: boolean;
  /** Its images are the values to write, of all columns and none besides, as the texts that SQL reads. */
  readonly takesTexts: boolean;
  /** Written columns that an update may set. */
  readonly settable: readonly number[];
  /** Equal keys always have equal text, so that text may stand for the key. */
  readonly keyIsText: boolean;
  /** The column that says since when a row is gone, quoted, where deleted rows stay. */
  readonly deletedAt: string | undefined;
  readonly insertHead: string;
  readonly conflict: string;
  readonly stage: string;
  readonly createStage: string;
}

const TEXT_EQUALS_VALUE =
  /^(smallint|integer|bigint|uuid|boolean|date|text|character varying|bytea|numeric\(|timestamp|oid)/;
/** Types without an equality, or whose equality is not identity: compared as text. */
const COMPARED_AS_TEXT =
  /^(json$|json\[|xml|point|polygon|box|path|line|lseg|circle|xid|cid|tid|pg_snapshot|real|double)/;

let stages = 0;

export function createTablePlan(table: TableSchema, target: TargetTable, settings: ShapeSettings): TablePlan {
  const dialect = dialectOf(table);
  const mappings = table.columns.map((column) =>
    dialect === 'postgres' ? undefined : mapToPostgres(column, dialect, settings),
  );
  const names = table.columns.map((column) => quoteName(column.name));
  const indexes = table.columns.map((_, index) => index);
  const { id, key } = keyShape(table);
  const targetOf = (index: number): TargetColumn | undefined => target.columns.get(table.columns[index]!.name);
  const written = indexes.filter((index) => targetOf(index)?.generated === false);
  const settable = written.filter((index) => !key.includes(index) && targetOf(index)?.identityAlways === false);
  const qualified = qualifiedName(target.schema, target.name);
  const deletedAt = settings.deletes === 'soft' ? quoteName(DELETED_AT) : undefined;
  const own = deletedAt === undefined ? [] : [deletedAt];
  const list = [...written.map((index) => names[index]), ...own].join(', ');
  const sets = [...settable.map((index) => names[index]!), ...own]
    .map((name) => `${name} = EXCLUDED.${name}`)
    .join(', ');
  const stage = `pg_temp.wb_stage_${++stages}`;
  const takesLines = written.length === indexes.length && mappings.every((mapping) => mapping?.convert === undefined);
  const bytea = table.columns.map((column) => isBinaryColumn(dialect, column));
  const stageColumns = [
    'wb_op int',
    ...(deletedAt === undefined ? [] : ['wb_at timestamptz']),
    ...written.map((index) => `${names[index]} ${targetOf(index)!.type}`),
  ].join(', ');
  return {
    table,
    target,
    id,
    qualified,
    rows: target.holdsRows ? `ONLY ${qualified}` : qualified,
    names,
    bytea,
    convert: mappings.map((mapping) => mapping?.convert),
    converts: mappings.some((mapping) => mapping?.convert !== undefined),
    key,
    written,
    // Lines of COPY are as the source prints them, which has bytea in hexadecimal digits.
    takesLines: dialect === 'postgres' && takesLines,
    takesTexts: takesLines && deletedAt === undefined && !bytea.includes(true),
    settable,
    marksDeleted: deletedAt !== undefined,
    deletedAt,
    keyIsText: key.every((index) => TEXT_EQUALS_VALUE.test(mappings[index]?.type ?? table.columns[index]!.type)),
    insertHead: `INSERT INTO ${qualified} (${list}) OVERRIDING SYSTEM VALUE `,
    conflict:
      key.length === 0
        ? ''
        : ` ON CONFLICT (${key.map((index) => names[index]).join(', ')}) DO ${sets === '' ? 'NOTHING' : `UPDATE SET ${sets}`}`,
    stage,
    createStage: `CREATE TEMP TABLE IF NOT EXISTS ${stage.slice('pg_temp.'.length)} (${stageColumns}) ON COMMIT DELETE ROWS`,
  };
}

/** A moment as the text of a timestamptz. */
export function momentText(timeUs: number): string {
  return `${deletedAtText(timeUs)}+00`;
}

/** A value as an SQL literal without a cast: as in COPY, the column's own input function reads it. Throws `ValueMisfit`. */
export function literal(plan: TablePlan, index: number, value: Value): string {
  if (typeof value !== 'string') return 'NULL';
  const convert = plan.convert[index];
  if (convert === undefined && plan.bytea[index] === true) return quoteLiteral(byteaText(value));
  const text = convert === undefined ? value : convert(value);
  if (text === null) return 'NULL';
  // It would end the statement: the server then speaks of a broken connection, not of a value.
  if (text.includes('\0')) throw new ValueMisfit('the text holds a NUL character, which PostgreSQL does not have');
  return quoteLiteral(text);
}

/** Whether values of a column may be equal though their texts differ. */
export function equalsLoosely(plan: TablePlan, index: number): boolean {
  const type = plan.target.columns.get(plan.table.columns[index]!.name)?.type ?? '';
  return !TEXT_EQUALS_VALUE.test(type) && !comparedAsText(plan, index);
}

export function comparedAsText(plan: TablePlan, index: number): boolean {
  const column = plan.table.columns[index]!;
  // A float's text differs between the databases, and what a type is called says nothing of Postgres.
  if (dialectOf(plan.table) !== 'postgres') return plan.target.columns.get(column.name)?.type === 'json';
  return COMPARED_AS_TEXT.test(column.type);
}
