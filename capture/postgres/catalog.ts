/** The source's catalog: tables, their columns in pgoutput's order, keys, identities, types. */
import { createHash } from 'node:crypto';
import type pg from 'pg';
import type { ColumnSchema, TableSchema } from '../../core/frame.ts';
import { partitionTreeSql } from '../../core/partition-tree.ts';
import { alignColumns, widthOf, type Around } from './align-columns.ts';
import type { RelationMessage } from './pgoutput.ts';
import { sourceError } from './source-error.ts';
import type { Written } from './unlogged-values.ts';

/** A published table: its schema as frames carry it, and what reading it by SQL needs. */
export interface CapturedTable {
  readonly oid: number;
  readonly schema: TableSchema;
  /** Whether a column's text is hexadecimal bytea, which frames carry as base64. */
  readonly binary: readonly boolean[];
  /** Positions of the key columns in the row. */
  readonly keyIndexes: readonly number[];
  /** Oid and modifier of each column's type, as relation messages give them. */
  readonly types: readonly (readonly [oid: number, modifier: number])[];
  /** The transactions that changed the definition of each column last. */
  readonly stamps: readonly string[];
  /** How many columns it had had by then, with those that were dropped; as far as is known. */
  readonly width?: number;
  readonly partitioned: boolean;
  /** Partitions that hold rows, with their files: rows come and go with them without a change in the log. */
  readonly parts: readonly Partition[];
  /** What the catalog told of its rows; stored, that of the last look. */
  readonly written?: Written;
  /** Stored: what the stream was being told of it, until that is in the stream. */
  readonly ends?: NameEnd;
  /** The name it had before, while the stream does not tell of the rename yet. */
  readonly former?: { readonly schema: string; readonly name: string };
  /** Stored: changes of it are in the log under a name that is not among the tables, and were passed over. */
  readonly away?: true;
  /** Stored: it is not published, for its updates would be refused; it is to be read once it is published again. */
  readonly withdrawn?: true;
  /** Stored: why it is to be read again when its next version comes. */
  readonly owed?: string;
  /** Stored, of one without a key: the columns of the key that it had last, by their ids. */
  readonly lastKey?: string;
  /** Stored: the commit (LSN, decimal) that told this version. */
  readonly since?: string;
}

/** The mark of the commit at `lsn` (decimal) says that a table is gone, or has left its `former` name. */
export interface NameEnd {
  readonly lsn: string;
  readonly former?: { readonly schema: string; readonly name: string };
}

export interface Partition {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly file: number;
}

/** One row of `CATALOG_SQL`. */
export interface CatalogRow {
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  readonly identity: string;
  readonly key: string[] | null;
  readonly columns: CatalogColumn[] | null;
  /** An event trigger that an earlier version made does not tell it, nor `width`, `preset` and `labels`. */
  readonly file?: string;
  readonly width?: number;
  readonly partitioned: boolean;
  readonly parts: { oid: string; schema: string; name: string; file: string }[] | null;
  /** Columns of which older rows of some partition have a value that was never written. */
  readonly filled?: string[] | null;
}

interface CatalogColumn extends ColumnType {
  readonly id: number;
  readonly name: string;
  readonly notNull: boolean;
  readonly default: string | null;
  readonly existing: string | null;
  readonly preset?: string | null;
  readonly labels?: Readonly<Record<string, string>> | null;
  readonly stamp: string;
  readonly typeOid: string;
  readonly modifier: number;
}

export interface ColumnType {
  readonly type: string;
  readonly portable: string;
  readonly base: string;
}

/** What a type is called, of the type row `t` and a modifier; `b` is the base type of a domain. */
const typeSql = (oid: string, modifier: string): string => `
  'type', format_type(${oid}, ${modifier}),
  'portable', case
    when t.oid < 16384 then format_type(${oid}, ${modifier})
    when t.typtype = 'd' and t.typbasetype < 16384 then format_type(t.typbasetype, case when t.typtypmod >= 0 then t.typtypmod else ${modifier} end)
    when t.typcategory = 'A' then 'text[]' else 'text' end,
  'base', coalesce(b.typname, t.typname)`;

