/** The statements that read chunks of tables. */
import { partitionTreeSql } from '../../core/partition-tree.ts';
import type { KeySpan, KeyTexts } from '../snapshot-request.ts';
import type { CapturedTable } from './catalog.ts';
import { qualifiedName, quoteIdent } from './publication.ts';
import type { PublishedTable } from './published-table.ts';

type ReadTable = CapturedTable & Partial<Pick<PublishedTable, 'writes'>>;

/** The columns to read; what is left out is not even read. */
function columnsSql({ schema, writes }: ReadTable, prefix = ''): string {
  return schema.columns
    .map((column, index) => (writes?.[index] === 'omit' ? 'null' : prefix + quoteIdent(column.name)))
    .join(', ');
}

/** The rows to read: those whose keys lie behind `after`, up to `upTo`; null: from the first on, to the last. */
export interface ChunkBounds {
  readonly after: readonly string[] | null;
  readonly upTo: readonly string[] | null;
  /** Besides: those within a span alone. */
  readonly span?: KeySpan | undefined;
}

/** The statement that reads one chunk in key order. `part`: of this partition alone. */
export function chunkSql(
  table: ReadTable,
  { after, upTo, span }: ChunkBounds,
  limit: number | undefined,
  part?: { readonly schema: string; readonly name: string },
): string {
  const { schema, keyIndexes } = table;
  const key = keyColumns(table);
  const literals = (texts: readonly string[]): string =>
    keyIndexes.map((index, i) => `${quoteLiteral(texts[i] ?? '')}::${schema.columns[index]!.type}`).join(', ');
  const bounds = [
    ...(after === null ? [] : [`(${key}) > (${literals(after)})`]),
    ...(upTo === null ? [] : [`(${key}) <= (${literals(upTo)})`]),
    // What lies behind a row of the span lies behind its beginning.
    ...spanConditions(span !== undefined && after !== null ? { ...span, from: null } : span),
  ];
  const where = bounds.length === 0 || keyIndexes.length === 0 ? '' : ` where ${bounds.join(' and ')}`;
  const order = keyIndexes.length === 0 ? '' : ` order by ${key}`;
  return `select ${columnsSql(table)} from ${part === undefined ? rowsOf(table) : qualifiedName(part)}${where}${order}${limit === undefined ? '' : ` limit ${limit}`}`;
}

/** Rows of keys are compared with the collations of their columns. */
function spanConditions(span: KeySpan | undefined): string[] {
  if (span === undefined) return [];
  const { columns, from, to } = span;
  const some = (bound: KeyTexts): string =>
    columns
      .slice(0, bound.length)
      .map(({ name }) => quoteIdent(name))
      .join(', ');
  return [
    ...(from === null ? [] : [`(${some(from)}) >= (${boundSql(columns, from)})`]),
    ...(to === null ? [] : [`(${some(to)}) < (${boundSql(columns, to)})`]),
  ];
}

/** Values of columns, in their types. */
function boundSql(columns: KeySpan['columns'], texts: KeyTexts): string {
  return texts.map((text, index) => `${quoteLiteral(text)}::${keyType(columns[index]!.type)}`).join(', ');
}

/**
 * The statement that gives the values of bounds as texts of the types of their columns, and fails where one is none; and
 * whether a key may lie between two bounds, for the collations of the table.
 */
export function checkBoundsSql(table: CapturedTable, { columns, from, to }: KeySpan): string {
  const texts = (bound: KeyTexts | null): string =>
    bound === null
      ? 'null'
      : `array[${columns
          .slice(0, bound.length)
          .map(({ type }, i) => `format('%s', ${quoteLiteral(bound[i]!)}::${keyType(type)})`)
          .join(', ')}]`;
  const shared = Math.min(from?.length ?? 0, to?.length ?? 0);
  let room = 'true';
  if (from !== null && to !== null) {
    const some = columns.slice(0, shared);
    // A column of no rows lends its collation to the values.
    const row = (bound: KeyTexts): string =>
      `(select ${some.map(({ name }) => quoteIdent(name)).join(', ')} from ${qualifiedName(table.schema)} where false` +
      ` union all select ${boundSql(columns, bound.slice(0, shared))})`;
    const names = some.map((_, i) => `c${i}`).join(', ');
    const of = (alias: string): string => `(${some.map((_, i) => `${alias}.c${i}`).join(', ')})`;
    const sign = from.length < to.length ? '<=' : '<';
    room = `(select ${of('f')} ${sign} ${of('t')} from ${row(from)} f(${names}), ${row(to)} t(${names}))`;
  }
  return `select ${texts(from)} as from, ${texts(to)} as to, ${room} as room`;
}

