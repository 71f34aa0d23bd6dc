/** The source's catalog: tables, columns, keys, and how the rows of the log fit them. */
import { createHash } from 'node:crypto';
import { asReplicationError, ReplicationError } from '../../core/errors.ts';
import type { ColumnSchema, TableSchema } from '../../core/frame.ts';
import { compileTablePatterns } from '../../core/table-pattern.ts';
import type { Flavour } from './binlog-handler.ts';
import { columnTextSql } from '../../core/mysql-column-text.ts';
import { quoteIdent, quoteLiteral, type SqlClient } from './connection.ts';
import { baseType, HINTED, logTypeText, showsAs, typesAgree } from './log-type.ts';
import type { Guards } from './published-table.ts';
import { failedForAbsence } from './source-error.ts';
import type { BinlogColumn, ColumnHint, TableMap } from './table-map.ts';

interface CatalogColumn {
  readonly schema: ColumnSchema;
  /** Its type without arguments, as the catalog names it; undefined where only the log knows it. */
  readonly dataType: string | undefined;
  /** The type as the catalog shows it. */
  readonly shown: string;
  /** Generated columns are left out of log and snapshot alike. */
  readonly generated: boolean;
  /** Whether rows get a value that no constant tells: an expression, the time, a number that counts up. */
  readonly computed: boolean;
  readonly textSql: string;
}

/** A table as the catalog describes it now. */
export interface CapturedTable {
  readonly schema: TableSchema;
  readonly columns: readonly CatalogColumn[];
  /** Whether its engine undoes what is rolled back. */
  readonly transactional: boolean;
  /**
   * MariaDB: of a table with system versioning, the column that tells until when a row was a present one. Rows of its
   * history, which the log has too, and what tells them apart are nobody's.
   */
  readonly rowEnd?: string;
}

/** A table as a table map of the log describes it: what its rows are written by. */
export interface LoggedTable {
  readonly schema: TableSchema;
  /** Positions of the key's columns in the log's rows. */
  readonly keyIndexes: readonly number[];
  readonly transactional: boolean;
  /** Position of `rowEnd` in the log's rows. */
  readonly rowEnd?: number;
  /** By the log's columns; undefined where no column rule concerns the table. */
  readonly guards: Guards | undefined;
}

/** Columns of system versioning that no statement named: the catalog does not show them, and the log has them. */
const IMPLICIT_PERIOD: ReadonlySet<string> = new Set(['row_start', 'row_end']);
/** Columns of MariaDB that stand for unique keys of long texts and bytes, hidden in the same way. */
const ROW_HASH = /^DB_ROW_HASH_\d+$/;
const SYSTEM = "('mysql', 'sys', 'information_schema', 'performance_schema')";
const BASE_TABLES: ReadonlySet<string> = new Set(['BASE TABLE', 'SYSTEM VERSIONED']);
const GENERATED = /\b(?:VIRTUAL|STORED|PERSISTENT) GENERATED\b/i;
const TRANSACTIONAL = /^(?:innodb|ndb|ndbcluster|rocksdb|tokudb)$/i;

/** The tables that the patterns choose, small ones first. Throws `source_table_missing` when none does. */
export async function matchingTables(
  client: SqlClient,
  flavour: Flavour,
  patterns: readonly string[],
): Promise<CapturedTable[]> {
  const included = compileTablePatterns(patterns);
  const tables = await readTables(client, flavour, `TABLE_SCHEMA NOT IN ${SYSTEM}`, included);
  if (tables.length === 0)
    throw new ReplicationError('source_table_missing', `no table of the source matches ${patterns.join(', ')}`);
  return tables;
}

