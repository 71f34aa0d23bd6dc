import type { OutboundPlan } from '../../core/outbound.ts';
import { outboundGrants } from '../outbound/outbound-grants.ts';
import { quoteName } from './sql.ts';

/** The least that a target user needs, as SQL for a DBA to review and run. `schemas` are those that flows write into. */
export function targetGrantsSql(user: string, schemas: readonly string[], outbound: readonly OutboundPlan[]): string {
  const role = quoteName(user);
  const system = outboundGrants(outbound, quoteName).map(({ table, rights }) => {
    const dot = table.indexOf('.');
    const name = quoteName(table.slice(dot + 1));
    return `GRANT ${rights} ON ${dot < 0 ? name : `${quoteName(table.slice(0, dot))}.${name}`} TO ${role};`;
  });
  return [
    `-- Least privilege for Waybill to write as ${role}. Run in the target database as its owner or a superuser.`,
    `-- Once, if the user does not exist yet: CREATE ROLE ${role} LOGIN PASSWORD '...';`,
    '-- Where Waybill keeps its positions and its quarantine:',
    `CREATE SCHEMA IF NOT EXISTS waybill AUTHORIZATION ${role};`,
    ...(schemas.length === 0 ? [] : ['-- Where the replicated tables live; Waybill makes them and owns them:']),
    ...schemas.map((schema) => `CREATE SCHEMA IF NOT EXISTS ${quoteName(schema)} AUTHORIZATION ${role};`),
    '-- For batches:',
    `DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO ${role.replaceAll("'", "''")}', current_database()); END $$;`,
    ...(system.length === 0
      ? []
      : [
          '-- Tables of the system that outbound flows write to and look into; where a column that they do not give is filled',
          '-- from a sequence, also GRANT USAGE ON SEQUENCE (`waybill check` names it):',
          ...system,
        ]),
    '-- For outbound flows, so that what they write is told from what the system writes itself (as a superuser):',
    ...['create(text)', 'session_setup(text)', 'xact_setup(pg_lsn, timestamptz)'].map(
      (name) => `-- GRANT EXECUTE ON FUNCTION pg_replication_origin_${name} TO ${role};`,
    ),
    `-- GRANT SELECT ON pg_replication_origin TO ${role};`,
    ...(schemas.length === 0
      ? []
      : ['-- Where a schema and its tables exist already and belong to somebody else, instead:']),
    ...schemas.flatMap((schema) => [
      `-- GRANT USAGE, CREATE ON SCHEMA ${quoteName(schema)} TO ${role};`,
      `-- GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA ${quoteName(schema)} TO ${role};`,
    ]),
  ].join('\n');
}
