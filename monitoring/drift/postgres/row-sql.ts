/** SQL that gives canonical text, digests and keys of rows in Postgres: the same answer as canonical-text.ts. */
import { isSized } from '../canonical-text.ts';
import type { ComparedColumn, ComparedTable, KeyTexts } from '../side.ts';

/** Postgres takes at most 100 arguments; a column needs up to three. */
const COLUMNS_PER_CONCAT = 30;
const TEXT_TYPE = /^(text|character varying)(\(\d+\))?$/;
const FLOAT = /^(real|double precision)$/;

export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

export function quoteLiteral(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

export function qualified(table: { readonly schema: string; readonly name: string }): string {
  return `${quoteName(table.schema)}.${quoteName(table.name)}`;
}

/** A table as FROM names it: without the rows of tables that inherit from it. */
export function rowsOf(table: ComparedTable): string {
  return table.isParent === true ? `only ${qualified(table)}` : qualified(table);
}

/** The condition on rows `t`, without those that are marked as gone. */
function counting({ deletedAt }: ComparedTable, where: string): string {
  return deletedAt === undefined ? where : `(${where}) and t.${quoteName(deletedAt)} is null`;
}

/** An expression whose output text is the canonical text of the column's value. */
function valueSql({ name, type, kind }: ComparedColumn): string {
  const column = `t.${quoteName(name)}`;
  switch (kind) {
    case 'plain':
    case 'sized':
      return column;
    case 'decimal':
      if (type.startsWith('numeric')) return `trim_scale(${column})`;
      return FLOAT.test(type) ? `trim_scale(${column}::text::numeric)` : column;
    case 'padded':
      return `rtrim(${column}::text, ' ')`;
    case 'json':
      return `${column}::jsonb`;
    case 'moment':
      return type.includes('with time zone') ? `${column} at time zone 'UTC'` : `${column}::timestamp`;
    case 'integer':
      return type === 'boolean' ? `${column}::int` : column;
    case 'hex':
      return `encode(${column}, 'hex')`;
    case 'micros':
      return `(extract(epoch from ${column}) * 1000000)::bigint`;
    case 'network':
      return `${column}::inet`;
    default:
      return column;
  }
}

/**
 * The canonical text of the column's value as `text`, or NULL. By `concat`, which calls the type's output function: a
 * cast to text would drop the padding of character(n) and print booleans and addresses in another way.
 */
export function textSql(column: ComparedColumn): string {
  const value = valueSql(column);
  if (TEXT_TYPE.test(column.type) || column.kind === 'padded') return `${value}::text`;
  return `case when ${value} is not null then concat(${value}) end`;
}

/** The canonical text of a row `t`. */
export function rowSql(columns: readonly ComparedColumn[]): string {
  const groups: string[] = [];
  for (let from = 0; from < columns.length; from += COLUMNS_PER_CONCAT) {
    const parts = columns
      .slice(from, from + COLUMNS_PER_CONCAT)
      .map((column) =>
        isSized(column.kind)
          ? `octet_length(${textSql(column)}), ':', ${valueSql(column)}`
          : `${valueSql(column)}, ';'`,
      );
    groups.push(`concat(${parts.join(', ')})`);
  }
  return groups.join(' || ');
}

/** A canonical text as a value of the key's type. */
function keyValueSql(text: string, { type, kind }: ComparedColumn): string {
  switch (kind) {
    case 'hex':
      return `decode(${text}, 'hex')`;
    case 'integer':
      return type === 'boolean' ? `(${text}) = '1'` : `(${text})::${castType(type)}`;
    case 'micros':
      return `((${text})::bigint * interval '1 microsecond')::${castType(type)}`;
    case 'moment':
      return type.includes('with time zone') ? `(${text} || '+00')::timestamptz` : `(${text})::${castType(type)}`;
    default:
      return `(${text})::${castType(type)}`;
  }
}

/** A type that reads a key's text without cutting it. */
function castType(type: string): string {
  if (/^(character\(|character$|bpchar)/.test(type)) return 'bpchar';
  if (type.startsWith('bit')) return type;
  return type.replace(/\([^)]*\)/, '');
}

export function keyColumns(table: ComparedTable): readonly ComparedColumn[] {
  return table.key.map((index) => table.columns[index]!);
}

/** A condition on the key of `t`. Half-open: after `after`, up to and with `upTo`. */
export function rangeSql(table: ComparedTable, after: KeyTexts | null, upTo: KeyTexts | null): string {
  const key = keyColumns(table);
  const bound = (texts: KeyTexts): string =>
    key.map((column, i) => keyValueSql(quoteLiteral(texts[i]!), column)).join(', ');
  const names = key.map((column) => `t.${quoteName(column.name)}`).join(', ');
  const sides = [
    ...(after === null ? [] : [`(${names}) > (${bound(after)})`]),
    ...(upTo === null ? [] : [`(${names}) <= (${bound(upTo)})`]),
  ];
  return sides.length === 0 ? 'true' : sides.join(' and ');
}

/** Joins `t` to the keys that parameters 1, 2, … give as arrays of text, one for each key column. */
export function keyJoinSql(table: ComparedTable): string {
  const key = keyColumns(table);
  const parameters = key.map((_, i) => `$${i + 1}::text[]`).join(', ');
  const names = key.map((_, i) => `k${i}`).join(', ');
  const same = key.map((column, i) => `t.${quoteName(column.name)} = ${keyValueSql(`w.k${i}`, column)}`);
  return `unnest(${parameters}) w(${names}) join ${rowsOf(table)} t on ${same.join(' and ')}`;
}

/** The hash of a row `t`: 32 hexadecimal digits. */
function hashSql(table: ComparedTable): string {
  const text = rowSql(table.columns);
  return table.hash === 'md5' ? `md5(${text})` : `left(encode(sha256(convert_to(${text}, 'UTF8')), 'hex'), 32)`;
}

/** Whether the digest of a row `t` is one of these: 32 hexadecimal digits each. */
export function digestIsOneOfSql(table: ComparedTable, digests: ReadonlySet<string>): string {
  return `${hashSql(table)} in (${[...digests].map(quoteLiteral).join(', ')})`;
}

/** Rows `h` (the hash) and `k0`, `k1`, … (canonical key) of `from`, each worked out once. */
function hashedSql(table: ComparedTable, from: string, where: string, withKey: boolean): string {
  const keys = withKey ? keyColumns(table).map((column, i) => `${textSql(column)} as k${i}, `) : [];
  return `select ${keys.join('')}${hashSql(table)} as h from ${from} where ${counting(table, where)} offset 0`;
}

const HALVES = `('x' || left(h, 16))::bit(64)::bigint as high, ('x' || right(h, 16))::bit(64)::bigint as low`;

/** Sums by bucket: `bucket`, `rows`, `high`, `low`. */
export function sumsSql(table: ComparedTable, where: string, mask: number): string {
  return (
    `select (low & ${mask})::int as bucket, count(*)::text as rows, sum(high)::text as high, sum(low)::text as low` +
    ` from (select ${HALVES} from (${hashedSql(table, `${rowsOf(table)} t`, where, false)}) x offset 0) y group by 1`
  );
}

/** Rows `k0`, `k1`, …, `high`, `low` as texts; `buckets` narrows them to those of `mask`. */
export function digestsSql(
  table: ComparedTable,
  from: string,
  where: string,
  buckets?: { readonly mask: number; readonly list: readonly number[] },
): string {
  const names = table.key.map((_, i) => `k${i}, `).join('');
  const filter = buckets === undefined ? '' : ` where (low & ${buckets.mask})::int in (${buckets.list.join(', ')})`;
  return (
    `select ${names}high::text, low::text from (select ${names}${HALVES}` +
    ` from (${hashedSql(table, from, where, true)}) x offset 0) y${filter}`
  );
}

/** The columns of a row as canonical texts, for digests that are worked out outside of the database. */
export function textsSql(table: ComparedTable, from: string, where: string): string {
  return `select ${table.columns.map(textSql).join(', ')} from ${from} where ${counting(table, where)}`;
}