/** One table; `absent` when there is none of that name, undefined when it is not a base table (a sequence). */
export async function readTable(
  client: SqlClient,
  flavour: Flavour,
  schema: string,
  name: string,
): Promise<CapturedTable | 'absent' | undefined> {
  const where = `TABLE_SCHEMA = ${quoteLiteral(schema)} AND TABLE_NAME = ${quoteLiteral(name)}`;
  const [found] = await client.query(
    `SELECT TABLE_TYPE FROM information_schema.TABLES WHERE ${where}`,
    'reading the catalog of the source',
  );
  if (found === undefined) return 'absent';
  const [table] = await readTables(client, flavour, where, (s, n) => s === schema && n === name);
  return table ?? (BASE_TABLES.has(found[0] ?? '') ? 'absent' : undefined);
}

/**
 * A table that a list of all tables lacked: there, `gone`, `denied` to this user, who cannot see whether it is there, or
 * `unsure`. While MariaDB alters a table, such lists lack it or its
 * columns for moments; a SELECT waits for whoever alters it, here for a second at most.
 */
export async function readMissing(
  client: SqlClient,
  flavour: Flavour,
  { schema, name }: { readonly schema: string; readonly name: string },
): Promise<CapturedTable | 'gone' | 'denied' | 'unsure'> {
  const select = `1 FROM ${quoteIdent(schema)}.${quoteIdent(name)} LIMIT 0`;
  try {
    await client.query(
      flavour === 'mysql'
        ? `SELECT /*+ SET_VAR(lock_wait_timeout = 1) */ ${select}`
        : `SET STATEMENT lock_wait_timeout = 1 FOR SELECT ${select}`,
      `looking whether ${schema}.${name} is there`,
    );
  } catch (thrown) {
    if (failedForAbsence(thrown)) return 'gone';
    const { code } = asReplicationError(thrown);
    if (code === 'source_privilege') return 'denied';
    // It is locked for longer.
    if (code === 'source_query') return 'unsure';
    throw thrown;
  }
  const table = await readTable(client, flavour, schema, name);
  // Something else that bears its name: a view, a sequence.
  if (table === undefined) return 'gone';
  return table === 'absent' ? 'unsure' : table;
}

type Row = readonly (string | null)[];

/** Leaves out tables without columns: they are being made or altered, and the log will tell. */
async function readTables(
  client: SqlClient,
  flavour: Flavour,
  where: string,
  included: (schema: string, name: string) => boolean,
): Promise<CapturedTable[]> {
  const doing = 'reading the catalog of the source';
  const tables = await client.query(
    `SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE, TABLE_TYPE FROM information_schema.TABLES
     WHERE TABLE_TYPE IN (${[...BASE_TABLES].map(quoteLiteral).join(', ')}) AND ${where}
     ORDER BY DATA_LENGTH, TABLE_SCHEMA, TABLE_NAME`,
    doing,
  );
  const readColumns = (): Promise<Row[]> =>
    client.query(
      `SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, COLLATION_NAME, COLUMN_DEFAULT, EXTRA,
         CHARACTER_MAXIMUM_LENGTH, GENERATION_EXPRESSION
       FROM information_schema.COLUMNS WHERE ${where} ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION`,
      doing,
    );
  let columns = await readColumns();
  let keys: Row[];
  // Each statement reads tables as they are by then: keys are those of the columns only where these stood still meanwhile.
  for (;;) {
    keys = await client.query(
      `SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, NULLABLE, SUB_PART FROM information_schema.STATISTICS
       WHERE NON_UNIQUE = 0 AND ${where} ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX`,
      doing,
    );
    const again = await readColumns();
    const same = JSON.stringify(again) === JSON.stringify(columns);
    columns = again;
    if (same) break;
  }
  const columnsOf = groupByTable(columns);
  const keysOf = groupByTable(keys);
  return tables
    .filter(([schema, name]) => included(schema!, name!) && columnsOf.has(`${schema}\u0000${name}`))
    .map(([schema, name, engine, kind]) => {
      const id = `${schema}\u0000${name}`;
      const [columnRows, keyRows] = [columnsOf.get(id) ?? [], keysOf.get(id) ?? []];
      const table = { schema: schema!, name: name!, engine: engine ?? '', versioned: kind === 'SYSTEM VERSIONED' };
      return capturedTable(flavour, table, columnRows, keyRows);
    });
}

