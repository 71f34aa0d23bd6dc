import type { ClientBase } from 'pg';
import { sessionName } from '../../core/stale-sessions.ts';
import { requireIdle, requireOwn, type Claim } from '../flow-owner.ts';
import { targetError } from './target-error.ts';

/** Notes that a flow is this installation's. Throws `target_foreign` where it must not be another's and is. */
export async function claimFlow(client: ClientBase, claim: Claim): Promise<void> {
  const { flow, installation, exclusive } = claim;
  try {
    const { rows } = await client.query<{ installation: string }>(
      `INSERT INTO waybill.owner (flow, installation) VALUES ($1, $2) ON CONFLICT (flow) DO UPDATE
         SET installation = CASE WHEN $3 THEN owner.installation ELSE excluded.installation END RETURNING installation`,
      [flow, installation, exclusive],
    );
    requireOwn(claim, rows[0]!.installation);
  } catch (thrown) {
    throw targetError(thrown, `noting whose flow ${flow} is`);
  }
}

/** The installation that a flow belongs to; undefined where none is noted. */
export async function flowOwner(client: ClientBase, flow: string): Promise<string | undefined> {
  const known = await client.query<{ there: boolean }>(`SELECT to_regclass('waybill.owner') IS NOT NULL AS there`);
  if (known.rows[0]?.there !== true) return undefined;
  const { rows } = await client.query<{ installation: string }>(
    'SELECT installation FROM waybill.owner WHERE flow = $1',
    [flow],
  );
  return rows[0]?.installation;
}

/** Throws `target_foreign` where another installation writes the flow at the moment. */
export async function requireIdleFlow(client: ClientBase, claim: Claim): Promise<void> {
  try {
    await requireIdle(claim, await flowOwner(client, claim.flow), async (owner) => {
      const { rows } = await client.query(
        'SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1',
        [sessionName('apply', claim.flow, owner)],
      );
      return rows.length > 0;
    });
  } catch (thrown) {
    throw targetError(thrown, `asking who writes flow ${claim.flow}`);
  }
}
