import { createHash } from 'node:crypto';
import { takeSessionName } from '../../core/session-lock.ts';
import { requireIdle, requireOwn, type Claim } from '../flow-owner.ts';
import type { MysqlSession } from './session.ts';
import { quoteLiteral } from './sql.ts';
import { targetError } from './target-error.ts';
import { waybillTables } from './waybill-database.ts';

const TAKE_SECONDS = 2;

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

/** The lock that says of an installation's session that it writes a flow. Locks have names of up to 64 characters. */
function workLock(flow: string, installation: string): string {
  return `waybill writes ${createHash('sha256').update(`${installation} ${flow}`).digest('hex').slice(0, 32)}`;
}

/** Throws `target_foreign` where another installation writes the flow at the moment. */
export async function requireIdleFlow(session: MysqlSession, claim: Claim): Promise<void> {
  try {
    if (!(await waybillTables(session)).has('owner')) return;
    await requireIdle(claim, await flowOwner(session, claim.flow), async (owner) => {
      const [row] = await session.rows(`SELECT IS_USED_LOCK(${quoteLiteral(workLock(claim.flow, owner))})`);
      return row?.[0] !== null && row?.[0] !== undefined;
    });
  } catch (thrown) {
    throw targetError(thrown, `asking who writes flow ${claim.flow}`);
  }
}

/** Says to other installations, for as long as the session lasts, that this one writes the flow. */
export async function showAtWork(session: MysqlSession, { flow, installation }: Claim): Promise<void> {
  try {
    await takeSessionName((sql) => session.rows(sql), workLock(flow, installation), TAKE_SECONDS);
  } catch (thrown) {
    throw targetError(thrown, `saying that flow ${flow} is written`);
  }
}
