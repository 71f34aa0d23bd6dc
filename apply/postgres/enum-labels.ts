/**
 * Labels that an enum of the source got since the target's was made. The log tells nothing of them but the rows that have
 * them, so a row that is refused is looked at, and what its label lacks is added.
 */
import type { ClientBase } from 'pg';
import { dialectOf } from '../../core/column-kind.ts';
import type { RowChange } from '../../core/frame.ts';
import type { TargetSession } from './session.ts';
import { quoteLiteral } from './sql.ts';
import type { TablePlan } from './table-plan.ts';
import { sqlStateOf, targetError } from './target-error.ts';

/** What Postgres says of a text that an enum does not have, among others. */
const NOT_A_LABEL = '22P02';
/** Whoever holds the type for longer has the flow begin its transaction again. */
const LOCK_TIMEOUT = '5s';

interface EnumColumn {
  readonly name: string;
  readonly type: string;
  readonly labels: readonly string[];
}

/** Labels were added, or why they could not be; undefined where none is missing. */
export type FollowedLabels = { readonly refused?: unknown } | undefined;

/**
 * Adds labels of a refused row that the target's enums lack. In another session: a transaction cannot use a label before
 * it is committed, and this one may use it then. `connect` gives that session.
 */
export async function followLabels(
  client: ClientBase,
  connect: () => Promise<TargetSession>,
  plan: TablePlan,
  row: RowChange,
): Promise<FollowedLabels> {
  const image = row[2];
  if (image == null || dialectOf(plan.table) !== 'postgres') return undefined;
  // Only where both sides call it the same: whatever else a text of the source is, no label is made of it.
  const named = plan.table.columns.filter(({ name, type }) => plan.target.columns.get(name)?.type === type);
  const enums = await readEnums(client, plan, new Set(named.map(({ name }) => name)));
  const adds = enums.flatMap(({ name, type, labels }) => {
    const value = image[plan.table.columns.findIndex((column) => column.name === name)];
    return typeof value !== 'string' || labels.includes(value)
      ? []
      : [`ALTER TYPE ${type} ADD VALUE IF NOT EXISTS ${quoteLiteral(value)}`];
  });
  if (adds.length === 0) return undefined;
  const session = await connect();
  try {
    await session.client.query(`SET lock_timeout TO '${LOCK_TIMEOUT}'`);
    for (const sql of adds) await session.client.query(sql);
    return {};
  } catch (thrown) {
    const error = targetError(thrown, 'adding a label to an enum');
    // Not the owner of the type, or no more than a label may be.
    if (
      error.code === 'target_privilege' ||
      error.code === 'target_row' ||
      sqlStateOf(thrown)?.startsWith('42') === true
    )
      return { refused: error };
    throw error;
  } finally {
    await session.close();
  }
}

/** Whether a row may have been refused for a label. */
export function isMissingLabel(sqlState: string | null): boolean {
  return sqlState === NOT_A_LABEL;
}

async function readEnums(client: ClientBase, plan: TablePlan, names: ReadonlySet<string>): Promise<EnumColumn[]> {
  const { rows } = await client.query<EnumColumn>(
    `SELECT a.attname::text AS name, a.atttypid::regtype::text AS type,
            ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = a.atttypid) AS labels
       FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
      WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND t.typtype = 'e'`,
    [plan.target.oid],
  );
  return rows.filter(({ name }) => names.has(name));
}
