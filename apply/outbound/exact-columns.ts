/** Whether columns of a system tell values apart wherever these differ, and what a value is there for the database. */
import type { OutboundInput, OutboundWrite } from '../../core/outbound.ts';
import { columnKind } from '../../core/value-kind.ts';
import { columnsOf, inNameOrder, type SystemTable } from './outbound-shape.ts';

/** Types other than texts in which canonical values of their kind keep all that they say. */
const WHOLE: Partial<Record<OutboundInput['kind'], RegExp>> = {
  decimal: /^numeric$/,
  timestamp: /^timestamp(?: with time zone|\(6\)(?: with time zone)?)$/,
  date: /^date$/,
};

/** Why values of a record may be one in a column where they differ; undefined where they are not, or nothing is known of it. */
export function directBlur(
  table: SystemTable | undefined,
  name: string,
  { kind, origin }: OutboundInput,
): string | undefined {
  const column = table?.columns.get(name);
  if (table === undefined || column === undefined) return undefined;
  if (origin !== undefined && 'field' in origin && origin.asNumber)
    return `${table.name}.${name} gets it as a number, however it is written`;
  const { base = column.type } = column;
  if (columnKind(base) !== 'text') {
    return WHOLE[kind]?.test(base) === true ? undefined : `${table.name}.${name} is ${column.type}`;
  }
  if (column.exact === true) return undefined;
  return `${table.name}.${name} is ${column.type}${column.collation === undefined ? '' : `, compared by ${column.collation}`}`;
}

/** The same of a column that is looked up, for a column of the key. */
export function foundBlur(
  found: SystemTable | undefined,
  name: string,
  table: SystemTable | undefined,
  key: string,
): string | undefined {
  const [from, to] = [found?.columns.get(name), table?.columns.get(key)];
  if (found === undefined || from === undefined || table === undefined || to === undefined) return undefined;
  if (!found.unique.some((index) => index.length === 1 && index[0] === name))
    return `${found.name}.${name} has no unique index of its own`;
  const [given, kept] = [from.base ?? from.type, to.base ?? to.type];
  const [whole, texts] = [INTEGER.test(kept), columnKind(kept) === 'text'];
  const keeps = given === kept ? !texts || to.exact === true : whole && INTEGER.test(given);
  return keeps || (texts && to.exact === true) ? undefined : `${table.name}.${key} is not ${found.name}.${name}`;
}

const INTEGER = /^(?:tinyint|smallint|mediumint|int|integer|bigint)\b/;

/** Makes the name of a row of the texts of its key, in the order of the names of its columns; undefined where one is NULL. */
export function keyNames(
  write: OutboundWrite,
  table: SystemTable,
): (texts: readonly (string | null)[]) => readonly string[] | undefined {
  const numbers = inNameOrder(columnsOf(write, 'key')).map(({ name }) => {
    const { type, base = type } = table.columns.get(name)!;
    return columnKind(base) === 'decimal';
  });
  return (texts) =>
    texts.every((text) => text !== null)
      ? texts.map((text, index) => (numbers[index]! ? sameNumber(text) : text))
      : undefined;
}

/** The text of a number that is the same for every number that equals it. */
function sameNumber(text: string): string {
  const plain = /^-?\d+\.\d+$/.test(text) ? text.replace(/\.?0+$/, '') : text;
  return plain === '-0' ? '0' : plain;
}
