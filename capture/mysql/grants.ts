import type { MysqlSourceConfig } from '../../core/config.ts';
import { quoteIdent } from './connection.ts';

/** The least that a source user needs, as SQL for a DBA to review and run. */
export function mysqlGrantsSql(name: string, settings: MysqlSourceConfig, user: string): string {
  const account = `'${user.replaceAll("'", "''")}'@'%'`;
  const patterns = settings.tables.filter((pattern) => !pattern.startsWith('!'));
  const schemas = [...new Set(patterns.map((pattern) => pattern.slice(0, pattern.indexOf('.'))))];
  const literal = schemas.filter((schema) => !schema.includes('*'));
  // In a GRANT the wildcards of a database's name are % and _.
  const escaped = (schema: string): string => quoteIdent(schema.replaceAll(/[_%]/g, String.raw`\$&`));
  const [replication, monitoring] =
    settings.kind === 'mysql' ? ['REPLICATION SLAVE', 'REPLICATION CLIENT'] : ['REPLICATION SLAVE', 'BINLOG MONITOR'];
  const lines = [
    `-- Least privilege for Waybill to capture source ${name}.`,
    `-- Once, if the user does not exist yet: CREATE USER ${account} IDENTIFIED BY '...';`,
    `GRANT ${replication} ON *.* TO ${account};`,
    '-- To see how much log the source keeps, for `status` and alerts:',
    `GRANT ${monitoring} ON *.* TO ${account};`,
    ...literal.map((schema) => `GRANT SELECT ON ${escaped(schema)}.* TO ${account};`),
    ...(literal.length === schemas.length
      ? []
      : ['-- Repeat the line above for each further database that the patterns of `tables` match.']),
  ];
  return `${lines.join('\n')}\n`;
}
