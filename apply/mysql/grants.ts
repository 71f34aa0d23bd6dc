import type { OutboundPlan } from '../../core/outbound.ts';
import { outboundGrants } from '../outbound/outbound-grants.ts';
import { quoteLiteral, quoteName } from './sql.ts';

/** In the database that is Waybill's own. */
export const OWN_RIGHTS = [
  'SELECT',
  'INSERT',
  'UPDATE',
  'DELETE',
  'CREATE',
  'ALTER',
  'DROP',
  'CREATE TEMPORARY TABLES',
];

/** In those that flows write into. */
export const FLOW_RIGHTS = ['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'CREATE', 'ALTER', 'REFERENCES'];

/** A database's name as a GRANT takes it, where `%` and `_` would stand for others, too. */
function databasePattern(name: string): string {
  return quoteName(name.replaceAll(/[_%]/g, String.raw`\$&`));
}

/**
 * The least that a target user needs, as SQL for a DBA to review and run. `schemas` are those that flows write into;
 * tables of `outbound` that name no database lie in `database`.
 */
export function targetGrantsSql(
  user: string,
  schemas: readonly string[],
  outbound: readonly OutboundPlan[],
  database: string | undefined,
): string {
  const account = `${quoteLiteral(user)}@'%'`;
  const system = outboundGrants(outbound, quoteName).map(({ table, rights }) => {
    const dot = table.indexOf('.');
    const place = dot < 0 ? database : table.slice(0, dot);
    const name = quoteName(table.slice(dot + 1));
    return `GRANT ${rights} ON ${place === undefined ? name : `${quoteName(place)}.${name}`} TO ${account};`;
  });
  const databases = ['waybill', ...schemas];
  return [
    `-- Least privilege for Waybill to write as ${account}. Run as an administrator.`,
    `-- Once, if the user does not exist yet: CREATE USER ${account} IDENTIFIED BY '...';`,
    '-- Where Waybill keeps its positions and its quarantine, and loads its batches:',
    'CREATE DATABASE IF NOT EXISTS `waybill` CHARACTER SET utf8mb4;',
    `GRANT ${OWN_RIGHTS.join(', ')} ON \`waybill\`.* TO ${account};`,
    ...(system.length === 0 ? [] : ['-- Tables of the system that outbound flows write to and look into:', ...system]),
    ...(schemas.length === 0
      ? []
      : ['-- Where the replicated tables live; Waybill makes them. REFERENCES lets it see foreign keys:']),
    ...schemas.flatMap((schema) => [
      `CREATE DATABASE IF NOT EXISTS ${quoteName(schema)} CHARACTER SET utf8mb4;`,
      `GRANT ${FLOW_RIGHTS.join(', ')} ON ${databasePattern(schema)}.* TO ${account};`,
    ]),
    '-- For fast batches, where the server allows it (MySQL leaves it off):',
    '-- SET PERSIST local_infile = ON;   -- MySQL',
    '-- SET GLOBAL local_infile = ON;    -- MariaDB, and local_infile=1 in its configuration',
    `-- ${databases.length} databases are written to: ${databases.join(', ')}`,
  ].join('\n');
}
