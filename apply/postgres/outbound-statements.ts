/** The statements that bring rows into a system's table: the texts are cast once, and the database compares. */
import { isFind, type OutboundColumn, type OutboundInput, type OutboundWrite } from '../../core/outbound.ts';
import type { Cells } from '../outbound/outbound-session.ts';
import {
  columnsOf,
  encodeValue,
  inNameOrder,
  type SystemColumn,
  type SystemTable,
  type SystemTables,
} from '../outbound/outbound-shape.ts';
import { qualifiedName, quoteName, quoteNullable } from './sql.ts';

export interface OutboundStatements {
  /** A statement that gives the numbers `i` of the rows that wait. */
  write(rows: readonly Cells[]): string;
  /** One that writes nothing: of all rows, by their numbers, whether they wait (`w`) and the texts of their keys (`names`). */
  look(rows: readonly Cells[]): string;
  remove(rows: readonly Cells[]): string;
}

/** Types without an equality, or whose equality is not identity; beside texts. */
const AS_TEXT = /^(json|xml|point|polygon|box|path|line|lseg|circle)(\[\])?$/;

/** A type to which an explicit cast cuts nothing off: the assignment to the column then refuses what is too long. */
function castType({ type: own, base: type = own }: SystemColumn): string {
  if (/^character varying\(\d+\)$/.test(type)) return 'character varying';
  if (/^character\(\d+\)$/.test(type)) return 'bpchar';
  return type;
}

