import { ReplicationError } from '../../core/errors.ts';
import { formatPosition } from '../../core/position.ts';
import type { Rebuilt, RebuildOptions } from '../rebuild.ts';
import { REBUILDING } from '../rebuilding.ts';
import { forgetPieces } from './quarantine-pieces.ts';
import type { MysqlSession } from './session.ts';
import { quoteLiteral } from './sql.ts';
import { readTableRecords } from './table-records.ts';
import { targetError } from './target-error.ts';

/**
 * Puts a flow back. A running one is fenced by that: its next batch finds another position (Invariant 5), and it starts
 * again from there. Its tables count as stopped until their readings begin, so that nothing earlier touches them.
 */
export async function rebuildFlow(
  session: MysqlSession,
  { flow, source, stream, plan: planned }: RebuildOptions,
): Promise<Rebuilt | undefined> {
  const own = `flow = ${quoteLiteral(flow)} AND source = ${quoteLiteral(source)}`;
  try {
    await session.run('BEGIN');
    const [row] = await session.rows(`SELECT 1 FROM waybill.position WHERE ${own} FOR UPDATE`);
    const plan = row === undefined ? undefined : await planned(await readTableRecords(session, flow));
    if (plan === undefined) {
      await session.run('ROLLBACK');
      return undefined;
    }
    await session.run(
      `UPDATE waybill.position SET position = ${quoteLiteral(formatPosition(plan.from.position))},` +
        ` stream = ${quoteLiteral(stream)}, stream_seq = ${plan.from.seq}, commit_time = NULL,` +
        ` quarantine_version = quarantine_version + 1, updated_at = UTC_TIMESTAMP(6) WHERE ${own}`,
    );
    const tables = plan.tables.map(({ schema, name }) => `(${quoteLiteral(schema)}, ${quoteLiteral(name)})`);
    await session.run(
      `UPDATE waybill.tables SET state = 'stopped', reason = ${quoteLiteral(REBUILDING)}, updated_at = UTC_TIMESTAMP(6)` +
        ` WHERE ${own} AND (table_schema, table_name) IN (${tables.join(', ')})`,
    );
    const [discarded] = await session.run(`DELETE FROM waybill.quarantine WHERE ${own}`);
    await forgetPieces(session);
    await session.run('COMMIT');
    return { plan, discarded: discarded?.rows ?? 0 };
  } catch (thrown) {
    await session.run('ROLLBACK').catch(() => undefined);
    throw thrown instanceof ReplicationError ? thrown : targetError(thrown, `rebuilding flow ${flow}`);
  }
}
