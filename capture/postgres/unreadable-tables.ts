/** Tables whose rows a snapshot cannot read, for this user lacks a right, with the SQL that mends it. */
import type pg from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import type { CapturedTable } from './catalog.ts';
import { sourceError } from './source-error.ts';

export interface UnreadableTable {
  /** As SQL names it. */
  readonly table: string;
  readonly message: string;
  readonly sql: string;
  /** Who runs it. */
  readonly by: string;
}

interface Row {
  readonly table: string;
  readonly role: string;
  readonly space: string;
  readonly usable: boolean;
  readonly readable: boolean;
  readonly hidden: boolean;
}

/** Those of the tables that cannot be read. `some`: the right to read some columns of a table will do. */
export async function unreadableTables(
  client: pg.Client,
  oids: readonly number[],
  { some = false } = {},
): Promise<UnreadableTable[]> {
  try {
    const { rows } = await client.query<Row>(
      `select c.oid::regclass::text as table, quote_ident(current_user) as role, quote_ident(n.nspname) as space,
         has_schema_privilege(n.oid, 'USAGE') as usable, row_security_active(c.oid) as hidden,
         has_table_privilege(c.oid, 'SELECT') or ($2 and has_any_column_privilege(c.oid, 'SELECT')) as readable
       from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = any($1::oid[]) order by 1`,
      [oids, some],
    );
    return rows.flatMap(problemsOf);
  } catch (thrown) {
    throw sourceError(thrown, 'asking which tables may be read');
  }
}

function problemsOf({ table, role, space, usable, readable, hidden }: Row): UnreadableTable[] {
  const grants = [
    ...(usable ? [] : [`GRANT USAGE ON SCHEMA ${space} TO ${role};`]),
    ...(readable ? [] : [`GRANT SELECT ON ${table} TO ${role};`]),
  ];
  const problems: UnreadableTable[] = [];
  if (grants.length > 0)
    problems.push({ table, message: 'this user may not read it', sql: grants.join(' '), by: 'as its owner' });
  if (hidden)
    problems.push({
      table,
      message: 'policies of row-level security hide rows from this user, which the log has',
      sql: `ALTER ROLE ${role} BYPASSRLS;`,
      by: 'as a superuser',
    });
  return problems;
}

/** Why a table, or `part` of it, was refused; undefined where nothing is lacking by now. */
export async function whyUnreadable(
  client: pg.Client,
  { oid, parts }: CapturedTable,
  part?: { readonly schema: string; readonly name: string },
): Promise<string | undefined> {
  const read = parts.find(({ schema, name }) => schema === part?.schema && name === part.name)?.oid ?? oid;
  const [problem] = await unreadableTables(client, [read]);
  return problem && `${problem.message}; run, ${problem.by}: ${problem.sql}`;
}

/** Throws `source_privilege` that names all of the tables that cannot be read. */
export async function requireReadable(client: pg.Client, tables: readonly CapturedTable[]): Promise<void> {
  const problems = await unreadableTables(
    client,
    tables.map(({ oid }) => oid),
    { some: true },
  );
  if (problems.length === 0) return;
  const said = problems.map(({ table, message, sql, by }) => `${table}: ${message}; run, ${by}: ${sql}`);
  throw new ReplicationError('source_privilege', said.join(' '));
}