export function createOutboundStatements(
  write: OutboundWrite,
  tables: SystemTables,
  zone: string | undefined,
): OutboundStatements {
  const table = tables.get(write.table)!;
  const target = qualifiedName(table.schema, table.name);
  /** By cell: how its text is written. */
  const encoders: ((text: string | null) => string)[] = [];
  const typed = ({ cell, kind }: OutboundInput, where: SystemTable, column: string): string => {
    const of = where.columns.get(column)!;
    const { type, base = type } = of;
    encoders[cell] = (text) => quoteNullable(encodeValue(text, kind, base, zone));
    return `v.c${cell}::${castType(of)}`;
  };
  const waits: string[] = [];
  const expressions = write.columns.map((column: OutboundColumn): string => {
    const { value, name } = column;
    if (!isFind(value)) return typed(value, table, name);
    const searched = tables.get(value.table)!;
    const where = value.where.map((each) =>
      equals(`f.${quoteName(each.column)}`, typed(each, searched, each.column), searched.columns.get(each.column)!),
    );
    const found = `(SELECT f.${quoteName(value.column)} FROM ${qualifiedName(searched.schema, searched.name)} f WHERE ${where.join(' AND ')})`;
    // What is not even asked for is not waited for; nor is a row that would be left alone if it is not there.
    if (write.missing !== 'ignore' || column.role !== 'key')
      waits.push(`(${[`${found} IS NULL`, ...value.where.map(({ cell }) => `v.c${cell} IS NOT NULL`)].join(' AND ')})`);
    return found;
  });
  const x = new Map(write.columns.map((column, index) => [column, `x${index}`]));
  const keys = columnsOf(write, 'key');
  const sets = columnsOf(write, 'set');
  const match = keys
    .map((key) => equals(`t.${quoteName(key.name)}`, `s.${x.get(key)!}`, table.columns.get(key.name)!))
    .join(' AND ');
  const differs = (column: OutboundColumn, other: string): string => {
    const cast = textCast(table.columns.get(column.name)!);
    return `t.${quoteName(column.name)}${cast} IS DISTINCT FROM ${other}${cast}`;
  };
  const cells = encoders.length;
  const names = (prefix: string, count: number): string =>
    Array.from({ length: count }, (_, index) => `${prefix}${index}`).join(', ');
  const list = write.columns.map(({ name }) => quoteName(name)).join(', ');
  const rowsSql = (rows: readonly Cells[]): string => {
    const tuples = rows.map((row, index) => `(${index}, ${row.map((text, cell) => encoders[cell]!(text)).join(', ')})`);
    return (
      `WITH v (i, ${names('c', cells)}) AS (VALUES ${tuples.join(',\n')}),` +
      ` s (i, w, ${names('x', write.columns.length)}) AS MATERIALIZED (SELECT v.i,` +
      ` ${waits.length === 0 ? 'false' : waits.join(' OR ')}, ${expressions.join(', ')} FROM v)`
    );
  };
  const absent = `NOT EXISTS (SELECT 1 FROM ${target} t WHERE ${match})`;
  const late = write.missing === 'wait' ? `s.w OR ${absent}` : 's.w';
  const waiting = `SELECT s.i FROM s WHERE ${late}`;
  const keyTexts = inNameOrder(keys).map((key) => keyText(`s.${x.get(key)!}`, table.columns.get(key.name)!));
  return {
    look: (rows) => `${rowsSql(rows)} SELECT s.i, ${late} AS w, ARRAY[${keyTexts.join(', ')}] AS names FROM s`,
    write(rows) {
      // One statement, and so one snapshot: a row that another flow makes in between would else be waited for by nobody.
      const parts: string[] = [];
      if (sets.length > 0)
        parts.push(
          `updated AS (UPDATE ${target} t SET ${sets.map((set) => `${quoteName(set.name)} = s.${x.get(set)!}`).join(', ')}` +
            ` FROM s WHERE NOT s.w AND ${match} AND (${sets.map((set) => differs(set, `s.${x.get(set)!}`)).join(' OR ')}))`,
        );
      if (write.missing === 'insert') {
        // Somebody else may have made the row a moment ago.
        const action =
          sets.length === 0
            ? 'NOTHING'
            : `UPDATE SET ${sets.map(({ name }) => `${quoteName(name)} = EXCLUDED.${quoteName(name)}`).join(', ')}` +
              ` WHERE ${sets.map((set) => differs(set, `EXCLUDED.${quoteName(set.name)}`)).join(' OR ')}`;
        // An index on some of the key's columns refuses a row that agrees in those alone: it waits.
        const onConflict = hasIndex(table, keys)
          ? ` ON CONFLICT (${keys.map(({ name }) => quoteName(name)).join(', ')}) DO ${action}`
          : '';
        parts.push(
          `inserted AS (INSERT INTO ${target} AS t (${list}) SELECT ${names('s.x', write.columns.length)} FROM s` +
            ` WHERE NOT s.w AND ${absent}${onConflict})`,
        );
      }
      return `${[rowsSql(rows), ...parts].join(', ')} ${waiting}`;
    },
    remove: (rows) => `${rowsSql(rows)} DELETE FROM ${target} t USING s WHERE ${match}`,
  };
}

/** Whether a column has a value, by what its unique index takes for the same. */
function equals(column: string, value: string, of: SystemColumn): string {
  return of.folding === undefined ? `${column} = ${value}` : `${column} ${of.folding} ${value}::${castType(of)}`;
}

/** What tells values apart that the column takes for the same, or has no equality for: they are to be written, too. */
function textCast({ type, base = type, collation, folding }: SystemColumn): string {
  if (collation !== undefined) return '::text COLLATE "C"';
  return folding !== undefined || AS_TEXT.test(base) ? '::text' : '';
}

/** A text of a key's value that is the same for all that the column takes for the same. */
function keyText(value: string, of: SystemColumn): string {
  const { collation, folding } = of;
  const own = `${value}::${castType(of)}`;
  // There is no text of what such a collation compares, but hashes heed it.
  if (collation !== undefined)
    return [0, 1]
      .map((seed) => `hashtextextended(${own}::text COLLATE ${collation}, ${seed})::text`)
      .join(" || ' ' || ");
  return folding === undefined ? `${own}::text` : `lower(${own}::text COLLATE "default")`;
}

/** Whether a unique index is on just the columns of a key. */
function hasIndex({ unique }: SystemTable, keys: readonly OutboundColumn[]): boolean {
  return unique.some((index) => index.length === keys.length && keys.every(({ name }) => index.includes(name)));
}
