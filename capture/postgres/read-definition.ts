/**
 * Whether a table is read as the version that its rows are to be published under. A definition may change, and no row of the
 * log tell of it, before the catalog is looked at: a statement that names columns then reads others of these names, values
 * of another type, or NULLs where the version has none, and targets would refuse what the next version brings them to take.
 */
import type { CapturedTable } from './catalog.ts';
import { quoteLiteral } from './chunk-sql.ts';

/**
 * A condition, true where the table of this name is still this one, and has each column of the version, of its type, and NOT
 * NULL where that says so. True behind the transaction that read the table, it was true for that, too: whoever changes a
 * definition waits for those who read, has committed before others read, and takes no change back within a moment.
 */
export function isReadAsSql({ oid, schema }: Pick<CapturedTable, 'oid' | 'schema'>): string {
  const columns = schema.columns.map(
    ({ id, name, type, notNull }) =>
      `(${quoteLiteral(name)}, ${id ?? 'null'}, ${quoteLiteral(type)}, ${String(notNull)})`,
  );
  const all =
    columns.length === 0
      ? ''
      : `and not exists (select from (values ${columns.join(', ')}) v(name, id, type, is_set) where not exists (
      select from pg_attribute a where a.attrelid = ${oid} and a.attname = v.name::name and not a.attisdropped
        and a.attnum = coalesce(v.id::int, a.attnum) and format_type(a.atttypid, a.atttypmod) = v.type
        and (a.attnotnull or not v.is_set)))`;
  return `exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.oid = ${oid} and c.relname = ${quoteLiteral(schema.name)} and n.nspname = ${quoteLiteral(schema.schema)})
    ${all}`;
}
