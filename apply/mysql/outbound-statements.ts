/**
 * The statements that bring rows into a system's table: a temporary table with the types of its columns takes the texts,
 * so that the server converts them once, strictly, and compares them in their own types.
 */
import { isFind, type OutboundColumn, type OutboundInput, type OutboundWrite } from '../../core/outbound.ts';
import type { Cells } from '../outbound/outbound-session.ts';
import { columnsOf, encodeValue, inNameOrder } from '../outbound/outbound-shape.ts';
import { qualifiedName, quoteLiteral, quoteName, quoteNullable, typeForDdl } from './sql.ts';
import type { MysqlColumn, MysqlSystemTable } from './system-table.ts';

export interface OutboundStatements {
  /** Makes the temporary table. It does not commit. */
  readonly create: string;
  /** Puts rows into it, and looks up what they find. */
  stage(rows: readonly Cells[]): string;
  /**
   * Numbers of the staged rows that wait: asked before anything is written, so that none is both left and forgotten.
   * Undefined where no row ever does.
   */
  readonly waiting: string | undefined;
  /** Of all staged rows: the number, whether it waits, and the texts of the key in the order of its columns' names. */
  readonly look: string;
  /** Writes those that do not. */
  readonly write: string;
  readonly remove: string;
}

let stages = 0;

export function createOutboundStatements(
  write: OutboundWrite,
  tables: ReadonlyMap<string, MysqlSystemTable | undefined>,
  zone: string | undefined,
): OutboundStatements {
  const table = tables.get(write.table)!;
  const target = qualifiedName(table.schema, table.name);
  const stage = qualifiedName('waybill', `out_${++stages}`);
  const encoders: ((text: string | null) => string)[] = [];
  const definitions: string[] = [
    'i int NOT NULL PRIMARY KEY',
    'w tinyint NOT NULL DEFAULT 0',
    'there tinyint NOT NULL DEFAULT 0',
  ];
  const finds: string[] = [];
  const waits: string[] = [];
  /** Cells by number stand in `c<n>`, what is found in `x<n>`. */
  const typed = ({ cell, kind }: OutboundInput, where: MysqlSystemTable, column: string): string => {
    const { type } = where.details.get(column)!;
    encoders[cell] = (text) => quoteNullable(encodeValue(text, kind, type, zone));
    definitions.push(`c${cell} ${definition(where, column)}`);
    return `c${cell}`;
  };
  const names = new Map<OutboundColumn, string>();
  for (const [index, column] of write.columns.entries()) {
    const { value } = column;
    if (!isFind(value)) {
      names.set(column, typed(value, table, column.name));
      continue;
    }
    const searched = tables.get(value.table)!;
    const cells = value.where.map((each) => ({ column: each.column, name: typed(each, searched, each.column) }));
    const x = `x${index}`;
    definitions.push(`${x} ${definition(table, column.name)}`);
    const match = cells.map((cell) => `f.${quoteName(cell.column)} = s.${cell.name}`).join(' AND ');
    finds.push(
      `UPDATE ${stage} s JOIN ${qualifiedName(searched.schema, searched.name)} f ON ${match} SET s.${x} = f.${quoteName(value.column)}`,
    );
    // What is not even asked for is not waited for; nor is a row that would be left alone if it is not there.
    if (write.missing !== 'ignore' || column.role !== 'key')
      waits.push(`(${[`${x} IS NULL`, ...cells.map(({ name }) => `${name} IS NOT NULL`)].join(' AND ')})`);
    names.set(column, x);
  }
  const keys = columnsOf(write, 'key');
  const sets = columnsOf(write, 'set');
  const joined = `${stage} s STRAIGHT_JOIN ${target} t ON ${keys.map((key) => `t.${quoteName(key.name)} = s.${names.get(key)!}`).join(' AND ')}`;
  const differs = sets.map((set) => {
    // Collations take texts for equal that are not.
    const [a, b] = [`t.${quoteName(set.name)}`, `s.${names.get(set)!}`];
    const same = table.details.get(set.name)!.charset === undefined ? `${a} <=> ${b}` : `BINARY ${a} <=> BINARY ${b}`;
    return `NOT (${same})`;
  });
  const writes: string[] = [];
  if (sets.length > 0)
    writes.push(
      `UPDATE ${joined} SET ${sets.map((set) => `t.${quoteName(set.name)} = s.${names.get(set)!}`).join(', ')}` +
        ` WHERE s.w = 0 AND s.there = 1 AND (${differs.join(' OR ')})`,
    );
  if (write.missing === 'insert')
    writes.push(
      `INSERT INTO ${target} (${write.columns.map(({ name }) => quoteName(name)).join(', ')})` +
        ` SELECT ${write.columns.map((column) => `s.${names.get(column)!}`).join(', ')} FROM ${stage} s WHERE s.w = 0 AND s.there = 0`,
    );
  const late = [...waits, ...(write.missing === 'wait' ? ['there = 0'] : [])];
  const cellNames = encoders.map((_, cell) => `c${cell}`).join(', ');
  return {
    create: `DROP TEMPORARY TABLE IF EXISTS ${stage}; CREATE TEMPORARY TABLE ${stage} (${definitions.join(', ')}) ENGINE=InnoDB`,
    stage: (rows) =>
      [
        `DELETE FROM ${stage}`,
        `INSERT INTO ${stage} (i, ${cellNames}) VALUES ${rows
          .map((row, index) => `(${index}, ${row.map((text, cell) => encoders[cell]!(text)).join(', ')})`)
          .join(', ')}`,
        ...finds,
        `UPDATE ${joined} SET s.there = 1`,
        ...(late.length === 0 ? [] : [`UPDATE ${stage} SET w = 1 WHERE ${late.join(' OR ')}`]),
      ].join('; '),
    waiting: late.length === 0 ? undefined : `SELECT i FROM ${stage} WHERE w = 1`,
    look: `SELECT i, w, ${inNameOrder(keys)
      .map((key) => keyText(names.get(key)!, table.details.get(key.name)!))
      .join(', ')} FROM ${stage}`,
    write: writes.join('; '),
    // Not by an alias, which would be looked for in a default database.
    remove: `DELETE ${target} FROM ${stage} s STRAIGHT_JOIN ${target} ON ${keys.map((key) => `${target}.${quoteName(key.name)} = s.${names.get(key)!}`).join(' AND ')}`,
  };
}

/** A text of a key's value that is the same for all that the column takes for the same. */
function keyText(value: string, { type, charset, collation, exact }: MysqlColumn): string {
  if (type.startsWith('bit')) return `${value} + 0`;
  if (charset === undefined || exact === true || /^(?:enum|set)\b/.test(type)) return value;
  // All but these collations pass over blanks at the end.
  const padded = !/_0900_|nopad/.test(collation!);
  return `HEX(WEIGHT_STRING(${padded ? `TRIM(TRAILING ' ' FROM ${value})` : value}))`;
}

/** A column of the temporary table with the type, and for texts the collation, of a system's column. */
function definition(table: MysqlSystemTable, column: string): string {
  const { type, charset, collation } = table.details.get(column)!;
  const text = charset === undefined ? '' : ` CHARACTER SET ${charset} COLLATE ${quoteLiteral(collation!)}`;
  return `${typeForDdl(type)}${text} NULL`;
}
