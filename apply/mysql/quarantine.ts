/** The exception inbox of a target: listing, showing, replaying and discarding quarantined changes. */
import { ReplicationError } from '../../core/errors.ts';
import { HeldKeys } from '../held-keys.ts';
import { editChange, type RowEdit } from '../quarantine-edit.ts';
import {
  chooseEntries,
  replayRounds,
  type QuarantinedChange,
  type QuarantineDetail,
  type QuarantineEntry,
  type QuarantineSlice,
  type ReasonCount,
  type ReplayChoice,
  type ReplayFailure,
  type ReplayResult,
} from '../quarantine-entry.ts';
import { keyShape, touchedKeys } from '../row-key.ts';
import { applyRow } from './apply-row.ts';
import { utcDate } from './position.ts';
import type { MysqlSession } from './session.ts';
import { quoteLiteral } from './sql.ts';
import { createTablePlan, type TablePlan } from './table-plan.ts';
import { targetError } from './target-error.ts';
import { ensureTargetTable } from './target-table.ts';
import { underSavepoint } from './under-savepoint.ts';
import { HELD_TABLE, waybillTables } from './waybill-database.ts';

const COLUMNS =
  'id, flow, source, table_schema, table_name, `key`, position, ordinal, op, reason, `sqlstate`, message, created_at,' +
  " JSON_EXTRACT(`change`, '$.table.key')";

type Row = readonly (string | null)[];

function toEntry(row: Row): QuarantineEntry {
  const [id, flow, source, schema, table, key, position, ordinal, op, reason, sqlState, message, createdAt, names] =
    row;
  return {
    id: id!,
    flow: flow!,
    source: source!,
    schema: schema!,
    table: table!,
    key: key ?? null,
    position: position!,
    ordinal: Number(ordinal),
    op: op!,
    reason: reason!,
    sqlState: sqlState ?? null,
    message: message ?? null,
    createdAt: utcDate(createdAt!),
    keyColumns: names == null ? null : (JSON.parse(names) as string[]),
  };
}

function toDetail(row: Row): QuarantineDetail {
  return { ...toEntry(row), change: JSON.parse(row.at(-1)!) as QuarantinedChange };
}

async function exists(session: MysqlSession): Promise<boolean> {
  return (await waybillTables(session)).has('quarantine');
}

/** Loads the held keys of a flow. Both keys of an update that changed one are held. */
export async function loadHeldKeys(session: MysqlSession, flow: string, source: string): Promise<HeldKeys> {
  const held = new HeldKeys();
  try {
    const rows = await session.rows(
      `SELECT \`change\` FROM waybill.quarantine WHERE flow = ${quoteLiteral(flow)} AND source = ${quoteLiteral(source)} AND \`key\` IS NOT NULL`,
    );
    for (const [text] of rows) {
      const { table, change } = JSON.parse(text!) as QuarantinedChange;
      const shape = keyShape(table);
      for (const key of touchedKeys(shape, change)) held.add(shape.id, key);
    }
    return held;
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.quarantine');
  }
}

/** The quarantined changes, oldest first; of one flow or of all. */
export async function listQuarantine(session: MysqlSession, flow?: string): Promise<QuarantineEntry[]> {
  try {
    if (!(await exists(session))) return [];
    const where = flow === undefined ? '' : ` WHERE flow = ${quoteLiteral(flow)}`;
    const rows = await session.rows(`SELECT ${COLUMNS} FROM waybill.quarantine${where} ORDER BY id`);
    const held = (await waybillTables(session)).has(HELD_TABLE)
      ? await session.rows(
          `SELECT CONCAT('held-', LEFT(hold, 12)), flow, source, table_schema, table_name, \`key\`, position, ordinal, op, reason,
             NULL, message, TRIM(TRAILING 'Z' FROM JSON_UNQUOTE(JSON_EXTRACT(\`change\`, '$.lineage.time'))) FROM waybill.${HELD_TABLE}${where} ORDER BY \`key\``,
        )
      : [];
    return [...rows, ...held].map(toEntry);
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.quarantine');
  }
}

/** How many changes of a flow wait, by reason. */
export async function countReasons(session: MysqlSession, flow: string): Promise<ReasonCount[]> {
  try {
    if (!(await exists(session))) return [];
    const rows = await session.rows(
      `SELECT reason, count(*) FROM waybill.quarantine WHERE flow = ${quoteLiteral(flow)} GROUP BY reason ORDER BY reason`,
    );
    return rows.map(([reason, count]) => ({ reason: reason!, count: Number(count) }));
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.quarantine');
  }
}

/** How many keys of a flow wait, by reason. */
export async function countKeys(session: MysqlSession, flow: string): Promise<ReasonCount[]> {
  try {
    const rows = await session.rows(
      `SELECT reason, count(DISTINCT table_schema, table_name, coalesce(\`key\`, id)) FROM waybill.quarantine
        WHERE flow = ${quoteLiteral(flow)} GROUP BY reason`,
    );
    return rows.map(([reason, count]) => ({ reason: reason!, count: Number(count) }));
  } catch (thrown) {
    throw targetError(thrown, 'counting what waits in waybill.quarantine');
  }
}

