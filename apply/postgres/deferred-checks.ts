/**
 * Constraints that are checked at the end of a transaction: which of its rows break one. The server names the constraint
 * only, so of a foreign key it is asked which rows of the transaction refer to none. All at once they are the rows to leave
 * out: such as refer to each other, in a circle, find each other.
 */
import type { ClientBase } from 'pg';
import { DatabaseError } from 'pg';
import { messageOf, type ErrorCode } from '../../core/errors.ts';
import type { Value } from '../../core/frame.ts';
import type { Left, Passes } from '../batch-store.ts';
import type { SourceRow } from '../compact.ts';
import type { RowFailure } from '../quarantine-entry.ts';
import { filledImage, keyText } from '../row-key.ts';
import { keyCondition } from './row-statement.ts';
import { qualifiedName, quoteName } from './sql.ts';
import type { TablePlan } from './table-plan.ts';
import { codeForSqlState, isRowError, rowFailureReason, sqlStateOf } from './target-error.ts';

/** Each round leaves out rows, and may show others that need those. Then rows are checked one by one. */
const MOST_ROUNDS = 10;
/** Rows that are asked about at once. */
const ASKED_AT_ONCE = 200;
/** What a question is refused with; anything else is no matter of what was asked. */
const REFUSED: ReadonlySet<ErrorCode> = new Set(['target_privilege', 'target_shape', 'target_query', 'target_row']);

/**
 * Runs `passes`, which try `rows`, until what they leave is all that is wrong. Throws a row error where what was written
 * before breaks a constraint.
 */
export async function settleDeferred(
  client: ClientBase,
  rows: readonly SourceRow<TablePlan>[],
  passes: Passes<TablePlan>,
): Promise<Left<TablePlan>[]> {
  await client.query('SAVEPOINT replayed');
  const refused = new Map<SourceRow<TablePlan>, RowFailure>();
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const left = await passes(refused);
    const broken = await brokenConstraint(client);
    if (broken === undefined) {
      await client.query('RELEASE SAVEPOINT replayed');
      return left;
    }
    const out = new Set(left.map(({ item }) => item));
    const breaking = await askWhichBreak(
      client,
      broken,
      rows.filter((item) => !out.has(item)),
    );
    // Also from a question that was refused.
    await client.query('ROLLBACK TO SAVEPOINT replayed');
    if (breaking.length === 0) break;
    for (const item of breaking) refused.set(item, failureOf(broken));
  }
  // Of another kind of constraint, or broken by what is missing: the row shows where each one is checked at once.
  await client.query('SET CONSTRAINTS ALL IMMEDIATE');
  const left = await passes();
  await client.query('SET CONSTRAINTS ALL DEFERRED; RELEASE SAVEPOINT replayed');
  return left;
}

/** What is broken of what was put off until now; undefined when nothing is, and then none of it is left to check. */
async function brokenConstraint(client: ClientBase): Promise<unknown> {
  try {
    await client.query(
      'SAVEPOINT checked; SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED; RELEASE SAVEPOINT checked',
    );
    return undefined;
  } catch (thrown) {
    if (!isRowError(thrown)) throw thrown;
    await client.query('ROLLBACK TO SAVEPOINT checked; RELEASE SAVEPOINT checked');
    return thrown;
  }
}

function failureOf(broken: unknown): RowFailure {
  const sqlState = sqlStateOf(broken)!;
  return { reason: rowFailureReason(sqlState), sqlState, message: messageOf(broken) };
}

interface ForeignKey {
  readonly child: number;
  readonly parent: string;
  /** Names of the columns, each with the one that it refers to. */
  readonly columns: readonly (readonly [child: string, parent: string])[];
}