/** The types of somebody's own that values of the type `t` are made of, itself among them: of a domain, array, range or composite. */
const PARTS_SQL = `
  with recursive part(oid) as (select t.oid union select next.oid from part join pg_type y on y.oid = part.oid
    cross join lateral (select y.typbasetype union all select y.typelem
      union all select r.rngsubtype from pg_range r where y.oid in (r.rngtypid, r.rngmultitypid)
      union all select f.atttypid from pg_attribute f where f.attrelid = y.typrelid and f.attnum > 0) next(oid)
    where next.oid >= 16384)
  select oid from part`;

const labelsSql = (ofType: string): string =>
  `select json_object_agg(e.oid::int8::text, e.enumlabel) from pg_enum e where e.enumtypid ${ofType}`;

/** Ordinary and partitioned tables `c`, in schemas `n`. */
export const TABLES_SQL = `
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_' and c.relpersistence = 'p'`;

/** `which` chooses among ordinary and partitioned tables; `isHeld`: tables whose defaults are not asked for. */
export const catalogSql = (which: string, isHeld = 'false'): string => `
select c.oid::int8::text as oid, n.nspname as schema, c.relname as name, c.relreplident as identity,
  (select json_agg(a.attname order by k.n) from pg_index i
     cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, n)
     join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
   where i.indrelid = c.oid and k.n <= i.indnkeyatts
     and case when c.relreplident = 'i' then i.indisreplident else i.indisprimary and i.indimmediate end) as key,
  (select json_agg(json_build_object(
       'id', a.attnum, 'name', a.attname, 'notNull', a.attnotnull, ${typeSql('a.atttypid', 'a.atttypmod')},
       'typeOid', a.atttypid::int8::text, 'modifier', a.atttypmod,
       'stamp', a.xmin::text, 'existing', case when a.atthasmissing then (a.attmissingval::text::text[])[1] end,
       'labels', case when t.typtype = 'e' then (${labelsSql('= t.oid')})
          when t.oid >= 16384 and (t.typtype <> 'b' or t.typelem > 0) then (${labelsSql(`in (${PARTS_SQL})`)}) end,
       'preset', d.oid::int8::text, 'default', case when not ${isHeld} then pg_get_expr(d.adbin, d.adrelid) end) order by a.attnum)
   from pg_attribute a join pg_type t on t.oid = a.atttypid
     left join pg_type b on t.typtype = 'd' and b.oid = t.typbasetype
     left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
   where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '') as columns,
  c.relfilenode::int8::text as file, c.relnatts as width, c.relkind = 'p' as partitioned, case when c.relkind = 'p' then (select json_agg(json_build_object('oid', l.oid::int8::text, 'schema', ln.nspname,
       'name', l.relname, 'file', l.relfilenode::int8::text) order by l.oid)
     from ${partitionTreeSql('c.oid')} p join pg_class l on l.oid = p.relid join pg_namespace ln on ln.oid = l.relnamespace
     where p.isleaf) end as parts,
  case when c.relkind = 'p' then (select json_agg(distinct la.attname) from ${partitionTreeSql('c.oid')} p join pg_attribute la
     on la.attrelid = p.relid and la.atthasmissing where p.isleaf) end as filled
${TABLES_SQL} and ${which}
order by n.nspname, c.relname`;

/**
 * Ordinary and partitioned tables. `$1`: leave partitions out; `$2`: one table by its oid, or all. A primary key that is
 * deferrable is no key: in the middle of a transaction two rows may have the same, and Postgres itself takes it for no
 * replica identity.
 */
export const CATALOG_SQL = catalogSql('not (c.relispartition and $1) and ($2::oid is null or c.oid = $2)');

/** Defaults that mean the same in another database: constants, and the current time. */
const PORTABLE_DEFAULT =
  /^('(?:[^']|'')*'|-?\d+(?:\.\d+)?|true|false|NULL|now\(\)|CURRENT_TIMESTAMP|CURRENT_DATE|gen_random_uuid\(\))(?:::[a-z0-9_ ()[\],]+)?$/i;

/** Reads one table by its oid; undefined when it is gone, or a partition. */
export async function readTable(
  client: pg.Client,
  oid: number,
): Promise<{ readonly row: CatalogRow; readonly table: CapturedTable } | undefined> {
  const [row] = await query(client, oid);
  return row === undefined ? undefined : { row, table: tableOfRow(row) };
}

async function query(client: pg.Client, oid: number): Promise<CatalogRow[]> {
  try {
    const result = await client.query<CatalogRow>(CATALOG_SQL, [true, oid]);
    return result.rows.filter((row) => row.columns !== null);
  } catch (thrown) {
    throw sourceError(thrown, 'reading the catalog of the source');
  }
}

