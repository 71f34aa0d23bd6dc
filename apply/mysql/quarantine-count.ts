import type { MysqlSession } from './session.ts';
import { targetError } from './target-error.ts';
import { waybillTables } from './waybill-database.ts';

/** How many changes wait in quarantine, by flow. */
export async function countQuarantine(session: MysqlSession): Promise<Map<string, number>> {
  try {
    if (!(await waybillTables(session)).has('quarantine')) return new Map();
    const rows = await session.rows('SELECT flow, COUNT(*) FROM waybill.quarantine GROUP BY flow');
    return new Map(rows.map(([flow, changes]) => [flow!, Number(changes)]));
  } catch (thrown) {
    throw targetError(thrown, 'counting waybill.quarantine');
  }
}
