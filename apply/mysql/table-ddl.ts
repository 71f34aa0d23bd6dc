/** The definition of a table that is made in the target: column types from the mapping, fitted to keys and row size. */
import { dialectOf } from '../../core/column-kind.ts';
import type { FlowConfig } from '../../core/config.ts';
import type { ColumnSchema, TableSchema } from '../../core/frame.ts';
import { DELETED_AT } from '../../core/soft-deletes.ts';
import { mapToMysql, type ColumnMapping } from '../type-mapping.ts';
import { qualifiedName, quoteName, typeForDdl } from './sql.ts';

/** Bytes of an index entry, of a character in utf8mb4, and of a row's columns together (with a margin). */
const INDEX_BYTES = 3072;
const CHARACTER_BYTES = 4;
const ROW_BYTES = 60_000;
/** Characters of a key column without a length of its own. */
const KEY_CHARACTERS = 512;
const KEY_BYTES = 1024;
const TEXT_BYTES = 65_535;
const OTHER_KEY_BYTES = 32;

/** Type of the column that says since when a row is gone: in UTC. */
export const DELETED_AT_TYPE = 'datetime(6)';

export interface Surroundings {
  readonly flavour: 'mysql' | 'mariadb';
  /** The character set of each collation that the server has. */
  readonly charsets: ReadonlyMap<string, string>;
}

/** The collation in which texts are equal only when they are the same, trailing spaces included. */
export function exactCollation(flavour: Surroundings['flavour']): string {
  return flavour === 'mysql' ? 'utf8mb4_0900_bin' : 'utf8mb4_nopad_bin';
}

export function mappingsOf(table: TableSchema, flavour: Surroundings['flavour']): ColumnMapping[] {
  const dialect = dialectOf(table);
  return table.columns.map((column) => mapToMysql(column, dialect, flavour));
}

/** What a column is in the target, apart from its name. */
export interface ColumnForm {
  readonly type: string;
  /** Character set and collation; empty for columns without. */
  readonly characters: string;
  /** ` DEFAULT …`, where the source has one that means the same here. */
  readonly fallback: string;
}

/** The form of every column, by column name. */
export function columnForms(table: TableSchema, around: Surroundings): Map<string, ColumnForm> {
  const mappings = mappingsOf(table, around.flavour);
  const long = mappings.filter(
    ({ type }, index) => isKey(table, index) && (type.kind === 'characters' || type.kind === 'bytes'),
  ).length;
  const keyBytes = Math.floor((INDEX_BYTES - (table.key.length - long) * OTHER_KEY_BYTES) / Math.max(1, long));
  const inRow = fitRow(table, mappings);
  return new Map(
    table.columns.map((column, index) => {
      const mapping = mappings[index]!;
      const type = typeSql(mapping, isKey(table, index) ? keyBytes : undefined, inRow.has(index));
      const characters = hasCharacters(mapping) ? collationSql(column, around) : '';
      return [column.name, { type, characters, fallback: fallbackSql(table, column, type, around) }];
    }),
  );
}

/** `name type NULL` or `NOT NULL` for every column, by column name. */
function columnDefinitions(table: TableSchema, around: Surroundings): Map<string, string> {
  const forms = columnForms(table, around);
  return new Map(
    table.columns.map((column) => [
      column.name,
      `${quoteName(column.name)} ${formSql(forms.get(column.name)!, column.notNull)}`,
    ]),
  );
}

/** A form as it stands behind a column's name. */
export function formSql({ type, characters, fallback }: ColumnForm, notNull: boolean): string {
  return `${type}${characters}${notNull ? ' NOT NULL' : ' NULL'}${fallback}`;
}

/** Defaults mean the same only in the same kind of database, and texts of no length have none on MySQL. */
function fallbackSql(table: TableSchema, column: ColumnSchema, type: string, { flavour }: Surroundings): string {
  if (column.default === undefined || dialectOf(table) === 'postgres') return '';
  if (!takesDefault(type, flavour)) return '';
  return ` DEFAULT ${column.default}`;
}

