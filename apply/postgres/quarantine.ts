/** The exception inbox of a target: listing, showing, replaying and discarding quarantined changes. */
import type { ClientBase } from 'pg';
import { messageOf } from '../../core/errors.ts';
import { HeldKeys } from '../held-keys.ts';
import { keyShape, touchedKeys } from '../row-key.ts';
import type { QuarantinedChange } from './quarantine-insert.ts';
import { rowStatement } from './row-statement.ts';
import { createTablePlan, type TablePlan } from './table-plan.ts';
import { isRowError, rowFailureReason, sqlStateOf, targetError } from './target-error.ts';
import { ensureTargetTable } from './target-table.ts';

export interface QuarantineEntry {
  readonly id: string;
  readonly flow: string;
  readonly source: string;
  readonly schema: string;
  readonly table: string;
  /** JSON array of the key's values; null for a table without a key. */
  readonly key: string | null;
  readonly position: string;
  readonly ordinal: number;
  readonly op: string;
  readonly reason: string;
  readonly sqlState: string | null;
  readonly message: string | null;
  readonly createdAt: Date;
}

export interface QuarantineDetail extends QuarantineEntry {
  readonly change: QuarantinedChange;
}

export interface ReplayResult {
  readonly applied: number;
  readonly failed: readonly { readonly id: string; readonly sqlState: string; readonly message: string }[];
}

const COLUMNS = `id, flow, source, table_schema AS schema, table_name AS "table", key, position, ordinal, op, reason,
  sqlstate AS "sqlState", message, created_at AS "createdAt"`;

async function exists(client: ClientBase): Promise<boolean> {
  const { rows } = await client.query<{ there: boolean }>(
    `SELECT to_regclass('waybill.quarantine') IS NOT NULL AS there`,
  );
  return rows[0]?.there === true;
}

/** Loads the held keys of a flow. Both keys of an update that changed one are held. */
export async function loadHeldKeys(client: ClientBase, flow: string, source: string): Promise<HeldKeys> {
  const held = new HeldKeys();
  try {
    const { rows } = await client.query<{ change: QuarantinedChange }>(
      'SELECT change FROM waybill.quarantine WHERE flow = $1 AND source = $2 AND key IS NOT NULL',
      [flow, source],
    );
    for (const { change } of rows) {
      const shape = keyShape(change.table);
      for (const key of touchedKeys(shape, change.change)) held.add(shape.id, key);
    }
    return held;
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.quarantine');
  }
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

/** One quarantined change with its row; undefined when there is none with this id. */
export async function showQuarantine(client: ClientBase, id: string | number): Promise<QuarantineDetail | undefined> {
  try {
    if (!(await exists(client))) return undefined;
    const { rows } = await client.query<QuarantineDetail>(
      `SELECT ${COLUMNS}, change FROM waybill.quarantine WHERE id = $1`,
      [id],
    );
    return rows[0];
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.quarantine');
  }
}

/**
 * Applies quarantined changes in order, in one transaction in which the flow stands still. With `ids`, all changes of
 * the keys of those are taken, because a later change of a key cannot go before an earlier one. What fails again stays,
 * with what follows it.
 */
export async function replayQuarantine(
  client: ClientBase,
  flow: string,
  which: { readonly ids?: readonly (string | number)[]; readonly all?: boolean },
): Promise<ReplayResult> {
  return await inFlowTransaction(client, flow, async () => {
    const wanted = new Set((which.ids ?? []).map(String));
    const { rows } = await client.query<QuarantineDetail>(
      `SELECT ${COLUMNS}, change FROM waybill.quarantine WHERE flow = $1 ORDER BY id`,
      [flow],
    );
    const selected = which.all === true ? rows : sameKeys(rows, wanted);
    const plans = new Map<string, TablePlan>();
    const blocked = new Set<string>();
    const applied: string[] = [];
    const failed: { id: string; sqlState: string; message: string }[] = [];
    // What fails may be waiting for one that comes later: go round while that helps.
    for (let pending = selected; pending.length > 0;) {
      const left: QuarantineDetail[] = [];
      failed.length = 0;
      blocked.clear();
      for (const entry of pending) {
        const keys = keysOf(entry);
        if (keys.some((key) => blocked.has(key))) {
          left.push(entry);
          for (const key of keys) blocked.add(key);
          continue;
        }
        const failure = await tryEntry(client, entry, plans);
        if (failure === undefined) applied.push(entry.id);
        else {
          left.push(entry);
          failed.push({ id: entry.id, ...failure });
          for (const key of keys) blocked.add(key);
        }
      }
      if (left.length === pending.length) break;
      pending = left;
    }
    for (const { id, sqlState, message } of failed)
      await client.query('UPDATE waybill.quarantine SET reason = $2, sqlstate = $3, message = $4 WHERE id = $1', [
        id,
        rowFailureReason(sqlState),
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
    const { rowCount } = await client.query(
      'DELETE FROM waybill.quarantine WHERE flow = $1 AND id = ANY ($2::bigint[])',
      [flow, ids.map(String)],
    );
    return rowCount ?? 0;
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

function keysOf(entry: QuarantineDetail): string[] {
  const shape = keyShape(entry.change.table);
  return touchedKeys(shape, entry.change.change).map((key) => `${shape.id}\0${key}`);
}

/** The wanted changes and all that share a key with one of them, also by way of a change of key. */
function sameKeys(rows: readonly QuarantineDetail[], wanted: ReadonlySet<string>): QuarantineDetail[] {
  const chosen = new Set(rows.filter((row) => wanted.has(row.id)));
  const keys = new Set([...chosen].flatMap(keysOf));
  for (let grew = true; grew;) {
    grew = false;
    for (const row of rows) {
      const own = keysOf(row);
      if (chosen.has(row) || !own.some((key) => keys.has(key))) continue;
      chosen.add(row);
      for (const key of own) keys.add(key);
      grew = true;
    }
  }
  return rows.filter((row) => chosen.has(row));
}

async function tryEntry(
  client: ClientBase,
  entry: QuarantineDetail,
  plans: Map<string, TablePlan>,
): Promise<{ sqlState: string; message: string } | undefined> {
  const { change, table, target } = entry.change;
  const id = `${target.schema}.${target.name} ${table.version}`;
  let plan = plans.get(id);
  if (plan === undefined) {
    plan = createTablePlan(table, await ensureTargetTable(client, table, target.schema));
    plans.set(id, plan);
  }
  try {
    await client.query(`SAVEPOINT one_row; ${rowStatement(plan, change)}; RELEASE SAVEPOINT one_row`);
    return undefined;
  } catch (thrown) {
    if (!isRowError(thrown)) throw thrown;
    await client.query('ROLLBACK TO SAVEPOINT one_row');
    return { sqlState: sqlStateOf(thrown)!, message: messageOf(thrown) };
  }
}
