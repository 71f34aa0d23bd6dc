/** What an outbound flow leaves in a system in MySQL or MariaDB: its rows in database `waybill`, the mark of its writes among them. */
import { markerTable } from '../../core/origin.ts';
import { keptFor } from '../flow-owner.ts';
import type { OutboundTrace, TracesOf } from '../outbound/outbound-traces.ts';
import { flowOwner } from './flow-owner.ts';
import type { MysqlSession } from './session.ts';
import { qualifiedName, quoteLiteral } from './sql.ts';
import { targetError } from './target-error.ts';
import { waybillTables } from './waybill-database.ts';

const TABLES = ['owner', 'position', 'quarantine', 'snapshot', 'tables', 'schema_changes', 'outbound_rows'];

/** Finds them, and removes them if that is asked for. Throws classified errors. */
export async function outboundTraces(
  session: MysqlSession,
  { flow, installation, remove }: TracesOf,
): Promise<OutboundTrace[]> {
  const traces: OutboundTrace[] = [];
  try {
    const there = await waybillTables(session);
    const marker = markerTable(installation);
    const foreign = there.has('owner') ? keptFor(await flowOwner(session, flow), installation) : undefined;
    for (const table of [...TABLES, marker]) {
      if (!there.has(table)) continue;
      const name = qualifiedName('waybill', table);
      const where = `WHERE flow = ${quoteLiteral(flow)}`;
      const [row] = await session.rows(`SELECT count(*) FROM ${name} ${where}`);
      const count = Number(row![0]);
      // The mark bears the name of the installation.
      const kept = table === marker ? undefined : foreign;
      const what = `${count} row${count === 1 ? '' : 's'} of waybill.${table}`;
      if (count > 0) traces.push(kept === undefined ? { what } : { what, kept });
      if (!remove || kept !== undefined) continue;
      await session.run(`DELETE FROM ${name} ${where}`);
      if (table !== marker) continue;
      const [other] = await session.rows(`SELECT 1 FROM ${name} LIMIT 1`);
      if (other !== undefined) continue;
      await session.run(`DROP TABLE ${name}`);
      traces.push({ what: `table waybill.${marker}` });
    }
    return traces;
  } catch (thrown) {
    throw targetError(thrown, `looking for what flow ${flow} left`);
  }
}
