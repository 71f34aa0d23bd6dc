/** The statements that read chunks of tables. */
import type { KeyTexts } from '../snapshot-request.ts';
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
export interface KeyBounds {
  readonly after: readonly string[] | null;
  readonly upTo: readonly string[] | null;
}

/** The statement that reads one chunk in key order. `part`: of this partition alone. */
export function chunkSql(
  table: ReadTable,
  { after, upTo }: KeyBounds,
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
  ];
  const where = bounds.length === 0 || keyIndexes.length === 0 ? '' : ` where ${bounds.join(' and ')}`;
  const order = keyIndexes.length === 0 ? '' : ` order by ${key}`;
  return `select ${columnsSql(table)} from ${qualifiedName(part ?? schema)}${where}${order}${limit === undefined ? '' : ` limit ${limit}`}`;
}

function keyColumns({ schema }: CapturedTable): string {
  return schema.key.map(quoteIdent).join(', ');
}

/** The statement that gives keys, as texts in key order, from about `percent` of a table's pages. */
export function sampleSql(table: CapturedTable, percent: number): string {
  const texts = table.schema.key.map((name) => `format('%s', ${quoteIdent(name)})`).join(', ');
  return `select ${texts} from ${qualifiedName(table.schema)} tablesample system (${percent}) order by ${keyColumns(table)}`;
}

/**
 * The statement that says how many rows tables and their partitions had when they were analysed last, by oid; null for
 * one that never was.
 */
export const ESTIMATE_SQL = `
select t.oid::int8::text as oid, case when min(c.reltuples) >= 0 then sum(c.reltuples)::float8 end as rows
  from unnest($1::oid[]) t(oid)
  cross join lateral (select relid from pg_partition_tree(t.oid) where isleaf union select t.oid::regclass) l(relid)
  join pg_class c on c.oid = l.relid and c.relkind <> 'p'
 group by t.oid`;

/** The statement of which the plan tells the planner's guess, which it makes by the table's size. */
export function guessSql(table: CapturedTable): string {
  return `explain (format json) select from ${qualifiedName(table.schema)}`;
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
  return `select ${columns} from ${keysList(table, keys)} join ${qualifiedName(table.schema)} t on ${sameKey(table)}`;
}

/** The statement that names the keys that no row has, as texts. The database decides: equal values may differ as text. */
export function absentSql(table: CapturedTable, keys: readonly KeyTexts[]): string {
  const texts = table.schema.key.map((_, i) => `concat(w.k${i})`).join(', ');
  const there = `select from ${qualifiedName(table.schema)} t where ${sameKey(table)}`;
  return `select ${texts} from ${keysList(table, keys)} where not exists (${there})`;
}

function quoteLiteral(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
