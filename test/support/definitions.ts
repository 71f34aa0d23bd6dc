/** What a Postgres database says of its tables, for comparing both sides: columns by name, their rows, their keys. */
import type pg from 'pg';

/** Columns, types, NULLs, defaults and primary key of each table of a schema, as one line each, sorted. */
export async function definitions(client: pg.Client, schema = 'public'): Promise<string[]> {
  const { rows } = await client.query<{ line: string }>(
    `select c.relname || ': ' || string_agg(format('%s %s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
         case when a.attnotnull then ' not null' else '' end,
         coalesce(' default ' || regexp_replace(pg_get_expr(d.adbin, d.adrelid), '::[a-z ]+(\\([0-9,]+\\))?$', ''), '')), ', ' order by a.attname) ||
       coalesce((select ' key ' || string_agg(k.attname, ', ' order by array_position(i.indkey::int2[], k.attnum))
          from pg_index i join pg_attribute k on k.attrelid = c.oid and k.attnum = any (i.indkey)
         where i.indrelid = c.oid and i.indisprimary), '') as line
       from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
       left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
      where c.relnamespace = to_regnamespace($1) and c.relkind in ('r', 'p') and not c.relispartition
      group by c.oid, c.relname order by c.relname`,
    [schema],
  );
  // A day as a timestamp means its midnight.
  return rows.map((row) => row.line.replaceAll(/ 00:00:00(?=')/g, ''));
}

/** The rows of a table as JSON, sorted, columns by name: those that are named, or all. */
export async function rowsOf(client: pg.Client, table: string, columns?: readonly string[]): Promise<string[]> {
  const { rows } = await client.query<{ row: Record<string, unknown> }>(`select to_jsonb(t) as row from ${table} t`);
  return rows
    .map(({ row }) =>
      JSON.stringify(
        Object.fromEntries(
          Object.entries(row)
            .filter(([name]) => columns?.includes(name) ?? true)
            .sort(([a], [b]) => (a < b ? -1 : 1)),
        ),
      ),
    )
    .sort();
}

/** The names of the tables of a schema. */
export async function tablesOf(client: pg.Client, schema = 'public'): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `select relname as name from pg_class where relnamespace = to_regnamespace($1) and relkind in ('r', 'p')
        and not relispartition order by 1`,
    [schema],
  );
  return rows.map((row) => row.name);
}