/** What types are called, by their oids and modifiers as the log gives them; undefined for one that is no more. */
export async function readTypes(
  client: pg.Client,
  types: readonly (readonly [oid: number, modifier: number])[],
): Promise<(ColumnType | undefined)[]> {
  try {
    const { rows } = await client.query<{ type: ColumnType | null }>(
      `select case when t.oid is not null then json_build_object(${typeSql('u.oid', 'u.modifier')}) end as type
         from unnest($1::oid[], $2::int4[]) with ordinality u(oid, modifier, n) left join pg_type t on t.oid = u.oid
         left join pg_type b on t.typtype = 'd' and b.oid = t.typbasetype order by u.n`,
      [types.map(([oid]) => oid), types.map(([, modifier]) => modifier)],
    );
    return rows.map((row) => row.type ?? undefined);
  } catch (thrown) {
    throw sourceError(thrown, 'reading the types of the source');
  }
}

/** pg_type.dat of PostgreSQL. */
const BYTEA_OID = 17;

const IDENTITIES = { d: 'default', i: 'index', f: 'full', n: 'nothing' } as const;

/** A row of the catalog as a captured table. */
export function tableOfRow(row: CatalogRow): CapturedTable {
  const columns = row.columns ?? [];
  return buildTable({
    oid: Number(row.oid),
    schema: row.schema,
    name: row.name,
    identity: IDENTITIES[row.identity as keyof typeof IDENTITIES],
    key: row.key ?? [],
    columns: columns.map((column) => ({
      column: columnSchema(column),
      binary: column.base === 'bytea',
      type: [Number(column.typeOid), column.modifier],
      stamp: column.stamp,
    })),
    ...(row.width === undefined ? {} : { width: row.width }),
    partitioned: row.partitioned,
    parts: (row.parts ?? []).map((part) => ({ ...part, oid: Number(part.oid), file: Number(part.file) })),
    written: writtenOfRow(row),
  });
}

function writtenOfRow({ file, width, columns, filled }: CatalogRow): Written {
  return {
    ...(file === undefined ? {} : { file: Number(file) }),
    width: width ?? Math.max(0, ...(columns ?? []).map(({ id }) => id)),
    columns: Object.fromEntries(
      (columns ?? []).map(({ id, name, type, portable, stamp, preset, labels }) => [
        id,
        {
          type,
          portable,
          stamp,
          ...(preset == null ? {} : { preset }),
          ...(labels == null ? {} : { labels }),
          ...(filled?.includes(name) === true ? { filled: true } : {}),
        },
      ]),
    ),
  };
}

function columnSchema(column: CatalogColumn): ColumnSchema {
  // Without its cast, whose type the target may lack: the column's own type gives the constant its meaning.
  const constant = PORTABLE_DEFAULT.exec(column.default ?? '')?.[1];
  const { existing } = column;
  return {
    id: column.id,
    name: column.name,
    type: column.type,
    portable: column.portable,
    notNull: column.notNull,
    ...(constant === undefined ? {} : { default: constant }),
    ...(existing === null
      ? {}
      : { existing: column.base === 'bytea' ? Buffer.from(existing.slice(2), 'hex').toString('base64') : existing }),
  };
}

interface ColumnFacts {
  readonly column: ColumnSchema;
  readonly binary: boolean;
  readonly type: readonly [oid: number, modifier: number];
  readonly stamp: string;
}

/** Whether a table is, as far as a relation message tells, as the message describes it. */
export function fits(table: CapturedTable, relation: RelationMessage): boolean {
  const { schema, types } = table;
  const identity = IDENTITIES[relation.identity as keyof typeof IDENTITIES];
  if (schema.schema !== relation.schema || schema.name !== relation.name || schema.identity !== identity) return false;
  return (
    schema.columns.length === relation.columns.length &&
    relation.columns.every(
      ({ name, typeOid, typmod, key }, index) =>
        schema.columns[index]!.name === name &&
        types[index]![0] === typeOid &&
        types[index]![1] === typmod &&
        (identity === 'full' || key === schema.key.includes(name)),
    )
  );
}

/**
 * The table as a relation message describes it at its place in the log; `types` are those of the message. What the message
 * does not tell (NULLs, defaults) is taken from the version before and only ever loosened: a later version, which the
 * catalog was read for at its own place in the log, brings the rest. `sure` is false where columns could have been renamed
 * or replaced without a way to tell.
 */
