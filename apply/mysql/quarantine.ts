/** The exception inbox of a target: listing, showing, replaying and discarding quarantined changes. */
import type { FlowConfig } from '../../core/config.ts';
import { ReplicationError } from '../../core/errors.ts';
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
import { applyRow } from './apply-row.ts';
import { utcDate } from './position.ts';
import type { MysqlSession } from './session.ts';
import { changeBytesSql, forgetPieces, readChange } from './quarantine-pieces.ts';
import { MOST_MESSAGE_CHARS } from './quarantine-insert.ts';
import { quoteLiteral, quoteNullable } from './sql.ts';
import { createTablePlan, type TablePlan } from './table-plan.ts';
import { readTableRecords } from './table-records.ts';
import { targetError } from './target-error.ts';
import { findTargetTable, lostError } from './target-table.ts';
import { underSavepoint } from './under-savepoint.ts';
import { HELD_TABLE, waybillTables } from './waybill-database.ts';

const COLUMNS =
  'id, flow, source, table_schema, table_name, `key`, position, ordinal, op, reason, `sqlstate`, message, created_at,' +
  // One that is stored in pieces has no names here.
  " IF(`change` = '', '[]', JSON_EXTRACT(NULLIF(`change`, ''), '$.table.key'))";

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

async function toDetail(session: MysqlSession, row: Row): Promise<QuarantineDetail> {
  const entry = toEntry(row);
  return { ...entry, change: await readChange(session, entry.id, row.at(-1)!) };
}

async function exists(session: MysqlSession): Promise<boolean> {
  return (await waybillTables(session)).has('quarantine');
}

/** A flow, and what it knows of its tables. */
export interface FlowOfTarget {
  readonly flow: string;
  readonly settings: FlowConfig;
  readonly followed: FollowedTables;
}

interface StoredRow {
  readonly id: string;
  readonly change: QuarantinedChange;
  readonly failure: RowFailure;
}

async function* sizesWhere(session: MysqlSession, where: string): AsyncGenerator<readonly [id: string, bytes: number]> {
  const bytesSql = await changeBytesSql(session);
  for (let last = '0'; ;) {
    const rows = await session.rows(
      `SELECT id, ${bytesSql} FROM waybill.quarantine WHERE ${where} AND id > ${last} ORDER BY id LIMIT ${PAGE_SIZES}`,
    );
    for (const [id, bytes] of rows) yield [id!, Number(bytes)];
    if (rows.length < PAGE_SIZES) return;
    last = rows.at(-1)![0]!;
  }
}

/** Changes in order, so many at a time as memory has room for. */
async function* pagesWhere(session: MysqlSession, where: string): AsyncGenerator<readonly StoredRow[]> {
  for await (const ids of pagesOf(sizesWhere(session, where))) {
    const rows = await session.rows(
      `SELECT id, \`change\`, reason, \`sqlstate\`, message FROM waybill.quarantine WHERE id IN (${ids.join(', ')}) ORDER BY id`,
    );
    const page: StoredRow[] = [];
    for (const [id, text, reason, sqlState, message] of rows)
      page.push({
        id: id!,
        change: await readChange(session, id!, text!),
        failure: { reason: reason!, sqlState: sqlState!, message: message! },
      });
    yield page;
  }
}

/** The same, one by one, with their ids. */
async function* changesWhere(
  session: MysqlSession,
  where: string,
): AsyncGenerator<readonly [id: string, change: QuarantinedChange]> {
  for await (const page of pagesWhere(session, where)) for (const { id, change } of page) yield [id, change];
}

/**
 * Loads the held keys of a flow, by the keys that its tables have now, without those of the transaction `except`. Both keys of an
 * update that changed one are held.
 */
