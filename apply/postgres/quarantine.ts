/** The exception inbox of a target: listing, showing, replaying and discarding quarantined changes. */
import type { ClientBase } from 'pg';
import { messageOf, ReplicationError } from '../../core/errors.ts';
import type { FlowConfig } from '../../core/config.ts';
import type { QuarantinedRow } from '../batch-store.ts';
import { nameOf, type FollowedTables } from '../followed-tables.ts';
import { HeldKeys } from '../held-keys.ts';
import { GONE_RECORD } from '../outbound/outbound-session.ts';
import { recordId } from '../outbound/row-ids.ts';
import { editChange, type RowEdit } from '../quarantine-edit.ts';
import {
  asFollowed,
  chooseEntries,
  keyedEntry,
  keyFailure,
  PAGE_SIZES,
  pagesOf,
  planKey,
  replayRounds,
  type KeyedEntry,
  type QuarantinedChange,
  type QuarantineDetail,
  type QuarantineEntry,
  type QuarantineSlice,
  type ReasonCount,
  type ReplayChoice,
  type ReplayFailure,
  type ReplayResult,
  type RowFailure,
} from '../quarantine-entry.ts';
import { keyShape, touchedKeys } from '../row-key.ts';
import { rowStatement } from './row-statement.ts';
import { quoteLiteral, quoteNullable } from './sql.ts';
import { restoredChange, storedChange } from './stored-change.ts';
import { createTablePlan, type TablePlan } from './table-plan.ts';
import { readTableRecords } from './table-records.ts';
import type { ShapeSettings } from './table-shape.ts';
import { isRowError, rowFailureReason, sqlStateOf, targetError } from './target-error.ts';
import { findTargetTable, lostError } from './target-table.ts';

const COLUMNS = `id, flow, source, table_schema AS schema, table_name AS "table", key, position, ordinal, op, reason,
  sqlstate AS "sqlState", message, created_at AS "createdAt", change #> '{table,key}' AS "keyColumns"`;

function restored(entry: QuarantineDetail): QuarantineDetail {
  return { ...entry, change: restoredChange(entry.change) };
}

async function exists(client: ClientBase): Promise<boolean> {
  const { rows } = await client.query<{ there: boolean }>(
    `SELECT to_regclass('waybill.quarantine') IS NOT NULL AS there`,
  );
  return rows[0]?.there === true;
}

/** A flow, and what it knows of its tables. */
export interface FlowOfTarget {
  readonly flow: string;
  readonly settings: FlowConfig;
  readonly followed: FollowedTables;
}

interface StoredRow extends RowFailure {
  readonly id: string;
  readonly change: QuarantinedChange;
}

async function* sizesWhere(
  client: ClientBase,
  where: string,
  values: readonly string[],
): AsyncGenerator<readonly [id: string, bytes: number]> {
  for (let last = '0'; ;) {
    const { rows } = await client.query<{ id: string; bytes: string }>(
      `SELECT id, octet_length(change::text) AS bytes FROM waybill.quarantine
        WHERE ${where} AND id > $${values.length + 1} ORDER BY id LIMIT ${PAGE_SIZES}`,
      [...values, last],
    );
    for (const { id, bytes } of rows) yield [id, Number(bytes)];
    if (rows.length < PAGE_SIZES) return;
    last = rows.at(-1)!.id;
  }
}

/** Changes in order, so many at a time as memory has room for. */
async function* pagesWhere(
  client: ClientBase,
  where: string,
  values: readonly string[],
): AsyncGenerator<readonly StoredRow[]> {
  for await (const ids of pagesOf(sizesWhere(client, where, values))) {
    const { rows } = await client.query<StoredRow>(
      `SELECT id, change, reason, sqlstate AS "sqlState", message FROM waybill.quarantine
        WHERE id = ANY ($1::bigint[]) ORDER BY id`,
      [ids],
    );
    yield rows.map((row) => ({ ...row, change: restoredChange(row.change) }));
  }
}

/** The same, one by one, with their ids. */
async function* changesWhere(
  client: ClientBase,
  where: string,
  values: readonly string[],
): AsyncGenerator<readonly [id: string, change: QuarantinedChange]> {
  for await (const page of pagesWhere(client, where, values)) for (const { id, change } of page) yield [id, change];
}

/**
 * Loads the held keys of a flow, by the keys that its tables have now, without those of the transaction `except`. Both keys of an
 * update that changed one are held.
 */
export async function loadHeldKeys(
  client: ClientBase,
  { flow, settings: { mirror: source }, followed }: FlowOfTarget,
  except?: string,
): Promise<HeldKeys> {
  const held = new HeldKeys();
  try {
    const others = except === undefined ? '' : ' AND position <> $3';
    const where = `flow = $1 AND source = $2 AND key IS NOT NULL AND hold IS NULL${others}`;
    const values = except === undefined ? [flow, source] : [flow, source, except];
    for await (const [, stored] of changesWhere(client, where, values)) {
      const now = asFollowed(stored, followed.of(stored.table)?.definition);
      // What comes by the key that the table has cannot be known to stand behind it.
      if (now === undefined) continue;
      const { table, change } = now;
      const shape = keyShape(table);
      for (const key of touchedKeys(shape, change)) held.add(shape.id, key);
    }
    return held;
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.quarantine');
  }
}

