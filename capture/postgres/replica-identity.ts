/**
 * Replica identities of partitions. What the log tells of an updated or deleted row is what the partition's own identity
 * says, whatever that of its root is, and ALTER TABLE ... REPLICA IDENTITY on the root does not reach its partitions.
 */
import type pg from 'pg';
import { ReplicationError } from '../../core/errors.ts';
import { partitionTreeSql } from '../../core/partition-tree.ts';
import { hasIdentity, type CapturedTable } from './catalog.ts';
import { qualifiedName } from './publication.ts';
import { sourceError } from './source-error.ts';

/** A partition of which the log does not tell what its root needs. */
export interface LeafProblem {
  readonly root: CapturedTable;
  readonly leaf: { readonly schema: string; readonly name: string };
  /** Its updates would fail at the source once it is published, for it has no identity at all. */
  readonly fails: boolean;
  /** Makes it right. */
  readonly sql: string;
}

interface Row {
  readonly root: string;
  readonly schema: string;
  readonly name: string;
  readonly identity: string;
  readonly columns: string[] | null;
}

/** The partitions of `tables` whose identities do not do. */
export async function leafProblems(client: pg.Client, tables: readonly CapturedTable[]): Promise<LeafProblem[]> {
  const roots = new Map(tables.filter(({ partitioned }) => partitioned).map((table) => [String(table.oid), table]));
  if (roots.size === 0) return [];
  try {
    const { rows } = await client.query<Row>(
      `select r.oid::int8::text as root, n.nspname as schema, c.relname as name, c.relreplident as identity,
         (select array_agg(a.attname::text) from pg_index i cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, n)
            join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
           where i.indrelid = c.oid and k.n <= i.indnkeyatts
             and case when c.relreplident = 'i' then i.indisreplident else i.indisprimary and i.indimmediate end) as columns
       from unnest($1::int8[]::oid[]) r(oid) cross join lateral ${partitionTreeSql('r.oid')} p
         join pg_class c on c.oid = p.relid join pg_namespace n on n.oid = c.relnamespace
       where p.isleaf and c.relkind = 'r' order by 1, 2, 3`,
      [[...roots.keys()]],
    );
    return rows.flatMap(({ root: oid, schema, name, identity, columns }) => {
      const root = roots.get(oid)!;
      const logged = identity === 'n' ? [] : (columns ?? []);
      const fails = identity !== 'f' && logged.length === 0;
      const { schema: wanted } = root;
      const enough = wanted.identity === 'full' ? false : wanted.key.every((column) => logged.includes(column));
      if (identity === 'f' || (!fails && enough) || !hasIdentity(wanted)) return [];
      const leaf = { schema, name };
      return [{ root, leaf, fails, sql: `ALTER TABLE ${qualifiedName(leaf)} REPLICA IDENTITY FULL;` }];
    });
  } catch (thrown) {
    throw sourceError(thrown, 'reading the replica identities of partitions');
  }
}

/** What is said of the partitions of one root. */
export function describeLeaves(problems: readonly LeafProblem[]): string {
  const names = problems.map(({ leaf }) => `${leaf.schema}.${leaf.name}`).join(', ');
  return `the replica identity of ${problems.length === 1 ? 'partition' : 'partitions'} ${names} does not tell of updates and deletes what ${qualifiedName(problems[0]!.root.schema)} needs (that of the table itself does not reach its partitions)`;
}

/** Throws `source_table_identity` naming every table whose updates and deletes could not be followed. */
export async function requireIdentities(client: pg.Client, tables: readonly CapturedTable[]): Promise<void> {
  const without = tables.filter((table) => !hasIdentity(table.schema));
  const leaves = await leafProblems(client, tables);
  const said: string[] = [];
  if (without.length > 0)
    said.push(
      `${without.map((table) => `${table.schema.schema}.${table.schema.name}`).join(', ')} ha${without.length === 1 ? 's' : 've'} no primary key (a deferrable one does not count) and no replica identity; add a primary key, or run: ${without.map(({ schema }) => `ALTER TABLE ${qualifiedName(schema)} REPLICA IDENTITY FULL;`).join(' ')}`,
    );
  for (const root of new Set(leaves.map((leaf) => leaf.root))) {
    const its = leaves.filter((leaf) => leaf.root === root);
    said.push(`${describeLeaves(its)}; run: ${its.map(({ sql }) => sql).join(' ')}`);
  }
  if (said.length > 0) throw new ReplicationError('source_table_identity', said.join('. '));
}
