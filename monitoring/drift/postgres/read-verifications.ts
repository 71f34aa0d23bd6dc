/** Reads what comparisons found from `waybill.drift_run` and `waybill.drift` of a Postgres target. */
import type pg from 'pg';
import { LATEST_RUNS, summarize, type RunRow, type Verification } from '../verification.ts';
import { sideError } from './session.ts';

/** By flow; flows that were never compared are not in it. */
export async function readVerifications(
  client: pg.Client,
  flows: readonly string[],
): Promise<Map<string, Verification>> {
  const found = new Map<string, Verification>();
  try {
    const known = await client.query<{ there: boolean }>(
      `SELECT to_regclass('waybill.drift_run') IS NOT NULL AND to_regclass('waybill.drift') IS NOT NULL AS there`,
    );
    if (known.rows[0]?.there !== true) return found;
    const open = await client.query<{ flow: string; rows: string }>(
      `SELECT flow, sum(copies)::text AS rows FROM waybill.drift WHERE state = 'open' GROUP BY flow`,
    );
    const driftRows = new Map(open.rows.map(({ flow, rows }) => [flow, Number(rows)]));
    for (const flow of flows) {
      type Row = {
        state: string;
        error: string | null;
        startedAt: Date;
        tables: string;
        findings: string;
        unresolved: string;
      };
      const { rows } = await client.query<Row>(
        `SELECT r.state, r.error, r.started_at AS "startedAt", t.tables::text, t.findings::text, t.unresolved::text
           FROM (SELECT * FROM waybill.drift_run WHERE flow = $1 ORDER BY id DESC LIMIT ${LATEST_RUNS}) r,
             LATERAL (SELECT count(*) AS tables, coalesce(sum(jsonb_array_length(value -> 'findings')), 0) AS findings,
               coalesce(sum((value ->> 'unresolved')::bigint), 0) AS unresolved FROM jsonb_each(r.tables)) t
          ORDER BY r.id DESC`,
        [flow],
      );
      const runs = rows.map((row): RunRow => ({
        ...row,
        tables: Number(row.tables),
        findings: Number(row.findings),
        unresolved: Number(row.unresolved),
      }));
      const verification = summarize(runs, driftRows.get(flow) ?? 0);
      if (verification !== undefined) found.set(flow, verification);
    }
    return found;
  } catch (thrown) {
    throw sideError('target', thrown, 'reading what comparisons found');
  }
}
