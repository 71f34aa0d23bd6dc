/** One change as SQL text, complete in itself: for small batches, for tables without a key, and for replay. */
import type { RowChange, Value } from '../../core/frame.ts';
import type { IndexedFrame } from '../../core/indexed-frame.ts';
import { changedKey, filledImage, isPartial, keyValue } from '../row-key.ts';
import { quoteLiteral } from './sql.ts';
import { comparedAsText, equalsLoosely, literal, momentText, type TablePlan } from './table-plan.ts';

/** `(…)` with the values of a full image; `deletedAtUs` of a row that is gone, where such rows stay. */
export function valuesTuple(plan: TablePlan, image: readonly Value[], deletedAtUs?: number): string {
  let text = '(';
  for (let i = 0; i < plan.written.length; i++) {
    const index = plan.written[i]!;
    text += `${i === 0 ? '' : ', '}${literal(plan, index, image[index]!)}`;
  }
  if (plan.deletedAt === undefined) return `${text})`;
  return `${text}${text === '(' ? '' : ', '}${deletedAtUs === undefined ? 'NULL' : quoteLiteral(momentText(deletedAtUs))})`;
}

/**
 * The same for the after-image of a row of a frame, whose JSON becomes SQL as it stands there: a row of a small batch costs no
 * object for each of its values. Undefined where it must be decoded: a text holds a quote, or anything that JSON escapes.
 */
export function tupleInFrame(plan: TablePlan, frame: IndexedFrame, row: number): string | undefined {
  if (!plan.takesTexts) return undefined;
  const from = frame.imageStart(row) + 1;
  let at = frame.endOfValue(from);
  for (let column = 1; column < plan.written.length; column++) at = frame.endOfValue(at + 1);
  const text = frame.bytes.toString('utf8', from, at);
  // Without a backslash each quotation mark begins or ends a text.
  return text.includes('\\') || text.includes("'") ? undefined : `(${text.replaceAll('"', "'")})`;
}

/** Deletes rows, or marks them as gone since `timeUs` (microseconds since 1970; left out: since now). */
export function deleteSql(plan: TablePlan, where: string, timeUs?: number): string {
  if (plan.deletedAt === undefined) return `DELETE FROM ${plan.rows} WHERE ${where}`;
  const at = timeUs === undefined ? 'now()' : quoteLiteral(momentText(timeUs));
  return `UPDATE ${plan.rows} SET ${plan.deletedAt} = ${at} WHERE ${where}`;
}

/** The condition that finds the row with the key of `image`. */
export function keyCondition(plan: TablePlan, image: readonly Value[], fallback?: readonly Value[]): string {
  return plan.key
    .map((index) => `${plan.names[index]} = ${literal(plan, index, keyValue(plan, index, image, fallback))}`)
    .join(' AND ');
}

/** Sets the columns that an image gives, or nothing when it gives none. The row is one that the source has. */
export function updateSql(plan: TablePlan, image: readonly Value[], columns: readonly number[], where: string): string {
  const sets = columns
    .filter((index) => image[index] !== 0)
    .map((index) => `${plan.names[index]} = ${literal(plan, index, image[index]!)}`);
  if (sets.length === 0) return '';
  if (plan.deletedAt !== undefined) sets.push(`${plan.deletedAt} = NULL`);
  return `UPDATE ${plan.rows} SET ${sets.join(', ')} WHERE ${where}`;
}

/** The statements of one row change of operation i, r, u or d, committed at `timeUs` (microseconds since 1970). */
export function rowStatement(plan: TablePlan, row: RowChange, timeUs?: number): string {
  if (plan.key.length === 0) return keylessStatement(plan, row);
  const upsert = (image: readonly Value[]): string =>
    `${plan.insertHead}VALUES ${valuesTuple(plan, image)}${plan.conflict}`;
  switch (row[0]) {
    case 'd':
      return deleteSql(plan, keyCondition(plan, row[4]!), timeUs);
    case 'u': {
      const image = filledImage(row);
      const partial = isPartial(plan, image);
      if (changedKey(plan, row) !== undefined) {
        // The row moves rather than being deleted, so that rows that refer to it may follow.
        const columns = [...plan.key, ...plan.settable];
        const move = updateSql(plan, image, columns, keyCondition(plan, row[4]!));
        const moved = partial ? move : `${move}; ${upsert(image)}`;
        if (plan.deletedAt === undefined) return moved;
        // A row that once had this key, and is gone, is in the way.
        return `DELETE FROM ${plan.rows} WHERE ${keyCondition(plan, image, row[4])} AND ${plan.deletedAt} IS NOT NULL; ${moved}`;
      }
      if (!partial) return upsert(image);
      return updateSql(plan, image, plan.settable, keyCondition(plan, image, row[4]));
    }
    default:
      return upsert(row[2]!);
  }
}

function keylessStatement(plan: TablePlan, row: RowChange): string {
  if (row[0] === 'i' || row[0] === 'r') return `${plan.insertHead}VALUES ${valuesTuple(plan, row[2]!)}`;
  const before = row[4] ?? [];
  const conditions = plan.written.map((index) => {
    const value = before[index];
    const name = plan.names[index]!;
    const text = literal(plan, index, value ?? null);
    if (text === 'NULL') return `${name} IS NULL`;
    return `${comparedAsText(plan, index) ? `${name}::text` : name} = ${text}`;
  });
  // Values may be equal and not the same (numeric 1.0 and 1.00): of such rows the one whose texts are those of the change.
  const same = plan.written
    .filter((index) => typeof before[index] === 'string' && equalsLoosely(plan, index))
    .map((index) => `${plan.names[index]}::text = ${literal(plan, index, before[index]!)}`);
  const first = same.length === 0 ? '' : ` ORDER BY ${same.join(' AND ')} DESC`;
  const one = `ctid = (SELECT ctid FROM ${plan.rows} WHERE ${conditions.join(' AND ')}${first} LIMIT 1)`;
  if (row[0] === 'd') return `DELETE FROM ${plan.rows} WHERE ${one}`;
  return updateSql(plan, row[2]!, plan.settable, one);
}
