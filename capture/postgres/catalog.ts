/** The source's catalog: tables, their columns in pgoutput's order, keys, identities, types. */
import { createHash } from 'node:crypto';
import type pg from 'pg';
import type { ColumnSchema, TableSchema } from '../../core/frame.ts';
import type { RelationMessage } from './pgoutput.ts';
import { sourceError } from './source-error.ts';

/** A published table: its schema as frames carry it, and what reading it by SQL needs. */
export interface CapturedTable {
  readonly oid: number;
  readonly schema: TableSchema;
  /** Whether a column's text is hexadecimal bytea, which frames carry as base64. */
  readonly binary: readonly boolean[];
  /** Positions of the key columns in the row. */
  readonly keyIndexes: readonly number[];
}

interface CatalogRow {
  oid: number;
  schema: string;
  name: string;
  identity: string;
  key: string[] | null;
  columns: { name: string; type: string; portable: string; notNull: boolean; default: string | null; base: string }[];
}

const QUERY = `
select c.oid::int8::text as oid, n.nspname as schema, c.relname as name, c.relreplident as identity,
  (select json_agg(a.attname order by k.n) from pg_index i
     cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, n)
     join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
   where i.indrelid = c.oid and k.n <= i.indnkeyatts
     and case when c.relreplident = 'i' then i.indisreplident else i.indisprimary end) as key,
  (select json_agg(json_build_object(
       'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'notNull', a.attnotnull,
       'portable', case
         when t.oid < 16384 then format_type(a.atttypid, a.atttypmod)
         when t.typtype = 'd' and t.typbasetype < 16384 then format_type(t.typbasetype, case when t.typtypmod >= 0 then t.typtypmod else a.atttypmod end)
         when t.typcategory = 'A' then 'text[]' else 'text' end,
       'base', coalesce(b.typname, t.typname),
       'default', pg_get_expr(d.adbin, d.adrelid)) order by a.attnum)
   from pg_attribute a join pg_type t on t.oid = a.atttypid
     left join pg_type b on t.typtype = 'd' and b.oid = t.typbasetype
     left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
   where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '') as columns
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_' and not (c.relispartition and $1)
  and ($2::oid is null or c.oid = $2) and c.relpersistence = 'p'
order by pg_relation_size(c.oid), n.nspname, c.relname`;

/** Defaults that mean the same in another database: constants, and the current time. */
const PORTABLE_DEFAULT =
  /^('(?:[^']|'')*'|-?\d+(?:\.\d+)?|true|false|NULL|now\(\)|CURRENT_TIMESTAMP|CURRENT_DATE|gen_random_uuid\(\))(?:::[a-z0-9_ ()[\],]+)?$/i;

/** Reads all ordinary and partitioned tables (partitions left out: they are published through their root), small ones first. */
export async function readCatalog(client: pg.Client): Promise<CapturedTable[]> {
  return (await query(client, true, null)).map(toCapturedTable);
}

/** Reads one table by its oid, whatever it is; undefined when it is gone. */
export async function readTable(client: pg.Client, oid: number): Promise<CapturedTable | undefined> {
  const [row] = await query(client, false, oid);
  return row === undefined ? undefined : toCapturedTable(row);
}

async function query(client: pg.Client, rootsOnly: boolean, oid: number | null): Promise<CatalogRow[]> {
  try {
    const result = await client.query<Omit<CatalogRow, 'oid'> & { oid: string }>(QUERY, [rootsOnly, oid]);
    return result.rows.filter((row) => row.columns !== null).map((row) => ({ ...row, oid: Number(row.oid) }));
  } catch (thrown) {
    throw sourceError(thrown, 'reading the catalog of the source');
  }
}

/** pg_type.dat of PostgreSQL. */
const BYTEA_OID = 17;

const IDENTITIES = { d: 'default', i: 'index', f: 'full', n: 'nothing' } as const;

function toCapturedTable(row: CatalogRow): CapturedTable {
  const columns = row.columns.map((column) => {
    const base: ColumnSchema = {
      name: column.name,
      type: column.type,
      portable: column.portable,
      notNull: column.notNull,
    };
    // Without its cast, whose type the target may lack: the column's own type gives the constant its meaning.
    const constant = PORTABLE_DEFAULT.exec(column.default ?? '')?.[1];
    return constant === undefined ? base : { ...base, default: constant };
  });
  return buildTable(
    row.oid,
    row.schema,
    row.name,
    IDENTITIES[row.identity as keyof typeof IDENTITIES],
    row.key ?? [],
    columns,
    row.columns.map((c) => c.base === 'bytea'),
  );
}

/**
 * The table as a relation message describes it: its columns in its order, with what the catalog knows of each. A
 * column that the catalog no longer has (the log lags behind a schema change) is carried as text, or as bytea.
 */
export function reconcile(relation: RelationMessage, known: CapturedTable | undefined): CapturedTable {
  const byName = new Map(
    known?.schema.columns.map((column, index) => [column.name, { column, binary: known.binary[index]! }]),
  );
  const identity = IDENTITIES[relation.identity as keyof typeof IDENTITIES] ?? 'default';
  const columns = relation.columns.map(({ name, typeOid }) => {
    const found = byName.get(name);
    if (found !== undefined) return found;
    // Its values travel as base64, and the type is what says so.
    const type = typeOid === BYTEA_OID ? 'bytea' : 'text';
    return { column: { name, type, portable: type, notNull: false }, binary: typeOid === BYTEA_OID };
  });
  const names = new Set(relation.columns.map((column) => column.name));
  const catalogKey = known?.schema.key ?? [];
  const messageKey = relation.columns.filter((column) => column.key).map((column) => column.name);
  // With identity full every column is flagged, so the key is the catalog's; otherwise the message decides which
  // columns identify a row, and the catalog in which order.
  let key = catalogKey.filter((name) => names.has(name));
  if (identity !== 'full' && (key.length !== messageKey.length || messageKey.some((name) => !key.includes(name))))
    key = messageKey;
  return buildTable(
    relation.oid,
    relation.schema,
    relation.name,
    identity,
    key,
    columns.map((c) => c.column),
    columns.map((c) => c.binary),
  );
}

function buildTable(
  oid: number,
  schema: string,
  name: string,
  identity: TableSchema['identity'],
  key: readonly string[],
  columns: readonly ColumnSchema[],
  binary: readonly boolean[],
): CapturedTable {
  const version = createHash('sha256')
    .update(JSON.stringify([schema, name, identity, key, columns]))
    .digest('hex')
    .slice(0, 12);
  return {
    oid,
    schema: { schema, name, version, identity, key, columns },
    binary,
    keyIndexes: key.map((keyName) => columns.findIndex((column) => column.name === keyName)),
  };
}

/** True when updates and deletes of this table can be told apart downstream. */
export function hasIdentity(table: TableSchema): boolean {
  if (table.identity === 'full') return true;
  return table.identity !== 'nothing' && table.key.length > 0;
}
