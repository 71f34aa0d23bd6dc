/** Tables of a MySQL or MariaDB server, with what it takes to compare them. */
import { BY_VALUE, type SideColumn, type SideTable } from '../side.ts';
import type { CompareSession, TextRow } from './session.ts';

const SYSTEM = "('mysql', 'sys', 'information_schema', 'performance_schema', 'waybill')";
const DOING = 'reading the catalog';
const GENERATED = /\b(?:VIRTUAL|STORED|PERSISTENT) GENERATED\b/i;
/** Collations in which texts sort by their code points and trailing spaces count. */
const BYTEWISE = /^(?:utf8mb4_0900_bin|utf8mb4_nopad_bin|utf8mb3_nopad_bin|ascii_nopad_bin)$/;
const CHARACTERS = /^(?:var)?char\(/i;

/** All base tables, or those that `include` accepts. Generated columns are left out, as capture leaves them out. */
export async function readTables(
  session: CompareSession,
  include: (schema: string, name: string) => boolean,
): Promise<SideTable[]> {
  const where = `TABLE_SCHEMA NOT IN ${SYSTEM}`;
  const tables = await session.query(
    `SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_ROWS FROM information_schema.TABLES
      WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND ${where} ORDER BY TABLE_SCHEMA, TABLE_NAME`,
    DOING,
  );
  const columns = byTable(
    await session.query(
      `SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, COLLATION_NAME, EXTRA FROM information_schema.COLUMNS
        WHERE ${where} ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION`,
      DOING,
    ),
  );
  const keys = byTable(
    await session.query(
      `SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, NULLABLE, SUB_PART FROM information_schema.STATISTICS
        WHERE NON_UNIQUE = 0 AND ${where}
        ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX`,
      DOING,
    ),
  );
  return tables
    .filter(([schema, name]) => include(schema!, name!))
    .map(([schema, name, rows]) => {
      const id = `${schema}\0${name}`;
      const all = columns.get(id) ?? [];
      const stored = all.filter((column) => !isGenerated(column));
      return {
        dialect: session.flavour,
        schema: schema!,
        name: name!,
        columns: stored.map((column) => sideColumn(session.flavour, column)),
        generated: all.filter(isGenerated).map(([column]) => column!),
        key: chooseKey(new Set(stored.map(([column]) => column!)), keys.get(id) ?? []),
        estimatedRows: Number(rows ?? 0),
      };
    });
}

function isGenerated([, , , extra]: TextRow): boolean {
  return GENERATED.test(extra ?? '');
}

function sideColumn(flavour: string, [name, type, collation]: TextRow): SideColumn {
  return { name: name!, type: type!, base: type!, order: orderOf(flavour, type!, collation ?? undefined) };
}

/** Enumerations sort by their numbers, whatever their collation. */
function orderOf(flavour: string, type: string, collation: string | undefined): string | undefined {
  const isText = CHARACTERS.test(type);
  if (collation === undefined) return isText ? undefined : BY_VALUE;
  if (BYTEWISE.test(collation)) return BY_VALUE;
  return isText ? `${flavour} ${collation}` : undefined;
}

function byTable(rows: readonly TextRow[]): Map<string, TextRow[]> {
  const groups = new Map<string, TextRow[]>();
  for (const row of rows) {
    const id = `${row[0]}\0${row[1]}`;
    const group = groups.get(id);
    if (group === undefined) groups.set(id, [row.slice(2)]);
    else group.push(row.slice(2));
  }
  return groups;
}

/** As capture chooses it: the primary key, else a unique index without NULLs and prefixes, else none. */
function chooseKey(columns: ReadonlySet<string>, parts: readonly TextRow[]): string[] {
  const indexes = new Map<string, TextRow[]>();
  for (const part of parts) indexes.set(part[0]!, [...(indexes.get(part[0]!) ?? []), part]);
  for (const [index, members] of indexes)
    if (
      members.every(
        ([, column, nullable, prefix]) =>
          column !== null && columns.has(column!) && (prefix === null || index === 'PRIMARY') && nullable !== 'YES',
      )
    )
      return members.map((member) => member[1]!);
  return [];
}