export async function loadHeldKeys(
  session: MysqlSession,
  { flow, settings: { mirror: source }, followed }: FlowOfTarget,
  except?: string,
): Promise<HeldKeys> {
  const held = new HeldKeys();
  try {
    const where =
      `flow = ${quoteLiteral(flow)} AND source = ${quoteLiteral(source)} AND \`key\` IS NOT NULL` +
      (except === undefined ? '' : ` AND position <> ${quoteLiteral(except)}`);
    for await (const [, stored] of changesWhere(session, where)) {
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
  session: MysqlSession,
  { flow, settings, followed }: FlowOfTarget,
  position: string,
): AsyncGenerator<readonly QuarantinedRow<TablePlan>[]> {
  const plans = new Map<string, TablePlan>();
  const where = `flow = ${quoteLiteral(flow)} AND source = ${quoteLiteral(settings.mirror)} AND position = ${quoteLiteral(position)}`;
  for await (const page of pagesWhere(session, where)) {
    const found: QuarantinedRow<TablePlan>[] = [];
    for (const { id, change: stored, failure } of page) {
      const record = followed.of(stored.table);
      if (record?.state !== 'follows' || followed.isLost(stored.table)) continue;
      const change = asFollowed(stored, record.definition);
      if (change === undefined) continue;
      const plan = await planOf(session, change, plans, settings.deletes);
      const item = { plan, row: change.change, position, ordinal: 0, commitTimeUs: change.commitTimeUs ?? 0 };
      found.push({ id, failure, item });
    }
    yield found;
  }
}

export function failureSql(id: string, { reason, sqlState, message }: RowFailure): string {
  return (
    `UPDATE waybill.quarantine SET reason = ${quoteLiteral(reason)}, \`sqlstate\` = ${quoteNullable(sqlState)},` +
    ` message = ${quoteNullable(message?.slice(0, MOST_MESSAGE_CHARS) ?? null)} WHERE id = ${id}`
  );
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
    if (row[0] === '')
      throw new ReplicationError(
        'config_invalid',
        `change ${id} is larger than the target takes at once, and is edited at its source`,
      );
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
    return row === undefined ? undefined : await toDetail(session, row);
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
  session: MysqlSession,
  flow: string,
  which: ReplayChoice,
  deletes: FlowConfig['deletes'] = 'apply',
): Promise<ReplayResult> {
  const where = `flow = ${quoteLiteral(flow)}`;
  const plans = new Map<string, TablePlan>();
  let followed: FollowedVersions;
  try {
    followed = await followedVersions(session, flow);
    // Making a table commits implicitly: whatever is missing is made before the transaction.
    if (await exists(session))
      for await (const [, stored] of changesWhere(session, where)) {
        const change = followed(stored);
        if (change !== undefined) await planOf(session, change, plans, deletes);
      }
  } catch (thrown) {
    throw targetError(thrown, `preparing to replay the quarantine of flow ${flow}`);
  }
  return await inFlowTransaction(session, flow, async () => {
    const entries: KeyedEntry[] = [];
    for await (const [id, change] of changesWhere(session, where)) entries.push(keyedEntry(id, followed(change)));
    const { applied, failed } = await replayRounds(chooseEntries(entries, which), async (id) => {
      const [row] = await session.rows(`SELECT \`change\` FROM waybill.quarantine WHERE id = ${id}`);
      const stored = await readChange(session, id, row![0]!);
      const change = followed(stored);
      return change === undefined ? keyFailure(stored) : await tryChange(session, change, plans, deletes);
    });
    for (const { id, ...failure } of failed) await session.run(failureSql(id, failure));
    if (applied.length > 0) await session.run(`DELETE FROM waybill.quarantine WHERE id IN (${applied.join(', ')})`);
    await forgetPieces(session);
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
    const where = `flow = ${quoteLiteral(flow)} AND id IN (${list})`;
    const gone = await session.rows(
      `SELECT \`key\` FROM waybill.quarantine WHERE ${where} AND \`change\` = ${quoteLiteral(GONE_RECORD)}`,
    );
    // A record that has gone comes no more: what it had of a system's rows is nobody's.
    if (gone.length > 0)
      await session.run(
        `DELETE FROM waybill.outbound_rows WHERE flow = ${quoteLiteral(flow)}` +
          ` AND record_id IN (${gone.map(([key]) => quoteLiteral(recordId(key!))).join(', ')})`,
      );
    const [outcome] = await session.run(`DELETE FROM waybill.quarantine WHERE ${where}`);
    await forgetPieces(session);
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

/** Gives a change as the version of its table has it that the flow follows now; undefined where nothing tells its key. */
type FollowedVersions = (change: QuarantinedChange) => QuarantinedChange | undefined;

async function followedVersions(session: MysqlSession, flow: string): Promise<FollowedVersions> {
  const records = await readTableRecords(session, flow);
  const versions = new Map(records.map((record) => [nameOf(record), record.definition]));
  return (change) => asFollowed(change, versions.get(nameOf(change.table)));
}

async function planOf(
  session: MysqlSession,
  change: QuarantinedChange,
  plans: Map<string, TablePlan>,
  deletes: FlowConfig['deletes'],
): Promise<TablePlan> {
  const { table, target } = change;
  const id = planKey(change);
  let plan = plans.get(id);
  if (plan === undefined) {
    const found = await findTargetTable(session, table, target.schema, deletes);
    if (found === undefined) throw lostError(target.schema, table.name);
    plan = createTablePlan(table, found, deletes);
    plans.set(id, plan);
  }
  return plan;
}

async function tryChange(
  session: MysqlSession,
  change: QuarantinedChange,
  plans: Map<string, TablePlan>,
  deletes: FlowConfig['deletes'],
): Promise<ReplayFailure | undefined> {
  const plan = await planOf(session, change, plans, deletes);
  return await underSavepoint(session, () => applyRow(session, plan, change.change, change.commitTimeUs));
}
