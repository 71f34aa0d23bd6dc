/** How it is seen that nothing in the catalog changed, without reading it. */

/** Changes whenever a schema, table, column, default, key, partition, a type of somebody's own (also what a composite one is made of) or a label of one does. Cheap: it reads row headers only. */
export const FINGERPRINT = `
with t as materialized (select oid, xmin from pg_class where oid >= 16384 and relkind in ('r', 'p', 'c') and relpersistence = 'p')
select concat_ws(' ',
  (select sum(hashint8extended(t.xmin::text::int8, t.oid::int8)) from t),
  (select sum(hashint8extended(n.xmin::text::int8, n.oid::int8)) from pg_namespace n where n.nspname !~ '^pg_'),
  (select sum(hashint8extended(a.xmin::text::int8, a.attrelid::int8 * 4096 + a.attnum)) from pg_attribute a where a.attnum > 0 and a.attrelid in (select oid from t)),
  (select sum(hashint8extended(d.xmin::text::int8, d.oid::int8)) from pg_attrdef d where d.adrelid in (select oid from t)),
  (select sum(hashint8extended(i.xmin::text::int8, i.indexrelid::int8)) from pg_index i where i.indrelid in (select oid from t)),
  (select sum(hashint8extended(h.xmin::text::int8, h.inhrelid::int8)) from pg_inherits h),
  (select sum(hashint8extended(y.xmin::text::int8, y.oid::int8)) from pg_type y where y.oid >= 16384 and y.typtype in ('e', 'd', 'r')),
  (select sum(hashint8extended(e.xmin::text::int8, e.oid::int8)) from pg_enum e)) as fingerprint,
  pg_current_snapshot()::text as snapshot`;