function groupByTable(rows: readonly Row[]): Map<string, Row[]> {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const id = `${row[0]}\u0000${row[1]}`;
    const list = groups.get(id);
    if (list === undefined) groups.set(id, [row.slice(2)]);
    else list.push(row.slice(2));
  }
  return groups;
}

function capturedTable(
  flavour: Flavour,
  { schema, name, engine, versioned }: { schema: string; name: string; engine: string; versioned: boolean },
  columnRows: readonly Row[],
  keyRows: readonly Row[],
): CapturedTable {
  const ends = columnRows.find(([, , , , , , , , expression]) => /^row end$/i.test(expression ?? ''))?.[0];
  const rowEnd = versioned ? (ends ?? 'row_end') : undefined;
  const columns = columnRows.map((row): CatalogColumn => {
    const [column, dataType, text, nullable, collation, fallback, extra, chars] = row;
    const shown = currentFormat(schema, name, column!, text!);
    const type = labelsMayBeWrong(dataType!, shown) ? `varchar(${chars})` : shown;
    const constant = portableDefault(flavour, dataType!, fallback ?? null, extra ?? '');
    return {
      schema: {
        name: column!,
        type,
        portable: HINTED.has(dataType!) ? (dataType === 'uuid' ? 'char(36)' : 'varchar(45)') : type,
        notNull: nullable === 'NO',
        ...(constant === undefined ? {} : { default: constant }),
        ...(collation === null || collation === undefined ? {} : { collation }),
      },
      dataType: dataType!,
      shown,
      generated: GENERATED.test(extra ?? ''),
      computed:
        /auto_increment/i.test(extra ?? '') || (fallback !== null && fallback !== 'NULL' && constant === undefined),
      textSql: columnTextSql({ name: column!, dataType: dataType!, columnType: shown }, flavour),
    };
  });
  // Among present rows alone a key tells them apart without its last column, which is that of the history.
  const { identity, key } = chooseKey(
    columns,
    keyRows.filter(([, column]) => rowEnd === undefined || column !== rowEnd),
  );
  return {
    schema: tableSchema(flavour, schema, name, identity, key, columns),
    columns,
    transactional: TRANSACTIONAL.test(engine),
    ...(rowEnd === undefined ? {} : { rowEnd }),
  };
}

const OLD_FORMAT = /\s*\/\* mariadb-5\.3 \*\//;

/**
 * Times of MariaDB 5.3 (`mysql56_temporal_format = OFF`) have another size for each number of fractional digits, which
 * the log does not tell. Without such digits they are as they ever were.
 */
function currentFormat(schema: string, table: string, column: string, shown: string): string {
  if (!OLD_FORMAT.test(shown)) return shown;
  if (shown.includes('('))
    throw new ReplicationError(
      'source_binlog_settings',
      `column ${column} of ${schema}.${table} is stored in the format of MariaDB 5.3, which the log does not describe; run: SET GLOBAL mysql56_temporal_format = ON; ALTER TABLE ${quoteIdent(schema)}.${quoteIdent(table)} FORCE;`,
    );
  return shown.replace(OLD_FORMAT, '');
}

/**
 * The catalog is kept in a character set of three bytes and shows every other character of a label as `?`. Until the
 * log has told the labels, such a column counts as one of plain text.
 */
function labelsMayBeWrong(dataType: string, shown: string): boolean {
  return (dataType === 'enum' || dataType === 'set') && shown.includes('?');
}

