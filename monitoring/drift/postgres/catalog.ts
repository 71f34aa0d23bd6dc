/** Tables of a Postgres database, with what it takes to compare them. */
import type pg from 'pg';
import { partitionTreeSql } from '../../../core/partition-tree.ts';
import type { SideTable } from '../side.ts';
import type { Role } from './session.ts';

/**
 * Generated columns are left out, as capture and apply leave them out; so are partitions, which their root stands for.
 * The key is that of the replica identity where one is named, else the primary key, as for a capture.
 */
const QUERY = `
select n.nspname as schema, c.relname as name,
  (select json_agg(a.attname order by k.n) from pg_index i
     cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, n)
     join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
   where i.indrelid = c.oid and k.n <= i.indnkeyatts
     and case when c.relreplident = 'i' then i.indisreplident else i.indisprimary and i.indimmediate end) as key,
  (select json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
       'base', case y.typtype when 'd' then format_type(y.typbasetype, y.typtypmod) else format_type(a.atttypid, a.atttypmod) end,
       'bytewise',
       case when a.attcollation = 0 then true
            when l.collname = 'default' then (select datcollate in ('C', 'POSIX') and coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c'
                                                from pg_database d where datname = current_database())
            else l.collname in ('C', 'POSIX') end) order by a.attnum)
   from pg_attribute a join pg_type y on y.oid = a.atttypid left join pg_collation l on l.oid = a.attcollation
   where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '') as columns,
  (select json_agg(a.attname order by a.attnum) from pg_attribute a
   where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated <> '') as generated,
  coalesce(s.rows, 0)::text as rows, c.relkind = 'r' and c.relhassubclass as "isParent"
from pg_class c join pg_namespace n on n.oid = c.relnamespace
  left join lateral (
    select sum(case when l.reltuples > 0 then l.reltuples else pg_relation_size(p.relid) / 64 end)::bigint as rows
    from ${partitionTreeSql('c.oid')} p join pg_class l on l.oid = p.relid
    where p.isleaf and c.relkind in ('r', 'p')) s on true
where c.relkind = any ($1::"char"[]) and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
  and n.nspname <> 'waybill' and not c.relispartition and c.relpersistence = 'p'
order by n.nspname, c.relname`;

interface CatalogRow {
  readonly schema: string;
  readonly name: string;
  readonly key: string[] | null;
  readonly columns: { name: string; type: string; base: string; bytewise: boolean }[] | null;
  readonly generated: string[] | null;
  readonly rows: string;
  readonly isParent: boolean;
}

/** Types whose order is the same in every database; text only where it is compared byte by byte. */
const ORDERED = /^(smallint|integer|bigint|oid|numeric|uuid|date|boolean|bytea|timestamp)(?!.*\[\])/;
const ORDERED_TEXT = /^(text|character varying)(?!.*\[\])/;

/** What a side may have in place of a table: a source is captured from tables alone, a target may be what it likes. */
const KINDS = { source: ['r', 'p'], target: ['r', 'p', 'f', 'v'] } as const;

/** All tables, or those that `include` accepts. */
export async function readTables(
  client: pg.Client,
  role: Role,
  include: (schema: string, name: string) => boolean,
): Promise<SideTable[]> {
  const { rows } = await client.query<CatalogRow>(QUERY, [KINDS[role]]);
  return rows
    .filter((row) => row.columns !== null && include(row.schema, row.name))
    .map((row) => ({
      dialect: 'postgres' as const,
      schema: row.schema,
      name: row.name,
      key: row.key ?? [],
      columns: row.columns!.map(({ name, type, base, bytewise }) => ({
        name,
        type,
        base,
        ordered: ORDERED.test(type) || (ORDERED_TEXT.test(type) && bytewise),
      })),
      generated: row.generated ?? [],
      estimatedRows: Number(row.rows),
      ...(row.isParent ? { isParent: true } : {}),
    }));
}
