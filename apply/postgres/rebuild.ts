import type { ClientBase } from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import { formatPosition } from '../../core/position.ts';
import type { Rebuilt, RebuildOptions } from '../rebuild.ts';
import { REBUILDING } from '../rebuilding.ts';
import { readTableRecords } from './table-records.ts';
import { targetError } from './target-error.ts';

/**
 * Puts a flow back. A running one is fenced by that: its next batch finds another position (Invariant 5), and it starts
 * again from there. Its tables count as stopped until their readings begin, so that nothing earlier touches them.
 */
export async function rebuildFlow(
  client: ClientBase,
  { flow, source, stream, plan: planned }: RebuildOptions,
): Promise<Rebuilt | undefined> {
  try {
    await client.query("BEGIN; SET LOCAL lock_timeout = '30s'");
    const { rowCount } = await client.query(
      'SELECT 1 FROM waybill.position WHERE flow = $1 AND source = $2 FOR UPDATE',
      [flow, source],
    );
    const plan = rowCount === 0 ? undefined : await planned(await readTableRecords(client, flow));
    if (plan === undefined) {
      await client.query('ROLLBACK');
      return undefined;
    }
    await client.query(
      `UPDATE waybill.position SET position = $3, stream = $4, stream_seq = $5, commit_time = NULL,
              quarantine_version = quarantine_version + 1, updated_at = clock_timestamp() WHERE flow = $1 AND source = $2`,
      [flow, source, formatPosition(plan.from.position), stream, plan.from.seq],
    );
    await client.query(
      `UPDATE waybill.tables SET state = 'stopped', reason = $3, updated_at = clock_timestamp()
        WHERE flow = $1 AND source = $2 AND (table_schema, table_name) IN (SELECT * FROM unnest($4::text[], $5::text[]))`,
      [flow, source, REBUILDING, plan.tables.map(({ schema }) => schema), plan.tables.map(({ name }) => name)],
    );
    const { rowCount: discarded } = await client.query(
      'DELETE FROM waybill.quarantine WHERE flow = $1 AND source = $2 AND hold IS NULL',
      [flow, source],
    );
    await client.query('COMMIT');
    return { plan, discarded: discarded ?? 0 };
  } catch (thrown) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw thrown instanceof ReplicationError ? thrown : targetError(thrown, `rebuilding flow ${flow}`);
  }
}
