/** What an outbound flow leaves in a Postgres system: its replication origin, and its rows in schema `waybill`. */
import type { ClientBase } from 'pg';
import { originName } from '../../core/origin.ts';
import type { OutboundTrace, TracesOf } from '../outbound/outbound-traces.ts';
import { keptFor } from '../flow-owner.ts';
import { flowOwner } from './flow-owner.ts';
import { quoteLiteral } from './sql.ts';
import { sqlStateOf, targetError } from './target-error.ts';

const TABLES = ['owner', 'position', 'quarantine', 'tables', 'outbound_rows'];

/** Finds them, and removes them if that is asked for. Throws classified errors. */
export async function outboundTraces(
  client: ClientBase,
  { flow, installation, remove }: TracesOf,
): Promise<OutboundTrace[]> {
  const traces: OutboundTrace[] = [];
  try {
    const kept = keptFor(await flowOwner(client, flow), installation);
    for (const table of TABLES) {
      const name = `waybill.${table}`;
      const { rows } = await client.query<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', [name]);
      if (rows[0]?.there !== true) continue;
      const found = await client.query<{ rows: string }>(`SELECT count(*) AS rows FROM ${name} WHERE flow = $1`, [
        flow,
      ]);
      const count = Number(found.rows[0]!.rows);
      const what = `${count} row${count === 1 ? '' : 's'} of ${name}`;
      if (count > 0) traces.push(kept === undefined ? { what } : { what, kept });
      if (remove && kept === undefined) await client.query(`DELETE FROM ${name} WHERE flow = $1`, [flow]);
    }
    const origin = await originTrace(client, originName(flow, installation), remove);
    return origin === undefined ? traces : [...traces, origin];
  } catch (thrown) {
    throw targetError(thrown, `looking for what flow ${flow} left`);
  }
}

async function originTrace(client: ClientBase, origin: string, remove: boolean): Promise<OutboundTrace | undefined> {
  const what = `replication origin ${origin}`;
  const { rows } = await client.query<{ may: boolean }>(
    `SELECT has_table_privilege('pg_replication_origin', 'SELECT') AS may`,
  );
  // Who may not see origins could not set one up, either.
  if (rows[0]?.may !== true) return undefined;
  const { rowCount } = await client.query('SELECT 1 FROM pg_replication_origin WHERE roname = $1', [origin]);
  if (rowCount === 0) return undefined;
  const sql = `SELECT pg_replication_origin_drop(${quoteLiteral(origin)})`;
  const { rows: rights } = await client.query<{ may: boolean }>(
    `SELECT has_function_privilege('pg_replication_origin_drop(text)', 'EXECUTE') AS may`,
  );
  if (rights[0]?.may !== true) return { what, kept: `this user may not drop it; as a superuser: ${sql}` };
  try {
    if (remove) await client.query(sql);
    return { what };
  } catch (thrown) {
    // object_in_use
    if (sqlStateOf(thrown) !== '55006') throw thrown;
    return { what, kept: `a session still uses it; when that has ended: ${sql}` };
  }
}