/** The table with the labels of enums and sets as the log has them, where the catalog shows the same ones. */
export function withLabels(table: CapturedTable, map: TableMap): CapturedTable {
  const logged = new Map(map.columns.map((column) => [column.name, column]));
  return relabelled(table, (column) => {
    const found = logged.get(column.schema.name);
    return found?.labels !== undefined && showsAs(found, column.shown) ? logTypeText(found) : undefined;
  });
}

/** The table with the labels of enums and sets that the catalog cannot show as another version of it has them. */
export function withLabelsOf(table: CapturedTable, other: CapturedTable): CapturedTable {
  const known = new Map(other.columns.map((column) => [column.schema.name, column]));
  return relabelled(table, (column) => {
    const found = known.get(column.schema.name);
    const same = found?.shown === column.shown && labelsMayBeWrong(column.dataType ?? '', column.shown);
    return same ? found.schema.type : undefined;
  });
}

function relabelled(table: CapturedTable, typeOf: (column: CatalogColumn) => string | undefined): CapturedTable {
  let changed = false;
  const columns = table.columns.map((column): CatalogColumn => {
    const type = typeOf(column);
    if (type === undefined || type === column.schema.type) return column;
    changed = true;
    return { ...column, schema: { ...column.schema, type, portable: type } };
  });
  if (!changed) return table;
  const { dialect, schema, name, identity, key } = table.schema;
  return { ...table, columns, schema: tableSchema(dialect as Flavour, schema, name, identity, key, columns) };
}

/** The primary key, else a unique index without NULLs and prefixes, else the whole row. */
function chooseKey(
  columns: readonly CatalogColumn[],
  keyRows: readonly Row[],
): { identity: TableSchema['identity']; key: readonly string[] } {
  const stored = new Set(columns.filter((column) => !column.generated).map((column) => column.schema.name));
  const indexes = new Map<string, Row[]>();
  for (const row of keyRows) indexes.set(row[0]!, [...(indexes.get(row[0]!) ?? []), row]);
  for (const [index, parts] of indexes) {
    const names = parts.map((part) => part[1]);
    const usable = parts.every(
      ([, column, nullable, prefix]) =>
        column !== null && stored.has(column!) && (prefix === null || index === 'PRIMARY') && nullable !== 'YES',
    );
    if (usable) return { identity: index === 'PRIMARY' ? 'default' : 'index', key: names as string[] };
  }
  return { identity: 'full', key: [] };
}

function tableSchema(
  flavour: Flavour,
  schema: string,
  name: string,
  identity: TableSchema['identity'],
  key: readonly string[],
  columns: readonly CatalogColumn[],
): TableSchema {
  const kept = columns.filter((column) => !column.generated).map((column) => column.schema);
  const version = createHash('sha256')
    .update(JSON.stringify([flavour, schema, name, identity, key, kept]))
    .digest('hex')
    .slice(0, 12);
  return { dialect: flavour, schema, name, version, identity, key, columns: kept };
}

const NUMBER = /^-?\d+(?:\.\d+)?$/;

/** A default that means the same in another database: a constant, or the current time. */
function portableDefault(flavour: Flavour, dataType: string, text: string | null, extra: string): string | undefined {
  if (text === null || text === 'NULL') return undefined;
  if (/^current_timestamp(?:\(\))?$/i.test(text)) return 'CURRENT_TIMESTAMP';
  if (/^(?:binary|varbinary|bit|\w*blob|geometry|json|vector)$/.test(dataType)) return undefined;
  if (flavour === 'mariadb') return NUMBER.test(text) || /^'(?:[^'\\]|'')*'$/.test(text) ? text : undefined;
  if (extra.includes('DEFAULT_GENERATED')) return undefined;
  if (NUMBER.test(text) && !/char|text|enum|set/.test(dataType)) return text;
  return text.includes('\\') ? undefined : `'${text.replaceAll("'", "''")}'`;
}

/**
 * Fits a table map to the catalog and tells the map what it does not know itself (`hint`). A column that the catalog no
 * longer has, or has with another type, is as the log says. `exact` when log and catalog agree. Throws
 * `source_binlog_settings` when the log does not name its columns. `earlier`: the table as it was where the log is, if the
 * catalog has told; what that lacks is as in `known`.
 */