/**
 * Changes of the transaction at `position`, as the versions of their tables have them that the flow follows; of tables that
 * it does not follow any more, or by a key that is gone, none.
 */
export async function* quarantinedAt(
  client: ClientBase,
  { flow, settings, followed }: FlowOfTarget,
  position: string,
): AsyncGenerator<readonly QuarantinedRow<TablePlan>[]> {
  const plans = new Map<string, TablePlan>();
  const where = 'flow = $1 AND source = $2 AND position = $3 AND hold IS NULL';
  for await (const page of pagesWhere(client, where, [flow, settings.mirror, position])) {
    const found: QuarantinedRow<TablePlan>[] = [];
    for (const { id, change: stored, ...failure } of page) {
      const record = followed.of(stored.table);
      if (record?.state !== 'follows' || followed.isLost(stored.table)) continue;
      const change = asFollowed(stored, record.definition);
      if (change === undefined) continue;
      const plan = await planOf(client, change, plans, settings);
      const item = { plan, row: change.change, position, ordinal: 0, commitTimeUs: change.commitTimeUs ?? 0 };
      found.push({ id, failure, item });
    }
    yield found;
  }
}

export function failureSql(id: string, { reason, sqlState, message }: RowFailure): string {
  return (
    `UPDATE waybill.quarantine SET reason = ${quoteLiteral(reason)}, sqlstate = ${quoteNullable(sqlState)},` +
    ` message = ${quoteNullable(message)} WHERE id = ${id}`
  );
}

/** The quarantined changes, oldest first; of one flow or of all. */
export async function listQuarantine(client: ClientBase, flow?: string): Promise<QuarantineEntry[]> {
  try {
    if (!(await exists(client))) return [];
    const { rows } = await client.query<QuarantineEntry>(
      `SELECT ${COLUMNS} FROM waybill.quarantine WHERE $1::text IS NULL OR flow = $1 ORDER BY id`,
      [flow ?? null],
    );
    return rows;
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.quarantine');
  }
}

/** How many changes of a flow wait, by reason. */
export async function countReasons(client: ClientBase, flow: string): Promise<ReasonCount[]> {
  try {
    if (!(await exists(client))) return [];
    const { rows } = await client.query<{ reason: string; count: string }>(
      'SELECT reason, count(*) FROM waybill.quarantine WHERE flow = $1 GROUP BY reason ORDER BY reason',
      [flow],
    );
    return rows.map(({ reason, count }) => ({ reason, count: Number(count) }));
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.quarantine');
  }
}

/** How many keys of a flow wait, by reason; records that the flow's transform holds are not among them. */
export async function countKeys(client: ClientBase, flow: string): Promise<ReasonCount[]> {
  try {
    const { rows } = await client.query<{ reason: string; count: string }>(
      `SELECT reason, count(DISTINCT (table_schema, table_name, coalesce(key, id::text))) AS count
         FROM waybill.quarantine WHERE flow = $1 AND hold IS NULL GROUP BY reason`,
      [flow],
    );
    return rows.map(({ reason, count }) => ({ reason, count: Number(count) }));
  } catch (thrown) {
    throw targetError(thrown, 'counting what waits in waybill.quarantine');
  }
}

/** A part of a flow's inbox, oldest first. */
export async function pageQuarantine(
  client: ClientBase,
  flow: string,
  { offset, limit, reason }: QuarantineSlice,
): Promise<QuarantineEntry[]> {
  try {
    if (!(await exists(client))) return [];
    const { rows } = await client.query<QuarantineEntry>(
      `SELECT ${COLUMNS} FROM waybill.quarantine WHERE flow = $1 AND ($2::text IS NULL OR reason = $2)
        ORDER BY id OFFSET $3 LIMIT $4`,
      [flow, reason ?? null, offset, limit],
    );
    return rows;
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.quarantine');
  }
}

/** Puts new values into a quarantined row, while the flow stands still. */
export async function editQuarantine(client: ClientBase, flow: string, id: string, edit: RowEdit): Promise<void> {
  await inFlowTransaction(client, flow, async () => {
    const { rows } = await client.query<{ change: QuarantinedChange }>(
      'SELECT change FROM waybill.quarantine WHERE flow = $1 AND id = $2 FOR UPDATE',
      [flow, id],
    );
    if (rows[0] === undefined)
      throw new ReplicationError('config_invalid', `flow ${flow} has no quarantined change ${id}`);
    await client.query('UPDATE waybill.quarantine SET change = $2 WHERE id = $1', [
      id,
      storedChange(editChange(restoredChange(rows[0].change), edit)),
    ]);
  });
}

/** One quarantined change with its row; undefined when there is none with this id. */
export async function showQuarantine(client: ClientBase, id: string | number): Promise<QuarantineDetail | undefined> {
  try {
    if (!(await exists(client))) return undefined;
    const { rows } = await client.query<QuarantineDetail>(
      `SELECT ${COLUMNS}, change FROM waybill.quarantine WHERE id = $1`,
      [id],
    );
    return rows[0] === undefined ? undefined : restored(rows[0]);
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.quarantine');
  }
}

