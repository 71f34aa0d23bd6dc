/** All that writing one version of one table needs, worked out once: names, key, and the fixed parts of statements. */
import { ReplicationError } from '../../core/errors.ts';
import type { RowChange, TableSchema, Value } from '../../core/frame.ts';
import { byteaText, qualifiedName, quoteLiteral, quoteName } from './sql.ts';

export interface TargetTable {
  readonly schema: string;
  readonly name: string;
  readonly oid: number;
  readonly columns: ReadonlyMap<string, TargetColumn>;
}

export interface TargetColumn {
  readonly type: string;
  readonly generated: boolean;
  readonly identityAlways: boolean;
}

/** Positions are indexes into the columns of the source table, as rows are. */
export interface TablePlan {
  readonly table: TableSchema;
  readonly target: TargetTable;
  /** `schema.name` of the source table: one for all its versions. */
  readonly id: string;
  readonly qualified: string;
  readonly names: readonly string[];
  readonly bytea: readonly boolean[];
  readonly key: readonly number[];
  /** Columns that are written; generated columns of the target are not. */
  readonly written: readonly number[];
  /** Written columns that an update may set. */
  readonly settable: readonly number[];
  /** Equal keys always have equal text, so that text may stand for the key. */
  readonly keyIsText: boolean;
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

/** What it takes to tell the key of a row. */
export type KeyShape = Pick<TablePlan, 'id' | 'names' | 'key'>;

let stages = 0;

export function keyShape(table: TableSchema): KeyShape {
  const id = `${table.schema}.${table.name}`;
  const key = table.key.map((name) => {
    const index = table.columns.findIndex((column) => column.name === name);
    if (index < 0) throw new ReplicationError('frame_unreadable', `table ${id} has no key column ${name}`);
    return index;
  });
  return { id, names: table.columns.map((column) => quoteName(column.name)), key };
}

export function createTablePlan(table: TableSchema, target: TargetTable): TablePlan {
  const names = table.columns.map((column) => quoteName(column.name));
  const indexes = table.columns.map((_, index) => index);
  const { key } = keyShape(table);
  const targetOf = (index: number): TargetColumn | undefined => target.columns.get(table.columns[index]!.name);
  const written = indexes.filter((index) => targetOf(index)?.generated === false);
  const settable = written.filter((index) => !key.includes(index) && targetOf(index)?.identityAlways === false);
  const qualified = qualifiedName(target.schema, target.name);
  const list = written.map((index) => names[index]).join(', ');
  const sets = settable.map((index) => `${names[index]} = EXCLUDED.${names[index]}`).join(', ');
  const stage = `pg_temp.wb_stage_${++stages}`;
  const stageColumns = written.map((index) => `${names[index]} ${targetOf(index)!.type}`).join(', ');
  return {
    table,
    target,
    id: `${table.schema}.${table.name}`,
    qualified,
    names,
    bytea: table.columns.map((column) => column.type === 'bytea' || column.portable === 'bytea'),
    key,
    written,
    settable,
    keyIsText: key.every((index) => TEXT_EQUALS_VALUE.test(table.columns[index]!.type)),
    insertHead: `INSERT INTO ${qualified} (${list}) OVERRIDING SYSTEM VALUE `,
    conflict:
      key.length === 0
        ? ''
        : ` ON CONFLICT (${key.map((index) => names[index]).join(', ')}) DO ${sets === '' ? 'NOTHING' : `UPDATE SET ${sets}`}`,
    stage,
    createStage: `CREATE TEMP TABLE IF NOT EXISTS ${stage.slice('pg_temp.'.length)} (wb_op int, ${stageColumns}) ON COMMIT DELETE ROWS`,
  };
}

/** The key of a row as one text. NUL cannot occur in a value, so joining with it is unambiguous. */
export function keyText(plan: KeyShape, image: readonly Value[], fallback?: readonly Value[]): string {
  const { key } = plan;
  if (key.length === 1) return keyValue(plan, key[0]!, image, fallback);
  let text = '';
  for (let i = 0; i < key.length; i++) text += `${i === 0 ? '' : '\0'}${keyValue(plan, key[i]!, image, fallback)}`;
  return text;
}

export function keyValue(plan: KeyShape, index: number, image: readonly Value[], fallback?: readonly Value[]): string {
  let value = image[index];
  if (typeof value !== 'string') value = fallback?.[index];
  if (typeof value === 'string') return value;
  throw new ReplicationError(
    'frame_unreadable',
    `a row of ${plan.id} has no value for key column ${plan.names[index]}`,
  );
}

/** The key that a change had before it, when it is an update that gives another one. */
export function changedKey(plan: KeyShape, row: RowChange): string | undefined {
  const before = row[4];
  const after = row[2];
  if (row[0] !== 'u' || before === undefined || after === null) return undefined;
  for (const index of plan.key) {
    const value = after[index];
    if (value !== 0 && value !== before[index]) return keyText(plan, before);
  }
  return undefined;
}

/** A value as an SQL literal without a cast: as in COPY, the column's own input function reads it. */
export function literal(plan: TablePlan, index: number, value: Value): string {
  if (typeof value !== 'string') return 'NULL';
  return quoteLiteral(plan.bytea[index] === true ? byteaText(value) : value);
}

export function comparedAsText(plan: TablePlan, index: number): boolean {
  return COMPARED_AS_TEXT.test(plan.table.columns[index]!.type);
}