/** Whether a column of this type can have a constant as its default. */
export function takesDefault(type: string, flavour: Surroundings['flavour']): boolean {
  return flavour === 'mariadb'
    ? !/geometry/.test(type)
    : !/text$|blob$|^json|geometry|point|linestring|polygon/.test(type);
}

function isKey(table: TableSchema, index: number): boolean {
  return table.key.includes(table.columns[index]!.name);
}

function hasCharacters({ type }: ColumnMapping): boolean {
  return type.kind === 'characters' || (type.kind === 'plain' && /^(enum|set)\b/i.test(type.sql));
}

/** The varchar columns that stay in the row: a row holds 65,535 bytes, and the widest columns go elsewhere first. */
function fitRow(table: TableSchema, mappings: readonly ColumnMapping[]): ReadonlySet<number> {
  const wide = mappings
    .map(({ type }, index) => ({ index, length: type.kind === 'characters' ? (type.length ?? Infinity) : 0 }))
    .filter(({ index, length }) => length > 0 && length < Infinity && !isKey(table, index))
    .sort((a, b) => a.length - b.length);
  const kept = new Set<number>();
  let bytes = 0;
  for (const { index, length } of wide) {
    bytes += length * CHARACTER_BYTES + 2;
    if (bytes > ROW_BYTES) break;
    kept.add(index);
  }
  return kept;
}

function typeSql({ type }: ColumnMapping, keyBytes: number | undefined, inRow: boolean): string {
  switch (type.kind) {
    case 'plain':
      return typeForDdl(type.sql);
    case 'characters': {
      const { length } = type;
      if (keyBytes !== undefined)
        return `varchar(${Math.min(Math.floor(keyBytes / CHARACTER_BYTES), length ?? KEY_CHARACTERS)})`;
      if (length === undefined) return 'longtext';
      if (inRow) return `varchar(${length})`;
      return length * CHARACTER_BYTES <= TEXT_BYTES ? 'text' : 'longtext';
    }
    case 'bytes':
      return keyBytes === undefined ? 'longblob' : `varbinary(${Math.min(keyBytes, type.length ?? KEY_BYTES)})`;
    default:
      throw new TypeError(type.reason);
  }
}

function collationSql(column: ColumnSchema, { flavour, charsets }: Surroundings): string {
  const charset = column.collation === undefined ? undefined : charsets.get(column.collation);
  // A collation that this server lacks is replaced by the one that never takes two texts for one.
  return charset === undefined
    ? ` CHARACTER SET utf8mb4 COLLATE ${exactCollation(flavour)}`
    : ` CHARACTER SET ${charset} COLLATE ${column.collation}`;
}

export function createTableSql(
  table: TableSchema,
  schema: string,
  around: Surroundings,
  deletes: FlowConfig['deletes'],
): string {
  const lines = [...columnDefinitions(table, around).values()];
  if (deletes === 'soft') lines.push(`${quoteName(DELETED_AT)} ${DELETED_AT_TYPE} NULL`);
  if (table.key.length > 0) lines.push(`PRIMARY KEY (${table.key.map(quoteName).join(', ')})`);
  return (
    `CREATE TABLE IF NOT EXISTS ${qualifiedName(schema, table.name)} (${lines.join(', ')}) ENGINE=InnoDB` +
    ` CHARACTER SET utf8mb4 COLLATE ${exactCollation(around.flavour)}`
  );
}

/** Columns that the target lacks are added as the source has them, but without NOT NULL. */
export function addColumnsSql(
  table: TableSchema,
  schema: string,
  names: readonly string[],
  around: Surroundings,
): string {
  const forms = columnForms(table, around);
  const adds = names.map((name) => `ADD COLUMN ${quoteName(name)} ${formSql(forms.get(name)!, false)}`);
  return `ALTER TABLE ${qualifiedName(schema, table.name)} ${adds.join(', ')}`;
}
