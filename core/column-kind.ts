/** What a column's type text says, for every kind of source: the one place that knows which values are base64. */
import type { ColumnSchema, Dialect, TableSchema } from './frame.ts';

/** A type text, taken apart. */
export interface TypeText {
  /** Lower case, without arguments and attributes: `timestamp with time zone`, `bigint`, `enum`, `text[]`. */
  readonly name: string;
  /** The numbers in its parentheses; empty for labels. */
  readonly args: readonly number[];
  /** `unsigned` (MySQL, MariaDB). */
  readonly unsigned: boolean;
}

const MYSQL_BINARY: ReadonlySet<string> = new Set(
  ['binary', 'varbinary', 'tinyblob', 'blob', 'mediumblob', 'longblob', 'vector', 'geometry', 'point'].concat([
    'linestring',
    'polygon',
    'multipoint',
    'multilinestring',
    'multipolygon',
    'geometrycollection',
    'geomcollection',
  ]),
);

/** The dialect of a table; frames of Postgres sources do not name theirs. */
export function dialectOf(table: TableSchema): Dialect {
  return table.dialect ?? 'postgres';
}

/** Takes a type text apart, of any dialect. */
export function parseTypeText(text: string): TypeText {
  const inner = /\(([^()']*)\)/.exec(text)?.[1];
  const args = inner === undefined ? [] : inner.split(',').map(Number);
  const bare = text.replace(/\((?:[^()']|'(?:[^']|'')*')*\)/, ' ');
  const attributes = /\b(?:unsigned|signed|zerofill)\b/gi;
  return {
    // A quoted name is one of the source's own types, and its case counts.
    name: (bare.startsWith('"') ? bare : bare.toLowerCase().replaceAll(attributes, ' ')).replaceAll(/\s+/g, ' ').trim(),
    args: args.every(Number.isInteger) ? args : [],
    unsigned: /\bunsigned\b/i.test(bare),
  };
}

/** Whether frames carry the values of a column as base64. */
export function isBinaryColumn(dialect: Dialect, column: Pick<ColumnSchema, 'type' | 'portable'>): boolean {
  if (dialect === 'postgres') return column.type === 'bytea' || column.portable === 'bytea';
  return MYSQL_BINARY.has(parseTypeText(column.type).name);
}
