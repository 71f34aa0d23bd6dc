import type { ClientBase } from 'pg';
import { targetError } from './target-error.ts';

/** How many changes wait in quarantine, by flow. */
export async function countQuarantine(client: ClientBase): Promise<Map<string, number>> {
  try {
    const known = await client.query<{ there: boolean }>(
      `SELECT to_regclass('waybill.quarantine') IS NOT NULL AS there`,
    );
    if (known.rows[0]?.there !== true) return new Map();
    const { rows } = await client.query<{ flow: string; changes: string }>(
      'SELECT flow, count(*) AS changes FROM waybill.quarantine GROUP BY flow',
    );
    return new Map(rows.map(({ flow, changes }) => [flow, Number(changes)]));
  } catch (thrown) {
    throw targetError(thrown, 'counting waybill.quarantine');
  }
}
