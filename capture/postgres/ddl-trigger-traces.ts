/** The event triggers that grants offer, and what was made for them: what is left of them when a source is torn down. */
import type pg from 'pg';
import { DDL_FUNCTION, DDL_TRIGGERS } from './ddl-trigger.ts';

export interface Trace {
  readonly what: string;
  readonly dropSql: string;
  /** Why it stays; undefined where this user may drop it. */
  readonly kept?: string;
}

const OWNER = 'it belongs to another user; as that one or a superuser, run: ';

/**
 * What there is of them in the database, in the order in which it can be dropped. All stays while a slot other than `slot`
 * reads the database: another installation may use them.
 */
export async function ddlTraces(client: pg.Client, slot: string): Promise<Trace[]> {
  const { rows: others } = await client.query<{ name: string }>(
    'select slot_name as name from pg_replication_slots where database = current_database() and slot_name <> $1 and not temporary',
    [slot],
  );
  const { rows } = await client.query<{ what: string; sql: string; mine: boolean }>(
    `select what, sql, pg_has_role(owner, 'USAGE') as mine from (
       select 1 as n, 'event trigger ' || evtname as what, format('DROP EVENT TRIGGER %I', evtname) as sql, evtowner as owner
         from pg_event_trigger where evtname = any ($1)
       union all
       select 2, 'function waybill.' || proname || '()', format('DROP FUNCTION waybill.%I()', proname), proowner
         from pg_proc where pronamespace = to_regnamespace('waybill') and proname = $2 and pronargs = 0
       union all
       -- Of a database that is a target as well it holds more.
       select 3, 'schema waybill', 'DROP SCHEMA waybill', nspowner from pg_namespace s
        where nspname = 'waybill' and not exists (select from pg_class where relnamespace = s.oid)
          and not exists (select from pg_proc where pronamespace = s.oid and proname <> $2)
          and not exists (select from pg_type where typnamespace = s.oid)) found
      order by n, what`,
    [DDL_TRIGGERS, DDL_FUNCTION],
  );
  const used = others.map(({ name }) => name).join(', ');
  return rows.map(({ what, sql, mine }) => ({
    what,
    dropSql: sql,
    ...(used !== ''
      ? { kept: `this database is read through ${used} as well` }
      : mine
        ? {}
        : { kept: `${OWNER}${sql};` }),
  }));
}