export function reconcile(
  relation: RelationMessage,
  around: Around,
  types: readonly (ColumnType | undefined)[],
): { readonly table: CapturedTable; readonly sure: boolean } {
  const { known, catalog } = around;
  const identity = IDENTITIES[relation.identity as keyof typeof IDENTITIES] ?? 'default';
  const { ids, sure } = alignColumns(relation, around, types);
  const facts = relation.columns.map(({ name, typeOid, typmod, key }, index): ColumnFacts => {
    const id = ids[index];
    const before = columnById(known, id);
    const now = columnById(catalog, id);
    // Its values travel as base64, and the type is what says so.
    const gone = typeOid === BYTEA_OID ? 'bytea' : 'text';
    const { type, portable, base } = types[index] ?? { type: gone, portable: gone, base: gone };
    const first = known === undefined ? now : before;
    // What was changed or dropped since the version before may have been looser in between.
    const changed = before !== undefined && before.stamp !== now?.stamp;
    const notNull = first?.column.notNull === true && now?.column.notNull !== false && !changed;
    const preset = first === undefined ? now?.column.default : first.column.default;
    return {
      column: {
        ...(id === undefined ? {} : { id }),
        name,
        type,
        portable,
        notNull: notNull || (key && identity !== 'full'),
        ...(preset === undefined ? {} : { default: preset }),
        ...(now?.column.existing === undefined ? {} : { existing: now.column.existing }),
      },
      binary: base === 'bytea',
      type: [typeOid, typmod],
      stamp: (now ?? before)?.stamp ?? '',
    };
  });
  const names = new Set(relation.columns.map((column) => column.name));
  const catalogKey = (catalog ?? known)?.schema.key ?? [];
  const messageKey = relation.columns.filter((column) => column.key).map((column) => column.name);
  // With identity full every column is flagged, so the key is the catalog's; otherwise the message decides which
  // columns identify a row, and the catalog in which order.
  let key = catalogKey.filter((name) => names.has(name));
  if (identity !== 'full' && (key.length !== messageKey.length || messageKey.some((name) => !key.includes(name))))
    key = messageKey;
  const { oid, schema, name } = relation;
  const { partitioned = false, parts = [] } = known ?? catalog ?? {};
  const width = Math.max(around.isAhead ? 0 : widthOf(known), ...(sure ? ids : []).map((id) => id ?? 0));
  return { table: buildTable({ oid, schema, name, identity, key, columns: facts, width, partitioned, parts }), sure };
}

function columnById(table: CapturedTable | undefined, id: number | undefined): ColumnFacts | undefined {
  const index = id === undefined ? -1 : (table?.schema.columns.findIndex((column) => column.id === id) ?? -1);
  if (index < 0) return undefined;
  const { schema, binary, types, stamps } = table!;
  return {
    column: schema.columns[index]!,
    binary: binary[index]!,
    type: types[index]!,
    stamp: stamps[index]!,
  };
}

function buildTable(facts: {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly identity: TableSchema['identity'];
  readonly key: readonly string[];
  readonly columns: readonly ColumnFacts[];
  readonly width?: number;
  readonly partitioned: boolean;
  readonly parts: readonly Partition[];
  readonly written?: Written;
}): CapturedTable {
  const { oid, schema, name, identity, key, width, partitioned, parts, written } = facts;
  const columns = facts.columns.map(({ column }) => column);
  const version = createHash('sha256')
    .update(JSON.stringify([schema, name, oid, identity, key, columns.map(({ existing: _, ...column }) => column)]))
    .digest('hex')
    .slice(0, 12);
  return {
    oid,
    schema: { schema, name, id: oid, version, identity, key, columns },
    binary: facts.columns.map((column) => column.binary),
    keyIndexes: key.map((keyName) => columns.findIndex((column) => column.name === keyName)),
    types: facts.columns.map((column) => column.type),
    stamps: facts.columns.map((column) => column.stamp),
    ...(width === undefined ? {} : { width }),
    partitioned,
    parts,
    ...(written === undefined ? {} : { written }),
  };
}

/** True when updates and deletes of this table can be told apart downstream. */
export function hasIdentity(table: TableSchema): boolean {
  if (table.identity === 'full') return true;
  return table.identity !== 'nothing' && table.key.length > 0;
}
