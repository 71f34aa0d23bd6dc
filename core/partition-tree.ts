/** Partitions in Postgres, asked for without holding up anybody. */

/**
 * A subquery with a table and its partitions of any depth, by their oids: `relid`, and `isleaf` for what has rows of its own. A
 * table that has no partitions is a leaf itself. `oid` is an SQL expression, of the same level of the query or one around it.
 *
 * `pg_partition_tree` gives the same and locks each of them until the transaction ends: one that waits for a partition which
 * somebody changes has the others locked meanwhile, in the way of all who want to change those.
 */
export function partitionTreeSql(oid: string): string {
  return `(with recursive tree(relid) as (select ${oid}::oid union all
      select i.inhrelid from tree join pg_inherits i on i.inhparent = tree.relid and not i.inhdetachpending
        join pg_class k on k.oid = i.inhrelid and k.relispartition)
    select tree.relid, k.relkind <> 'p' as isleaf from tree join pg_class k on k.oid = tree.relid)`;
}
