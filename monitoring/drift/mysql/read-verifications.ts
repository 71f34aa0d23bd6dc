/** Reads what comparisons found from `waybill.drift_run` and `waybill.drift` of a MySQL or MariaDB target. */
import type { TableProgress } from '../verify-table.ts';
import { LATEST_RUNS, summarize, type RunRow, type Verification } from '../verification.ts';
import { quoteText, type CompareSession } from './session.ts';

const DOING = 'reading what comparisons found';

/** By flow; flows that were never compared are not in it. */
export async function readVerifications(
  session: CompareSession,
  flows: readonly string[],
): Promise<Map<string, Verification>> {
  const found = new Map<string, Verification>();
  const tables = await session.query(
    `SELECT TABLE_NAME FROM information_schema.TABLES
      WHERE TABLE_SCHEMA = 'waybill' AND TABLE_NAME IN ('drift', 'drift_run')`,
    DOING,
  );
  if (tables.length < 2) return found;
  const open = await session.query(
    "SELECT flow, SUM(copies) FROM waybill.drift WHERE state = 'open' GROUP BY flow",
    DOING,
  );
  const driftRows = new Map(open.map(([flow, rows]) => [flow!, Number(rows)]));
  for (const flow of flows) {
    const rows = await session.query(
      `SELECT state, started_at, tables, error FROM waybill.drift_run WHERE flow = ${quoteText(flow)}
        ORDER BY id DESC LIMIT ${LATEST_RUNS}`,
      DOING,
    );
    const verification = summarize(
      rows.map(([state, startedAt, progress, error]) => toRun(state!, startedAt!, progress!, error ?? null)),
      driftRows.get(flow) ?? 0,
    );
    if (verification !== undefined) found.set(flow, verification);
  }
  return found;
}

function toRun(state: string, startedAt: string, progress: string, error: string | null): RunRow {
  const tables = Object.values(JSON.parse(progress) as Record<string, TableProgress>);
  return {
    state,
    error,
    startedAt: new Date(`${startedAt.replace(' ', 'T')}Z`),
    tables: tables.length,
    findings: tables.reduce((sum, table) => sum + table.findings.length, 0),
    unresolved: tables.reduce((sum, table) => sum + table.unresolved, 0),
  };
}
