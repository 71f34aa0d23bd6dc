/** One change as SQL text, complete in itself: for small batches and for tables without a key. */
import { parseTypeText } from '../../core/column-kind.ts';
import type { RowChange, Value } from '../../core/frame.ts';
import { changedKey, filledImage, isPartial, keyValue } from '../row-key.ts';
import { deletedAtText } from '../../core/soft-deletes.ts';
import { quoteLiteral } from './sql.ts';
import { exactCollation } from './table-ddl.ts';
import { literal, type TablePlan } from './table-plan.ts';

/** `(…)` with the values of a full image; `deletedAtUs` of a row that is gone, where such rows stay. */
export function valuesTuple(plan: TablePlan, image: readonly Value[], deletedAtUs?: number): string {
  let text = '(';
  for (let i = 0; i < plan.written.length; i++) {
    const index = plan.written[i]!;
    text += `${i === 0 ? '' : ', '}${literal(plan, index, image[index])}`;
  }
  if (plan.deletedAt === undefined) return `${text})`;
  return `${text}${text === '(' ? '' : ', '}${deletedAtUs === undefined ? 'NULL' : quoteLiteral(deletedAtText(deletedAtUs))})`;
}

/** Deletes rows, or marks them as gone since `timeUs` (microseconds since 1970; left out: since now). */
export function deleteSql(plan: TablePlan, where: string, timeUs?: number): string {
  if (plan.deletedAt === undefined) return `DELETE FROM ${plan.qualified} WHERE ${where}`;
  const at = timeUs === undefined ? 'UTC_TIMESTAMP(6)' : quoteLiteral(deletedAtText(timeUs));
  return `UPDATE ${plan.qualified} SET ${plan.deletedAt} = ${at} WHERE ${where}`;
}

/** Takes away a row that once had this key, and is gone: another one gets it. Empty where deleted rows do not stay. */
export function clearKeySql(plan: TablePlan, image: readonly Value[], fallback?: readonly Value[]): string {
  if (plan.deletedAt === undefined) return '';
  return `DELETE FROM ${plan.qualified} WHERE ${keyCondition(plan, image, fallback)} AND ${plan.deletedAt} IS NOT NULL`;
}

/** The values of the key, for `keyColumns`: `1`, or `(1, 'a')`. */
export function keyTuple(plan: TablePlan, image: readonly Value[], fallback?: readonly Value[]): string {
  const values = plan.key.map((index) => keyLiteral(plan, index, keyValue(plan, index, image, fallback)));
  return values.length === 1 ? values[0]! : `(${values.join(', ')})`;
}

/** A value as it is compared with the column. */
function keyLiteral(plan: TablePlan, index: number, value: Value | undefined): string {
  const text = literal(plan, index, value);
  return plan.floats[index] === true ? `CAST(${text} AS FLOAT)` : text;
}

/** The key columns, as `keyTuple` has their values. */
export function keyColumns(plan: TablePlan): string {
  const names = plan.key.map((index) => plan.names[index]!);
  return names.length === 1 ? names[0]! : `(${names.join(', ')})`;
}

/** The condition that finds the row with the key of `image`. */
export function keyCondition(plan: TablePlan, image: readonly Value[], fallback?: readonly Value[]): string {
  return plan.key
    .map((index) => `${plan.names[index]} = ${keyLiteral(plan, index, keyValue(plan, index, image, fallback))}`)
    .join(' AND ');
}

/** Sets the columns that an image gives, or nothing when it gives none. The row is one that the source has. */
export function updateSql(plan: TablePlan, image: readonly Value[], columns: readonly number[], where: string): string {
  const sets = columns
    .filter((index) => image[index] !== 0)
    .map((index) => `${plan.names[index]} = ${literal(plan, index, image[index])}`);
  if (sets.length === 0) return '';
  if (plan.deletedAt !== undefined) sets.push(`${plan.deletedAt} = NULL`);
  return `UPDATE ${plan.qualified} SET ${sets.join(', ')} WHERE ${where}`;
}

export function insertSql(plan: TablePlan, image: readonly Value[]): string {
  return `${plan.insertHead}VALUES ${valuesTuple(plan, image)}`;
}

/** The statements of one row change of operation i, r, u or d, committed at `timeUs` (microseconds since 1970). */
export function rowStatement(plan: TablePlan, row: RowChange, timeUs: number): string {
  if (plan.key.length === 0) return keylessStatement(plan, row);
  const upsert = (image: readonly Value[]): string => `${insertSql(plan, image)}${plan.upsertValues}`;
  switch (row[0]) {
    case 'd':
      return deleteSql(plan, keyCondition(plan, row[4]!), timeUs);
    case 'u': {
      const image = filledImage(row);
      const partial = isPartial(plan, image);
      if (changedKey(plan, row) !== undefined) {
        // The row moves rather than being deleted, so that rows that refer to it may follow.
        const move = updateSql(plan, image, plan.written, keyCondition(plan, row[4]!));
        const cleared = clearKeySql(plan, image, row[4]);
        return [...(cleared === '' ? [] : [cleared]), move, ...(partial ? [] : [upsert(image)])].join('; ');
      }
      if (!partial) return upsert(image);
      return updateSql(plan, image, plan.settable, keyCondition(plan, image, row[4]));
    }
    default:
      return upsert(row[2]!);
  }
}

/** A change in a table without a key: the first row that is the same in every column. */
export function keylessStatement(plan: TablePlan, row: RowChange): string {
  if (row[0] === 'i' || row[0] === 'r') return insertSql(plan, row[2]!);
  const before = row[4] ?? [];
  const where = `${plan.written.map((index) => sameValue(plan, index, before[index])).join(' AND ')} LIMIT 1`;
  if (row[0] === 'd') return `DELETE FROM ${plan.qualified} WHERE ${where}`;
  return updateSql(plan, row[2]!, plan.settable, where);
}

function sameValue(plan: TablePlan, index: number, value: Value | undefined): string {
  const name = plan.names[index]!;
  const text = literal(plan, index, value);
  if (text === 'NULL') return `${name} IS NULL`;
  const column = plan.columns[index]!;
  const type = parseTypeText(column.type).name;
  if (plan.floats[index] === true) return `${name} = CAST(${text} AS FLOAT)`;
  // MySQL compares a vector with a vector alone, and has no literal of one.
  if (type === 'vector' && plan.target.flavour === 'mysql') return `CAST(${name} AS BINARY) = ${text}`;
  if (type === 'json') return `${name} = CAST(${text} AS JSON)`;
  if (column.collation !== undefined)
    return `CONVERT(${name} USING utf8mb4) COLLATE ${exactCollation(plan.target.flavour)} = ${text}`;
  return `${name} = ${text}`;
}
