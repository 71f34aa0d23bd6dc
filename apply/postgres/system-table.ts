/** The tables of a system in Postgres that outbound flows write to, as they are. */
import type { ClientBase } from 'pg';
import type { SystemTable } from '../outbound/outbound-shape.ts';
import { readTable } from './target-table.ts';

/** Reads tables by their names, with or without a schema; undefined for one that is not there. */
export async function readSystemTables(
  client: ClientBase,
  names: readonly string[],
): Promise<Map<string, SystemTable | undefined>> {
  const tables = new Map<string, SystemTable | undefined>();
  for (const name of names) tables.set(name, await readSystemTable(client, name));
  return tables;
}

async function readSystemTable(client: ClientBase, name: string): Promise<SystemTable | undefined> {
  const dot = name.indexOf('.');
  const table = name.slice(dot + 1);
  const schemas = await client.query<{ schema: string }>(
    dot >= 0
      ? 'SELECT $2::text AS schema WHERE $1::text IS NOT NULL'
      : // In the order of the search path, as the system's own statements find it.
        `SELECT n.nspname AS schema FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relname = $1 AND n.nspname = ANY (current_schemas(false)) AND $2::text IS NULL
          ORDER BY array_position(current_schemas(false), n.nspname)`,
    [table, dot >= 0 ? name.slice(0, dot) : null],
  );
  const schema = schemas.rows[0]?.schema;
  const found = schema === undefined ? undefined : await readTable(client, schema, table);
  if (schema === undefined || found === undefined) return undefined;
  const unique = await client.query<{ columns: string[] }>(
    `SELECT ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid
                    AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) AS columns
       FROM pg_index i WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate
        AND i.indpred IS NULL AND i.indexprs IS NULL`,
    [found.oid],
  );
  const ofColumns = await client.query<{
    column: string;
    base: string | null;
    folding: string | null;
    exact: boolean;
    collation: string | null;
    denied: string[];
    sequence: string | null;
  }>(
    `SELECT a.attname AS column, CASE WHEN y.oid <> a.atttypid THEN format_type(y.oid, b.typmod) END AS base,
            CASE WHEN y.typname = 'citext' THEN 'OPERATOR(' || y.typnamespace::regnamespace || '.=)' END AS folding,
            y.typtype = 'e' OR y.oid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) AS exact,
            CASE WHEN NOT (to_jsonb(o) ->> 'collisdeterministic')::boolean
                 THEN o.collnamespace::regnamespace::text || '.' || quote_ident(o.collname) END AS collation,
            ARRAY(SELECT verb FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS verb
                   WHERE NOT has_column_privilege($1::oid, a.attnum, verb)) AS denied,
            (SELECT s.oid::regclass::text FROM pg_attrdef d
               JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass
               JOIN pg_class s ON s.oid = p.refobjid
              WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE, UPDATE') END
              LIMIT 1) AS sequence
       FROM pg_attribute a
       JOIN LATERAL (WITH RECURSIVE made (oid, typmod, depth) AS (
                       SELECT a.atttypid, a.atttypmod, 0
                        UNION ALL
                       SELECT d.typbasetype, d.typtypmod, m.depth + 1 FROM made m JOIN pg_type d ON d.oid = m.oid WHERE d.typtype = 'd')
                     SELECT oid, typmod FROM made ORDER BY depth DESC LIMIT 1) b ON true
       JOIN pg_type y ON y.oid = b.oid LEFT JOIN pg_collation o ON o.oid = a.attcollation
      WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped`,
    [found.oid],
  );
  const rights = new Map(ofColumns.rows.map((row) => [row.column, row]));
  const visible = await client.query<{ visible: boolean }>('SELECT pg_table_is_visible($1::oid) AS visible', [
    found.oid,
  ]);
  const denied = await client.query<{ verb: string }>(
    `SELECT verb FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS verb
      WHERE NOT CASE WHEN verb = 'DELETE' THEN has_table_privilege($1::oid, verb)
                     ELSE has_any_column_privilege($1::oid, verb) END`,
    [found.oid],
  );
  return {
    schema,
    name: table,
    foundByName: visible.rows[0]!.visible,
    columns: new Map(
      found.columns.map(({ name: column, type, notNull, defaulted, generated, identityAlways }) => [
        column,
        {
          type,
          notNull,
          defaulted,
          generated: generated || identityAlways,
          exact: rights.get(column)?.exact === true && rights.get(column)?.collation === null,
          collation: rights.get(column)?.collation ?? undefined,
          denied: rights.get(column)?.denied ?? [],
          ...(rights.get(column)?.base == null ? {} : { base: rights.get(column)!.base! }),
          ...(rights.get(column)?.folding == null ? {} : { folding: rights.get(column)!.folding! }),
          ...(rights.get(column)?.sequence == null ? {} : { deniedSequence: rights.get(column)!.sequence! }),
        },
      ]),
    ),
    unique: unique.rows.map(({ columns }) => columns),
    denied: denied.rows.map(({ verb }) => verb),
  };
}
