/**
 * Replica identities of tables and partitions. What the log tells of an updated or deleted row is what the partition's own identity
 * says, whatever that of its root is, and ALTER TABLE ... REPLICA IDENTITY on the root does not reach its partitions.
 */
import type pg from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import { partitionTreeSql } from '../../core/partition-tree.ts';
import { hasIdentity, type CapturedTable } from './catalog.ts';
import { qualifiedName } from './publication.ts';
import { sourceError } from './source-error.ts';

/** A table, or a partition, whose identity does not do. */
export interface IdentityProblem {
  readonly root: CapturedTable;
  /** The partition, or the table itself where it has none. */
  readonly leaf: { readonly schema: string; readonly name: string };
  /** Its updates would fail at the source once it is published. */
  readonly fails: boolean;
  /** Generated columns in its identity that are not published: PostgreSQL 18 and later refuse its updates for them. */
  readonly generated: readonly string[];
  /** Makes it right. */
  readonly sql: string;
}

interface Row {
  readonly root: string;
  readonly schema: string;
  readonly name: string;
  readonly identity: string;
  readonly columns: string[] | null;
  readonly generated: string[] | null;
  readonly plain: boolean;
}

/** The columns of the index that is the identity of table `c`. */
const IDENTITY_INDEX_SQL = `pg_index i cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, n)
  join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
  where i.indrelid = c.oid and k.n <= i.indnkeyatts
    and case when c.relreplident = 'i' then i.indisreplident else i.indisprimary and i.indimmediate end`;

/** `plain`: a primary key without generated columns, which could be the identity. */
const PROBLEMS_SQL = `
  select leaf.root::int8::text as root, n.nspname as schema, c.relname as name, c.relreplident as identity,
    (select array_agg(a.attname::text) from ${IDENTITY_INDEX_SQL}) as columns,
    (select array_agg(g.attname::text order by g.attnum) from pg_attribute g
      where current_setting('server_version_num')::int >= 180000 and g.attrelid = c.oid and g.attnum > 0
        and not g.attisdropped and (g.attgenerated = 'v' or g.attgenerated = 's' and not coalesce(
          (select to_jsonb(p) ->> 'pubgencols' = 's' from pg_publication p where p.pubname = $3), false))
        and (c.relreplident = 'f'
          or c.relreplident <> 'n' and exists (select from ${IDENTITY_INDEX_SQL} and a.attnum = g.attnum))) as generated,
    exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary and i.indimmediate
      and not exists (select from pg_attribute a where a.attrelid = c.oid and a.attnum = any(i.indkey::int2[]) and a.attgenerated <> '')) as plain
  from (select r.oid as root, p.relid from unnest($1::int8[]::oid[]) r(oid) cross join lateral ${partitionTreeSql('r.oid')} p
      where p.isleaf union all select t.oid, t.oid from unnest($2::int8[]::oid[]) t(oid)) leaf
    join pg_class c on c.oid = leaf.relid join pg_namespace n on n.oid = c.relnamespace
  where c.relkind = 'r' order by 2, 3`;

/** The tables and partitions whose identities do not do, but for tables that have none, in a publication that is there or not yet. */
export async function identityProblems(
  client: pg.Client,
  publication: string,
  tables: readonly CapturedTable[],
): Promise<IdentityProblem[]> {
  const byOid = new Map(tables.map((table) => [String(table.oid), table]));
  if (byOid.size === 0) return [];
  const oids = (partitioned: boolean): number[] =>
    tables.filter((table) => table.partitioned === partitioned).map(({ oid }) => oid);
  try {
    const { rows } = await client.query<Row>(PROBLEMS_SQL, [oids(true), oids(false), publication]);
    return rows.flatMap((row) => identityProblem(row, byOid.get(row.root)!) ?? []);
  } catch (thrown) {
    throw sourceError(thrown, 'reading replica identities');
  }
}

function identityProblem(row: Row, root: CapturedTable): IdentityProblem | undefined {
  const { identity, columns, generated, schema, name } = row;
  const leaf = { schema, name };
  const { schema: wanted } = root;
  if (generated !== null) {
    const another = row.plain ? 'DEFAULT' : 'USING INDEX …';
    // What a partition tells must be no less than what its table says.
    const places = root.partitioned && wanted.identity === 'full' ? [wanted, leaf] : [leaf];
    const sql = places.map((each) => `ALTER TABLE ${qualifiedName(each)} REPLICA IDENTITY ${another};`).join(' ');
    return { root, leaf, fails: true, generated, sql };
  }
  const logged = identity === 'n' ? [] : (columns ?? []);
  const fails = identity !== 'f' && logged.length === 0;
  const enough = wanted.identity === 'full' ? false : wanted.key.every((column) => logged.includes(column));
  if (identity === 'f' || (!fails && enough) || !hasIdentity(wanted)) return undefined;
  return { root, leaf, fails, generated: [], sql: `ALTER TABLE ${qualifiedName(leaf)} REPLICA IDENTITY FULL;` };
}

/** What is said of one root, and its partitions. */
export function describeProblems(problems: readonly IdentityProblem[]): string {
  const refused = problems.filter(({ generated }) => generated.length > 0);
  const short = problems.filter(({ generated }) => generated.length === 0);
  const list = (some: readonly IdentityProblem[]): string =>
    some.map(({ leaf }) => `${leaf.schema}.${leaf.name}`).join(', ');
  const said: string[] = [];
  if (refused.length > 0) {
    const columns = [...new Set(refused.flatMap(({ generated }) => generated))].join(', ');
    said.push(
      `the replica identity of ${list(refused)} has generated columns (${columns}): PostgreSQL 18 and later refuse updates and deletes of it once it is published`,
    );
  }
  if (short.length > 0)
    said.push(
      `the replica identity of ${short.length === 1 ? 'partition' : 'partitions'} ${list(short)} does not tell of updates and deletes what ${qualifiedName(short[0]!.root.schema)} needs (that of the table itself does not reach its partitions)`,
    );
  return said.join('; ');
}

/** What is said of a table that has no identity at all. */
export function describeMissing({ schema }: CapturedTable): string {
  return `it has no primary key (a deferrable one does not count) and no replica identity; run: ALTER TABLE ${qualifiedName(schema)} REPLICA IDENTITY FULL;`;
}

/** Throws `source_table_identity` naming every table whose updates and deletes could not be followed. */
export async function requireIdentities(
  client: pg.Client,
  publication: string,
  tables: readonly CapturedTable[],
): Promise<void> {
  const without = tables.filter((table) => !hasIdentity(table.schema));
  const problems = await identityProblems(client, publication, tables);
  const said: string[] = [];
  if (without.length > 0)
    said.push(
      `${without.map((table) => `${table.schema.schema}.${table.schema.name}`).join(', ')} ha${without.length === 1 ? 's' : 've'} no primary key (a deferrable one does not count) and no replica identity; add a primary key, or run: ${without.map(({ schema }) => `ALTER TABLE ${qualifiedName(schema)} REPLICA IDENTITY FULL;`).join(' ')}`,
    );
  for (const root of new Set(problems.map((problem) => problem.root))) {
    const its = problems.filter((problem) => problem.root === root);
    said.push(`${describeProblems(its)}; run: ${its.map(({ sql }) => sql).join(' ')}`);
  }
  if (said.length > 0) throw new ReplicationError('source_table_identity', said.join('. '));
}
