import { requireOwn, type Claim } from '../flow-owner.ts';
import type { MysqlSession } from './session.ts';
import { quoteLiteral } from './sql.ts';
import { targetError } from './target-error.ts';

/** Notes that a flow is this installation's. Throws `target_foreign` where it must not be another's and is. */
export async function claimFlow(session: MysqlSession, claim: Claim): Promise<void> {
  const { flow, installation, exclusive } = claim;
  const own = quoteLiteral(installation);
  try {
    await session.run(
      `INSERT INTO waybill.owner (flow, installation) VALUES (${quoteLiteral(flow)}, ${own})` +
        ` ON DUPLICATE KEY UPDATE installation = ${exclusive ? 'waybill.owner.installation' : own}`,
    );
    requireOwn(claim, (await flowOwner(session, flow))!);
  } catch (thrown) {
    throw targetError(thrown, `noting whose flow ${flow} is`);
  }
}

/** The installation that a flow belongs to; undefined where none is noted. The table must be there. */
export async function flowOwner(session: MysqlSession, flow: string): Promise<string | undefined> {
  const [row] = await session.rows(`SELECT installation FROM waybill.owner WHERE flow = ${quoteLiteral(flow)}`);
  return row?.[0] ?? undefined;
}