/** A part of a flow's inbox, oldest first. */
export async function pageQuarantine(
  session: MysqlSession,
  flow: string,
  { offset, limit, reason }: QuarantineSlice,
): Promise<QuarantineEntry[]> {
  try {
    if (!(await exists(session))) return [];
    const only = reason === undefined ? '' : ` AND reason = ${quoteLiteral(reason)}`;
    const rows = await session.rows(
      `SELECT ${COLUMNS} FROM waybill.quarantine WHERE flow = ${quoteLiteral(flow)}${only} ORDER BY id LIMIT ${limit} OFFSET ${offset}`,
    );
    return rows.map(toEntry);
  } catch (thrown) {
    throw targetError(thrown, 'reading waybill.quarantine');
  }
}

/** Puts new values into a quarantined row, while the flow stands still. */
export async function editQuarantine(session: MysqlSession, flow: string, id: string, edit: RowEdit): Promise<void> {
  await inFlowTransaction(session, flow, async () => {
    const where = `flow = ${quoteLiteral(flow)} AND id = ${quoteLiteral(id)}`;
    const [row] = await session.rows(`SELECT \`change\` FROM waybill.quarantine WHERE ${where} FOR UPDATE`);
    if (row === undefined) throw new ReplicationError('config_invalid', `flow ${flow} has no quarantined change ${id}`);
    const edited = editChange(JSON.parse(row[0]!) as QuarantinedChange, edit);
    await session.run(
      `UPDATE waybill.quarantine SET \`change\` = ${quoteLiteral(JSON.stringify(edited))} WHERE ${where}`,
    );
  });
}

/** One quarantined change with its row; undefined when there is none with this id. */
export async function showQuarantine(
  session: MysqlSession,
  id: string | number,
): Promise<QuarantineDetail | undefined> {
  try {
    if (!(await exists(session))) return undefined;
    const [row] = await session.rows(
      `SELECT ${COLUMNS}, \`change\` FROM waybill.quarantine WHERE id = ${quoteLiteral(String(id))}`,
    );
    return row === undefined ? undefined : toDetail(row);
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
  session: MysqlSession,
  flow: string,
  which: ReplayChoice,
): Promise<ReplayResult> {
  const select = `SELECT ${COLUMNS}, \`change\` FROM waybill.quarantine WHERE flow = ${quoteLiteral(flow)} ORDER BY id`;
  const plans = new Map<string, TablePlan>();
  try {
    // Making a table commits implicitly: whatever is missing is made before the transaction.
    if (await exists(session))
      for (const row of await session.rows(select)) await planOf(session, toDetail(row), plans);
  } catch (thrown) {
    throw targetError(thrown, `preparing to replay the quarantine of flow ${flow}`);
  }
  return await inFlowTransaction(session, flow, async () => {
    const rows = (await session.rows(select)).map(toDetail);
    const { applied, failed } = await replayRounds(chooseEntries(rows, which), (entry) =>
      tryEntry(session, entry, plans),
    );
    for (const { id, sqlState, message, reason } of failed)
      await session.run(
        `UPDATE waybill.quarantine SET reason = ${quoteLiteral(reason)}, \`sqlstate\` = ${quoteLiteral(sqlState)}, message = ${quoteLiteral(message)} WHERE id = ${id}`,
      );
    if (applied.length > 0) await session.run(`DELETE FROM waybill.quarantine WHERE id IN (${applied.join(', ')})`);
    return { applied: applied.length, failed };
  });
}

/** Deletes quarantined changes without applying them. Gives their number. */
export async function discardQuarantine(
  session: MysqlSession,
  flow: string,
  ids: readonly (string | number)[],
): Promise<number> {
  return await inFlowTransaction(session, flow, async () => {
    if (ids.length === 0) return 0;
    const list = ids.map((id) => quoteLiteral(String(id))).join(', ');
    const [outcome] = await session.run(
      `DELETE FROM waybill.quarantine WHERE flow = ${quoteLiteral(flow)} AND id IN (${list})`,
    );
    return outcome!.rows;
  });
}

/** Invariant 5: the position row is locked, so that the flow waits, and its version tells the flow to read again. */
async function inFlowTransaction<T>(session: MysqlSession, flow: string, work: () => Promise<T>): Promise<T> {
  try {
    await session.run('BEGIN');
    await session.rows(`SELECT 1 FROM waybill.position WHERE flow = ${quoteLiteral(flow)} FOR UPDATE`);
    const result = await work();
    await session.run(
      `UPDATE waybill.position SET quarantine_version = quarantine_version + 1 WHERE flow = ${quoteLiteral(flow)}; COMMIT`,
    );
    return result;
  } catch (thrown) {
    await session.run('ROLLBACK').catch(() => undefined);
    throw targetError(thrown, `working on the quarantine of flow ${flow}`);
  }
}

async function planOf(
  session: MysqlSession,
  entry: QuarantineDetail,
  plans: Map<string, TablePlan>,
): Promise<TablePlan> {
  const { table, target } = entry.change;
  const id = `${target.schema}.${target.name} ${table.version}`;
  let plan = plans.get(id);
  if (plan === undefined) {
    const ddl = async (sql: string): Promise<void> => {
      await session.run(sql);
    };
    plan = createTablePlan(table, await ensureTargetTable(session, table, target.schema, ddl));
    plans.set(id, plan);
  }
  return plan;
}

async function tryEntry(
  session: MysqlSession,
  entry: QuarantineDetail,
  plans: Map<string, TablePlan>,
): Promise<ReplayFailure | undefined> {
  const plan = await planOf(session, entry, plans);
  return await underSavepoint(session, () => applyRow(session, plan, entry.change.change));
}
