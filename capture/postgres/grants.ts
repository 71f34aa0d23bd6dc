import { publicationName, type PostgresSourceConfig } from '../../core/config.ts';
import { ddlTriggerSql } from './ddl-trigger.ts';
import { quoteIdent } from './publication.ts';

/**
 * The least that a source user needs, as SQL for a DBA to review and run as owner of the tables or superuser.
 * `schemas` are those of the configured table patterns.
 */
export function sourceGrantsSql(name: string, settings: PostgresSourceConfig, prefix: string, user: string): string {
  const quoted = quoteIdent(user);
  const schemas = [
    ...new Set(
      settings.tables.filter((p) => !p.startsWith('!')).map((pattern) => pattern.slice(0, pattern.indexOf('.'))),
    ),
  ];
  const literalSchemas = schemas.filter((schema) => !schema.includes('*'));
  const publication = quoteIdent(publicationName(name, settings, prefix));
  const lines = [
    `-- Least privilege for Waybill to capture source ${name}.`,
    `-- Once, if the user does not exist yet: CREATE ROLE ${quoted} LOGIN REPLICATION PASSWORD '...';`,
    `ALTER ROLE ${quoted} REPLICATION;`,
    ...literalSchemas.flatMap((schema) => [
      `GRANT USAGE ON SCHEMA ${quoteIdent(schema)} TO ${quoted};`,
      `GRANT SELECT ON ALL TABLES IN SCHEMA ${quoteIdent(schema)} TO ${quoted};`,
      `ALTER DEFAULT PRIVILEGES IN SCHEMA ${quoteIdent(schema)} GRANT SELECT ON TABLES TO ${quoted};`,
      // Without FOR ROLE it holds for whoever runs it alone.
      `-- For each other role that makes tables there: ALTER DEFAULT PRIVILEGES FOR ROLE ... IN SCHEMA ${quoteIdent(schema)} GRANT SELECT ON TABLES TO ${quoted};`,
    ]),
    ...(literalSchemas.length === schemas.length
      ? []
      : ['-- Repeat the lines above for each further schema that the patterns of `tables` match.']),
    '-- Where policies of row-level security would hide rows from snapshots (as a superuser):',
    `-- ALTER ROLE ${quoted} BYPASSRLS;`,
    '-- The publication is best made by the owner of the tables, so that Waybill needs no right to change anything:',
    ...literalSchemas.map(
      (schema) =>
        `-- CREATE PUBLICATION ${publication} FOR TABLES IN SCHEMA ${quoteIdent(schema)} WITH (publish_via_partition_root = true);`,
    ),
    '-- (PostgreSQL 15 and later; on 14 name the tables: FOR TABLE a, b, c.)',
    '-- Optional: changes of definitions at once and in their exact place, by event triggers. For a superuser, or whoever',
    '-- may make event triggers on a managed service; nothing depends on them (docs/schema-changes.md):',
    ...ddlTriggerSql()
      .split('\n')
      .map((line) => `-- ${line}`),
  ];
  return `${lines.join('\n')}\n`;
}
