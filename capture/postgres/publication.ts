/** The publication: made, adopted and kept in step with the configured tables. */
import type pg from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import { compileTablePatterns } from '../../core/table-pattern.ts';
import type { CapturedTable } from './catalog.ts';
import { readTables } from './read-tables.ts';
import { sourceError } from './source-error.ts';

export function quoteIdent(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

export function qualifiedName(table: { schema: string; name: string }): string {
  return `${quoteIdent(table.schema)}.${quoteIdent(table.name)}`;
}

/** The tables that the patterns choose. Throws `source_table_missing` when none does. */
export async function matchingTables(client: pg.Client, patterns: readonly string[]): Promise<CapturedTable[]> {
  const included = compileTablePatterns(patterns);
  const { tables } = await readTables(client, included);
  if (tables.length === 0)
    throw new ReplicationError('source_table_missing', `no table of the source matches ${patterns.join(', ')}`);
  return tables;
}

export interface PublicationInfo {
  readonly allTables: boolean;
  readonly viaRoot: boolean;
  readonly complete: boolean;
  readonly tables: ReadonlySet<string>;
  /** Tables of which it publishes only some rows or columns (PostgreSQL 15 and later), by oid. */
  readonly partial: ReadonlySet<number>;
}

/**
 * Undefined when there is none of that name. Throws `source_query`, which is tried again, also where a table is dropped at
 * this moment: Postgres then finds it in the list and cannot open it any more.
 */
export async function readPublication(client: pg.Client, publication: string): Promise<PublicationInfo | undefined> {
  try {
    return await publicationInfo(client, publication);
  } catch (thrown) {
    throw sourceError(thrown, `reading publication ${publication}`);
  }
}

async function publicationInfo(client: pg.Client, publication: string): Promise<PublicationInfo | undefined> {
  const result = await client.query<{ all: boolean; root: boolean; complete: boolean }>(
    `select puballtables as all, pubviaroot as root, pubinsert and pubupdate and pubdelete and pubtruncate as complete
     from pg_publication where pubname = $1`,
    [publication],
  );
  const row = result.rows[0];
  if (row === undefined) return undefined;
  const tables = await client.query<{ schema: string; name: string }>(
    'select schemaname as schema, tablename as name from pg_publication_tables where pubname = $1',
    [publication],
  );
  const partial = await client.query<{ oid: string }>(
    `select r.prrelid::int8::text as oid from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
      where p.pubname = $1 and (to_jsonb(r) ->> 'prqual' is not null or to_jsonb(r) ->> 'prattrs' is not null)`,
    [publication],
  );
  return {
    allTables: row.all,
    viaRoot: row.root,
    complete: row.complete,
    tables: new Set(tables.rows.map((t) => `${t.schema}.${t.name}`)),
    partial: new Set(partial.rows.map(({ oid }) => Number(oid))),
  };
}

/** The SQL that makes the publication right, for a DBA; empty when it is. */
export function publicationSql(
  publication: string,
  found: PublicationInfo | undefined,
  tables: readonly CapturedTable[],
): string[] {
  const name = quoteIdent(publication);
  const list = (some: readonly CapturedTable[]): string => some.map((table) => qualifiedName(table.schema)).join(', ');
  if (found === undefined)
    return [`CREATE PUBLICATION ${name} FOR TABLE ${list(tables)} WITH (publish_via_partition_root = true)`];
  const sql: string[] = [];
  const missing = tables.filter((table) => !found.tables.has(`${table.schema.schema}.${table.schema.name}`));
  if (missing.length > 0 && !found.allTables) sql.push(`ALTER PUBLICATION ${name} ADD TABLE ${list(missing)}`);
  if (!found.viaRoot) sql.push(`ALTER PUBLICATION ${name} SET (publish_via_partition_root = true)`);
  if (!found.complete) sql.push(`ALTER PUBLICATION ${name} SET (publish = 'insert, update, delete, truncate')`);
  return sql;
}

/** Why a publication cannot be used for some of the tables, with the SQL that mends it; undefined when it can. */
export function partialPublication(
  publication: string,
  found: PublicationInfo | undefined,
  tables: readonly CapturedTable[],
): { readonly message: string; readonly sql: string } | undefined {
  const partial = tables.filter(({ oid }) => found?.partial.has(oid));
  if (partial.length === 0) return undefined;
  const names = partial.map(({ schema }) => qualifiedName(schema)).join(', ');
  const name = quoteIdent(publication);
  return {
    message: `publication ${publication} publishes only some rows or columns of ${names}, and a snapshot would read all of them: exclude the tables, or publish them whole (columns can be left out with sources.*.columns)`,
    sql: `ALTER PUBLICATION ${name} DROP TABLE ${names}; ALTER PUBLICATION ${name} ADD TABLE ${names}`,
  };
}

/**
 * Makes the publication cover `tables`, or says what a DBA must run: `source_publication` with the SQL when this user
 * may not change it, and always where somebody chose to publish a part of a table.
 */
export async function ensurePublication(
  client: pg.Client,
  publication: string,
  tables: readonly CapturedTable[],
): Promise<void> {
  const found = await readPublication(client, publication);
  const partial = partialPublication(publication, found, tables);
  if (partial !== undefined)
    throw new ReplicationError('source_publication', `${partial.message}; run: ${partial.sql};`);
  for (const sql of publicationSql(publication, found, tables)) {
    try {
      await client.query(sql);
    } catch (thrown) {
      const error = sourceError(thrown, `publication ${publication}`);
      if (error.code !== 'source_privilege') throw error;
      throw new ReplicationError(
        'source_publication',
        `publication ${publication} does not cover the configured tables, and this user may not change it; run: ${sql};`,
        { cause: thrown },
      );
    }
  }
}

/** Whether what was thrown for a table says that it is not there any more. */
export function isTableGone(thrown: unknown): boolean {
  const { cause } = (thrown ?? {}) as { cause?: { code?: unknown } };
  return cause?.code === '42P01';
}