/** The foreign key that is broken; undefined where it is another kind of constraint. */
async function foreignKey(client: ClientBase, broken: unknown): Promise<ForeignKey | undefined> {
  if (!(broken instanceof DatabaseError) || broken.constraint === undefined) return undefined;
  const { rows } = await client.query<{
    child: string;
    schema: string;
    name: string;
    column: string;
    parent: string;
  }>(
    `SELECT c.conrelid::int8 AS child, n.nspname AS schema, p.relname AS name, a.attname AS column, b.attname AS parent
       FROM pg_constraint c JOIN pg_class p ON p.oid = c.confrelid JOIN pg_namespace n ON n.oid = p.relnamespace
       JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace m ON m.oid = t.relnamespace
       CROSS JOIN LATERAL unnest(c.conkey, c.confkey) AS k (child, parent)
       JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.child
       JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = k.parent
      WHERE c.contype = 'f' AND c.conname = $1 AND t.relname = $2 AND m.nspname = $3`,
    [broken.constraint, broken.table, broken.schema],
  );
  const [first] = rows;
  if (first === undefined) return undefined;
  return {
    child: Number(first.child),
    parent: qualifiedName(first.schema, first.name),
    columns: rows.map(({ column, parent }) => [quoteName(column), quoteName(parent)] as const),
  };
}

/**
 * The same as `rowsBreaking`; empty also where the server refuses the question. It checks a foreign key as the owner of the
 * table that is referred to, and this user may not read that, or not all of its rows (`row_security` is off in its session:
 * that is an error, too). The savepoint around is returned to.
 */
async function askWhichBreak(
  client: ClientBase,
  broken: unknown,
  rows: readonly SourceRow<TablePlan>[],
): Promise<SourceRow<TablePlan>[]> {
  try {
    return await rowsBreaking(client, broken, rows);
  } catch (thrown) {
    const sqlState = sqlStateOf(thrown);
    if (sqlState === undefined || !REFUSED.has(codeForSqlState(sqlState))) throw thrown;
    return [];
  }
}

/** The changes that made rows refer to none. Empty where the constraint is no foreign key, or none of `rows` breaks it. */
async function rowsBreaking(
  client: ClientBase,
  broken: unknown,
  rows: readonly SourceRow<TablePlan>[],
): Promise<SourceRow<TablePlan>[]> {
  const reference = await foreignKey(client, broken);
  if (reference === undefined) return [];
  const byKey = new Map<string, SourceRow<TablePlan>[]>();
  for (const item of rows) {
    const { plan, row } = item;
    if (plan.target.oid !== reference.child || plan.key.length === 0 || row[0] === 'd') continue;
    const key = `${plan.table.version}\0${keyText(plan, row[2]!, row[4])}`;
    const changes = byKey.get(key);
    if (changes === undefined) byKey.set(key, [item]);
    else changes.push(item);
  }
  const candidates = [...byKey.values()];
  const found: SourceRow<TablePlan>[] = [];
  for (let at = 0; at < candidates.length; at += ASKED_AT_ONCE) {
    const asked = candidates.slice(at, at + ASKED_AT_ONCE);
    const sql = asked.map((changes, n) => danglingSql(changes.at(-1)!, n, reference)).join(' UNION ALL ');
    const answer = await client.query<{ n: number }>(sql);
    for (const { n } of answer.rows) found.push(changeThatSet(asked[n]!, reference));
  }
  return found;
}

/** Gives `n` where the row of a change refers to none. */
function danglingSql({ plan, row }: SourceRow<TablePlan>, n: number, { parent, columns }: ForeignKey): string {
  const given = columns.map(([column]) => `t.${column} IS NOT NULL`).join(' AND ');
  const same = columns.map(([column, of]) => `p.${of} = t.${column}`).join(' AND ');
  return (
    `(SELECT ${n} AS n FROM ${plan.rows} t WHERE ${keyCondition(plan, row[2]!, row[4])}` +
    ` AND ${given} AND NOT EXISTS (SELECT FROM ${parent} p WHERE ${same}))`
  );
}

/** Of the changes of a key, the one from which on the row refers to what it refers to in the end. */
function changeThatSet(changes: readonly SourceRow<TablePlan>[], { columns }: ForeignKey): SourceRow<TablePlan> {
  const referring = ({ plan, row }: SourceRow<TablePlan>): (Value | undefined)[] => {
    const image = filledImage(row);
    return columns.map(([column]) => image[plan.names.indexOf(column)]);
  };
  let at = changes.length - 1;
  const last = referring(changes[at]!);
  // A column that a change leaves as it is, is as before it.
  while (at > 0 && referring(changes[at - 1]!).every((value, i) => value === last[i] || last[i] === 0)) {
    at -= 1;
    for (const [i, value] of referring(changes[at]!).entries()) if (last[i] === 0) last[i] = value;
  }
  return changes[at]!;
}