export function reconcile(
  map: TableMap,
  known: CapturedTable | undefined,
  flavour: Flavour,
  earlier?: CapturedTable,
): { table: LoggedTable; exact: boolean } {
  if (!map.fullMetadata)
    throw new ReplicationError(
      'source_binlog_settings',
      `the log does not name the columns of ${map.schema}.${map.name}: binlog_row_metadata was not FULL when they were written`,
    );
  const byName = new Map(known?.columns.map((column) => [column.schema.name, column]));
  const were = new Map(earlier?.columns.map((column) => [column.schema.name, column]));
  const rowEndName = earlier === undefined ? known?.rowEnd : earlier.rowEnd;
  const isImplicit = (name: string): boolean =>
    !(earlier === undefined ? byName : were).has(name) &&
    ((rowEndName === 'row_end' && IMPLICIT_PERIOD.has(name)) || (flavour === 'mariadb' && ROW_HASH.test(name)));
  const named = map.columns.filter(({ name }) => !isImplicit(name));
  let exact = known !== undefined && known.columns.length === named.length;
  const columns = map.columns.map((column, index): CatalogColumn => {
    if (isImplicit(column.name)) {
      map.hint(index, 'omit');
      return generatedColumn(column);
    }
    const was = were.get(column.name);
    const found = was !== undefined && typesAgree(column, was.schema.type) ? was : byName.get(column.name);
    if (found !== undefined && typesAgree(column, found.schema.type)) {
      const base = baseType(found.schema.type);
      if (found.generated) map.hint(index, 'omit');
      else if (flavour === 'mariadb' && HINTED.has(base)) map.hint(index, base as ColumnHint);
      if (known?.columns[named.indexOf(column)] !== found) exact = false;
      if (found.schema.notNull === !column.nullable) return found;
      // At this place of the log it was another way.
      exact = false;
      return { ...found, schema: { ...found.schema, notNull: !column.nullable } };
    }
    exact = false;
    return { ...generatedColumn(column), generated: false };
  });
  const rowEnd = map.columns.findIndex(({ name }) => name === rowEndName);
  const names = columns.filter((column) => !column.generated).map((column) => column.schema.name);
  const loggedKey = map.primaryKey.filter((index) => index !== rowEnd).map((index) => map.columns[index]!.name);
  let key = known?.schema.key ?? [];
  let identity = known?.schema.identity ?? 'full';
  if (loggedKey.length > 0 && (identity !== 'default' || loggedKey.join('\u0000') !== key.join('\u0000'))) {
    exact = false;
    key = loggedKey;
    identity = 'default';
  } else if (loggedKey.length === 0 && identity === 'default') {
    exact = false;
    key = [];
    identity = 'full';
  }
  if (key.some((column) => !names.includes(column))) {
    key = [];
    identity = 'full';
  }
  const schema = exact ? known!.schema : tableSchema(flavour, map.schema, map.name, identity, key, columns);
  return {
    table: {
      schema,
      keyIndexes: schema.key.map((column) => map.columns.findIndex(({ name }) => name === column)),
      transactional: known?.transactional ?? true,
      ...(rowEnd < 0 ? {} : { rowEnd }),
      guards: undefined,
    },
    exact,
  };
}

/** A column as the log alone describes it, left out. */
function generatedColumn(column: BinlogColumn): CatalogColumn {
  const type = logTypeText(column);
  return {
    schema: { name: column.name, type, portable: type, notNull: !column.nullable },
    dataType: undefined,
    shown: type,
    generated: true,
    computed: false,
    textSql: quoteIdent(column.name),
  };
}

export function tableName(table: { readonly schema: string; readonly name: string }): string {
  return `${table.schema}.${table.name}`;
}