/** A table as FROM names it: without the rows of tables that inherit from it, which are captured under their own names. */
function rowsOf({ schema, partitioned }: CapturedTable): string {
  return partitioned ? qualifiedName(schema) : `only ${qualifiedName(schema)}`;
}

function keyColumns({ schema }: CapturedTable): string {
  return schema.key.map(quoteIdent).join(', ');
}

/** The statement that gives keys, as texts in key order, from about `percent` of a table's pages. */
export function sampleSql(table: CapturedTable, percent: number): string {
  const texts = table.schema.key.map((name) => `format('%s', ${quoteIdent(name)})`).join(', ');
  return `select ${texts} from ${rowsOf(table)} tablesample system (${percent}) order by ${keyColumns(table)}`;
}

/**
 * The statement that says how many rows tables and their partitions had when they were analysed last, and how many bytes
 * they took with what is stored out of line, by oid; null for one that never was. Before PostgreSQL 14 an empty table looks
 * as one that was not.
 */
export const ESTIMATE_SQL = `
select t.oid::int8::text as oid, case when min(c.reltuples) >= 0 then sum(c.reltuples)::float8 end as rows,
       case when min(c.reltuples) >= 0 and (min(c.relpages) > 0 or current_setting('server_version_num')::int >= 140000)
            then sum(c.relpages::int8 + coalesce(o.relpages, 0))::float8 * current_setting('block_size')::int end as bytes
  from unnest($1::oid[]) t(oid)
  cross join lateral ${partitionTreeSql('t.oid')} l
  join pg_class c on c.oid = l.relid and c.relkind <> 'p'
  left join pg_class o on o.oid = c.reltoastrelid
 group by t.oid`;

/** The statement of which the plan tells the planner's guess, which it makes by the table's size and statistics. */
export function guessSql(table: CapturedTable, span?: KeySpan): string {
  const conditions = spanConditions(span);
  const where = conditions.length === 0 ? '' : ` where ${conditions.join(' and ')}`;
  return `explain (format json) select from ${rowsOf(table)}${where}`;
}

/** The keys as a list of rows `w(k0, k1, …)`, each value in the type of its column. */
function keysList(table: CapturedTable, keys: readonly KeyTexts[]): string {
  const types = table.keyIndexes.map((index) => keyType(table.schema.columns[index]!.type));
  const rows = keys.map((key) => `(${types.map((type, i) => `${quoteLiteral(key[i] ?? '')}::${type}`).join(', ')})`);
  return `(values ${rows.join(', ')}) w(${types.map((_, i) => `k${i}`).join(', ')})`;
}

/** A type that reads a key's text without cutting it. */
function keyType(type: string): string {
  if (/^(character\(|character$|bpchar)/.test(type)) return 'bpchar';
  return type.startsWith('bit') ? type : type.replace(/\([^)]*\)/, '');
}

function sameKey(table: CapturedTable): string {
  return table.schema.key.map((name, i) => `t.${quoteIdent(name)} = w.k${i}`).join(' and ');
}

/** The statement that reads the rows with these keys. */
export function keysSql(table: ReadTable, keys: readonly KeyTexts[]): string {
  const columns = columnsSql(table, 't.');
  return `select ${columns} from ${keysList(table, keys)} join ${rowsOf(table)} t on ${sameKey(table)}`;
}

/** The statement that names the keys that no row has, as texts. The database decides: equal values may differ as text. */
export function absentSql(table: CapturedTable, keys: readonly KeyTexts[]): string {
  const texts = table.schema.key.map((_, i) => `concat(w.k${i})`).join(', ');
  const there = `select from ${rowsOf(table)} t where ${sameKey(table)}`;
  return `select ${texts} from ${keysList(table, keys)} where not exists (${there})`;
}

/** For sessions with `standard_conforming_strings`. */
export function quoteLiteral(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
