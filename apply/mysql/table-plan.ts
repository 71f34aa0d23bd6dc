/** All that writing one version of one table needs, worked out once: names, key, and the fixed parts of statements. */
import { parseTypeText } from '../../core/column-kind.ts';
import type { FlowConfig } from '../../core/config.ts';
import type { TableSchema, Value } from '../../core/frame.ts';
import { DELETED_AT } from '../../core/soft-deletes.ts';
import type { PlanShape } from '../table-changes.ts';
import { keyShape } from '../row-key.ts';
import type { ColumnMapping } from '../type-mapping.ts';
import { qualifiedName, quoteLiteral, quoteName } from './sql.ts';
import { DELETED_AT_TYPE, mappingsOf } from './table-ddl.ts';
import { isExact, type TargetColumn } from './table-shape.ts';
import type { TargetTable } from './target-table.ts';

/** Positions are indexes into the columns of the source table, as rows are. */
export interface TablePlan extends PlanShape {
  readonly target: TargetTable;
  readonly qualified: string;
  readonly mappings: readonly ColumnMapping[];
  /** Columns of the target, by position; undefined for one that the target lacks. */
  readonly columns: readonly (TargetColumn | undefined)[];
  /** Columns that hold numbers, whose literals need no quotes and compare exactly without. */
  readonly numeric: readonly boolean[];
  /** Columns of type FLOAT, which never equal the double that a text is read as. */
  readonly floats: readonly boolean[];
  /** Written columns that are not part of the key. */
  readonly settable: readonly number[];
  /** Equal keys always have equal text, so that text may stand for the key. */
  readonly keyIsText: boolean;
  /** The column that says since when a row is gone, quoted, where deleted rows stay. */
  readonly deletedAt: string | undefined;
  readonly insertHead: string;
  /** What turns an INSERT of values, or of rows of `stage s`, into an upsert; empty for a table without a key. */
  readonly upsertValues: string;
  readonly upsertStaged: string;
  readonly stage: string;
  readonly createStage: string;
}

const NUMBERS = /^(tinyint|smallint|mediumint|int|bigint|decimal)$/;
let stages = 0;

export function createTablePlan(table: TableSchema, target: TargetTable, deletes: FlowConfig['deletes']): TablePlan {
  const { id, key } = keyShape(table);
  const columns = table.columns.map(({ name }) => target.columns.get(name.toLowerCase()));
  const names = table.columns.map(({ name }, index) => quoteName(columns[index]?.name ?? name));
  const written = columns.flatMap((column, index) => (column === undefined || column.generated ? [] : [index]));
  const settable = written.filter((index) => !key.includes(index));
  const qualified = qualifiedName(target.schema, target.name);
  const stage = qualifiedName('waybill', `wb_stage_${++stages}`);
  const deletedAt = deletes === 'soft' ? quoteName(DELETED_AT) : undefined;
  const own = deletedAt === undefined ? [] : [deletedAt];
  const mappings = mappingsOf(table, target.flavour);
  const plan = {
    table,
    target,
    id,
    key,
    names,
    columns,
    written,
    settable,
    marksDeleted: deletedAt !== undefined,
    deletedAt,
    qualified,
    mappings,
    takesLines: written.length === columns.length && mappings.every(({ convert }) => convert === undefined),
    numeric: columns.map((column) => column !== undefined && NUMBERS.test(parseTypeText(column.type).name)),
    floats: columns.map((column) => column !== undefined && parseTypeText(column.type).name === 'float'),
    keyIsText: key.every((index) => isExact(columns[index]!)),
    insertHead: `INSERT INTO ${qualified} (${[...written.map((index) => names[index]), ...own].join(', ')}) `,
    stage,
    // With a key of its own: sql_require_primary_key asks for one of temporary tables, too.
    createStage: `CREATE TEMPORARY TABLE ${stage} (${['wb_n bigint NOT NULL AUTO_INCREMENT PRIMARY KEY', 'wb_op int NOT NULL', ...own.map((name) => `${name} ${DELETED_AT_TYPE} NULL`), ...written.map((index) => stageColumn(columns[index]!))].join(', ')}) ENGINE=InnoDB`,
  };
  const oldStyle = (name: string): string => `VALUES(${name})`;
  const mysql = target.flavour === 'mysql';
  return {
    ...plan,
    upsertValues:
      key.length === 0 ? '' : `${mysql ? ' AS wb' : ''}${upsertSql(plan, mysql ? (n) => `wb.${n}` : oldStyle)}`,
    upsertStaged: key.length === 0 ? '' : upsertSql(plan, mysql ? (n) => `s.${n}` : oldStyle),
  };
}

function stageColumn({ name, type, charset, collation }: TargetColumn): string {
  // COLUMN_TYPE shows characters beyond the basic plane in labels as question marks: the table itself knows its labels.
  const staged = /^(enum|set)\b/i.test(type) ? 'longtext' : type;
  return `${quoteName(name)} ${staged}${collation === undefined ? '' : ` CHARACTER SET ${charset} COLLATE ${collation}`} NULL`;
}

/**
 * ON DUPLICATE KEY fires on every unique index. Invariant 3: where the row that is in the way has another key, the
 * statement must fail rather than change that row. Assigning NULL to a key column fails, except that an AUTO_INCREMENT
 * column silently becomes 0; there an integer out of range fails.
 */
function upsertSql(
  {
    key,
    names,
    qualified,
    columns,
    settable,
    deletedAt,
  }: Pick<TablePlan, 'key' | 'names' | 'qualified' | 'columns' | 'settable' | 'deletedAt'>,
  given: (name: string) => string,
): string {
  const own = (index: number): string => `${qualified}.${names[index]}`;
  const same = key.map((index) => `${own(index)} <=> ${given(names[index]!)}`).join(' AND ');
  const guard = key.find((index) => !columns[index]!.autoIncrement) ?? key[0]!;
  const mine = given(names[guard]!);
  const failure = columns[guard]!.autoIncrement ? `${mine} * 0 - 9223372036854775807 - 2` : 'NULL';
  const sets = [
    `${own(guard)} = IF(${same}, ${mine}, ${failure})`,
    ...key.filter((index) => index !== guard).map((index) => `${own(index)} = ${given(names[index]!)}`),
    ...settable.map((index) => `${own(index)} = ${given(names[index]!)}`),
    ...(deletedAt === undefined ? [] : [`${qualified}.${deletedAt} = ${given(deletedAt)}`]),
  ];
  return ` ON DUPLICATE KEY UPDATE ${sets.join(', ')}`;
}

const NUMBER = /^-?\d+(\.\d+)?$/;

/** A value as an SQL literal. Throws `ValueMisfit`. */
export function literal(plan: TablePlan, index: number, value: Value | undefined): string {
  if (typeof value !== 'string') return 'NULL';
  const { carrier, convert } = plan.mappings[index]!;
  const text = convert === undefined ? value : convert(value);
  if (text === null) return 'NULL';
  if (carrier === 'base64') return `FROM_BASE64('${text}')`;
  if (carrier === 'number' || (plan.numeric[index] === true && NUMBER.test(text))) return text;
  return quoteLiteral(text);
}
