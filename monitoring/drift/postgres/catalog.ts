/** Tables of a Postgres database, with what it takes to compare them. */
import type pg from 'pg';
import { partitionTreeSql } from '../../../core/partition-tree.ts';
import { BY_VALUE, type SideTable } from '../side.ts';
import type { Role } from './session.ts';

/**
 * The order of texts in collation `l`: that of code points, or the collation that makes it, as long as its version is what it
 * was when indexes were made. Databases spell one locale in several ways. `to_jsonb`: older servers lack these columns.
 */
const ORDER = `select case
    when o.provider = 'b' or o.provider = 'c' and (o.locale in ('c', 'posix') or o.locale like 'c.%') then '${BY_VALUE}'
    when l.collisdeterministic and o.version = pg_collation_actual_version(l.oid)
      then concat_ws(' ', 'postgres', o.provider, o.locale, o.version, o.rules) end
  from pg_database d cross join lateral (select
    case l.collprovider when 'd' then coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') else l.collprovider::text end as provider,
    lower(replace(case l.collprovider
      when 'd' then coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', d.datcollate)
      else coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale', l.collcollate) end, '-', '')) as locale,
    case l.collprovider when 'd' then to_jsonb(d) ->> 'datcollversion' else l.collversion end as version,
    case l.collprovider when 'd' then to_jsonb(d) ->> 'daticurules' else to_jsonb(l) ->> 'collicurules' end as rules) o
  where d.datname = current_database()`;

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
       'order', case when a.attcollation = 0 then '${BY_VALUE}' else (${ORDER}) end) order by a.attnum)
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
  readonly columns: { name: string; type: string; base: string; order: string | null }[] | null;
  readonly generated: string[] | null;
  readonly rows: string;
  readonly isParent: boolean;
}

/** Types whose order is the same in every database; that of texts goes by their collation. */
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
      columns: row.columns!.map(({ name, type, base, order }) => ({
        name,
        type,
        base,
        order: ORDERED.test(type) || ORDERED_TEXT.test(type) ? (order ?? undefined) : undefined,
      })),
      generated: row.generated ?? [],
      estimatedRows: Number(row.rows),
      ...(row.isParent ? { isParent: true } : {}),
    }));
}