/**
 * Applies quarantined changes in order, in one transaction in which the flow stands still. With `ids`, all changes of
 * the keys of those are taken, because a later change of a key cannot go before an earlier one. What fails again stays,
 * with what follows it, and what tells no key that its table has by now.
 */
export async function replayQuarantine(
  client: ClientBase,
  flow: string,
  which: ReplayChoice,
  settings: ShapeSettings = { zero_dates: 'reject', deletes: 'apply' },
): Promise<ReplayResult> {
  return await inFlowTransaction(client, flow, async () => {
    const records = await readTableRecords(client, flow);
    const versions = new Map(records.map((record) => [nameOf(record), record.definition]));
    const entries: KeyedEntry[] = [];
    for await (const [id, change] of changesWhere(client, 'flow = $1 AND hold IS NULL', [flow]))
      entries.push(keyedEntry(id, asFollowed(change, versions.get(nameOf(change.table)))));
    const plans = new Map<string, TablePlan>();
    const { applied, failed } = await replayRounds(chooseEntries(entries, which), async (id) => {
      const { rows } = await client.query<{ change: QuarantinedChange }>(
        'SELECT change FROM waybill.quarantine WHERE id = $1',
        [id],
      );
      const stored = restoredChange(rows[0]!.change);
      const change = asFollowed(stored, versions.get(nameOf(stored.table)));
      return change === undefined ? keyFailure(stored) : await tryChange(client, change, plans, settings);
    });
    for (const { id, reason, sqlState, message } of failed)
      await client.query('UPDATE waybill.quarantine SET reason = $2, sqlstate = $3, message = $4 WHERE id = $1', [
        id,
        reason,
        sqlState,
        message,
      ]);
    await client.query('DELETE FROM waybill.quarantine WHERE id = ANY ($1::bigint[])', [applied]);
    return { applied: applied.length, failed };
  });
}

/** Deletes quarantined changes without applying them. Gives their number. */
export async function discardQuarantine(
  client: ClientBase,
  flow: string,
  ids: readonly (string | number)[],
): Promise<number> {
  return await inFlowTransaction(client, flow, async () => {
    const { rows } = await client.query<{ gone: string | null }>(
      `DELETE FROM waybill.quarantine WHERE flow = $1 AND id = ANY ($2::bigint[])
       RETURNING CASE WHEN change = $3 THEN key END AS gone`,
      [flow, ids.map(String), GONE_RECORD],
    );
    // A record that has gone comes no more: what it had of a system's rows is nobody's.
    const records = rows.flatMap(({ gone }) => (gone === null ? [] : [recordId(gone)]));
    if (records.length > 0)
      await client.query('DELETE FROM waybill.outbound_rows WHERE flow = $1 AND record_id = ANY ($2)', [flow, records]);
    return rows.length;
  });
}

/** Invariant 5: the position row is locked, so that the flow waits, and its version tells the flow to read again. */
async function inFlowTransaction<T>(client: ClientBase, flow: string, work: () => Promise<T>): Promise<T> {
  try {
    await client.query('BEGIN');
    await client.query('SELECT 1 FROM waybill.position WHERE flow = $1 FOR UPDATE', [flow]);
    const result = await work();
    await client.query('UPDATE waybill.position SET quarantine_version = quarantine_version + 1 WHERE flow = $1', [
      flow,
    ]);
    await client.query('COMMIT');
    return result;
  } catch (thrown) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw targetError(thrown, `working on the quarantine of flow ${flow}`);
  }
}

async function planOf(
  client: ClientBase,
  change: QuarantinedChange,
  plans: Map<string, TablePlan>,
  settings: ShapeSettings,
): Promise<TablePlan> {
  const { table, target } = change;
  const id = planKey(change);
  let plan = plans.get(id);
  if (plan === undefined) {
    const found = await findTargetTable(client, table, target.schema, settings);
    if (found === undefined) throw lostError(target.schema, table.name);
    plan = createTablePlan(table, found, settings);
    plans.set(id, plan);
  }
  return plan;
}

async function tryChange(
  client: ClientBase,
  quarantined: QuarantinedChange,
  plans: Map<string, TablePlan>,
  settings: ShapeSettings,
): Promise<ReplayFailure | undefined> {
  const { change, commitTimeUs } = quarantined;
  const plan = await planOf(client, quarantined, plans, settings);
  try {
    await client.query('SAVEPOINT one_row');
    await client.query(`${rowStatement(plan, change, commitTimeUs)}; RELEASE SAVEPOINT one_row`);
    return undefined;
  } catch (thrown) {
    if (!isRowError(thrown)) throw thrown;
    await client.query('ROLLBACK TO SAVEPOINT one_row; RELEASE SAVEPOINT one_row');
    const sqlState = sqlStateOf(thrown)!;
    return { reason: rowFailureReason(sqlState), sqlState, message: messageOf(thrown) };
  }
}
