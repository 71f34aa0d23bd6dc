/** Which changes of a MySQL or MariaDB column's type keep every value. */
import { parseTypeText, type TypeText } from './column-kind.ts';
import type { TypeChange } from './type-widening.ts';

const INTEGERS = ['tinyint', 'smallint', 'mediumint', 'int', 'bigint'];
const INTEGER_BYTES: Readonly<Record<string, number>> = { tinyint: 1, smallint: 2, mediumint: 3, int: 4, bigint: 8 };
const INTEGER_DIGITS: Readonly<Record<string, number>> = { tinyint: 3, smallint: 5, mediumint: 8, int: 10, bigint: 20 };
/** Bytes of the longest value of the types that name no length. */
const ROOM: Readonly<Record<string, number>> = { tiny: 255, '': 65_535, medium: 16_777_215, long: 4_294_967_295 };
const CHARACTER_BYTES = 4;
const EXACT_IN_FLOAT: ReadonlySet<string> = new Set(['tinyint', 'smallint']);
const EXACT_IN_DOUBLE: ReadonlySet<string> = new Set(['tinyint', 'smallint', 'mediumint', 'int', 'float']);

/** A type text without what says nothing of its values: display widths of integers and years, comments, case. */
export function plainMysqlType(text: string): string {
  if (/^(?:enum|set)\b/i.test(text)) return text;
  const bare = text
    .replaceAll(/\/\*.*?\*\//g, '')
    .trim()
    .toLowerCase();
  return bare
    .replace(/^(tinyint|smallint|mediumint|int|bigint|year)\(\d+\)/, '$1')
    .replace(/^(datetime|timestamp|time)\(0\)/, '$1');
}

/** Classifies a change of type, both as COLUMN_TYPE has them. */
export function classifyMysqlTypeChange(from: string, to: string): TypeChange {
  if (plainMysqlType(from) === plainMysqlType(to)) return 'same';
  const [a, b] = [parseTypeText(from), parseTypeText(to)];
  const wider = isWider(a, b, from, to);
  return wider ? 'rewritten' : 'narrower';
}

function isWider(a: TypeText, b: TypeText, from: string, to: string): boolean {
  if (INTEGERS.includes(a.name)) return integerFits(a, b);
  if (/^(?:enum|set)$/.test(a.name)) {
    if (a.name === b.name) return to.startsWith(from.slice(0, -1));
    const room = charactersOf(b);
    return room !== undefined && room >= longestText(a.name, from);
  }
  const room = bytesOf(b);
  if (isBinary(a.name)) return isBinary(b.name) && (bytesOf(a) ?? 0) <= (room ?? 0) && b.name !== 'binary';
  if (charactersOf(a) !== undefined) {
    if (charactersOf(b) === undefined) return false;
    if (a.args.length > 0 && b.args.length > 0) return b.args[0]! >= a.args[0]!;
    // Four bytes are the most that a character takes.
    return (bytesOf(a) ?? Infinity) <= (room ?? 0);
  }
  switch (a.name) {
    case 'decimal':
      return decimalFits(a, b);
    case 'float':
      return b.name === 'double' || (b.name === 'float' && b.args.length === 0);
    case 'double':
      return b.name === 'double' && b.args.length === 0;
    case 'date':
      return b.name === 'datetime';
    case 'timestamp':
      return (b.name === 'timestamp' || b.name === 'datetime') && (b.args[0] ?? 0) >= (a.args[0] ?? 0);
    case 'datetime':
    case 'time':
      return b.name === a.name && (b.args[0] ?? 0) >= (a.args[0] ?? 0);
    case 'bit':
      return b.name === 'bit' && (b.args[0] ?? 1) >= (a.args[0] ?? 1);
    case 'year':
      return INTEGERS.indexOf(b.name) > 0;
    case 'json':
    case 'uuid':
    case 'inet4':
    case 'inet6':
      return b.name === 'longtext';
    default:
      return false;
  }
}

function integerFits(a: TypeText, b: TypeText): boolean {
  if (b.name === 'decimal') return (b.args[0] ?? 10) - (b.args[1] ?? 0) >= INTEGER_DIGITS[a.name]!;
  if (b.name === 'double') return EXACT_IN_DOUBLE.has(a.name);
  if (b.name === 'float') return EXACT_IN_FLOAT.has(a.name);
  const [bytes, room] = [INTEGER_BYTES[a.name]!, INTEGER_BYTES[b.name]];
  if (room === undefined) return false;
  if (a.unsigned === b.unsigned) return room >= bytes;
  return a.unsigned && room > bytes;
}

function decimalFits(a: TypeText, b: TypeText): boolean {
  if (b.name !== 'decimal' || (b.unsigned && !a.unsigned)) return false;
  const [digits = 10, scale = 0] = a.args;
  const [room = 10, newScale = 0] = b.args;
  return newScale >= scale && room - newScale >= digits - scale;
}

function isBinary(name: string): boolean {
  return /(?:binary|blob)$/.test(name);
}

/** Characters of the longest value of a character type; undefined for all others. */
function charactersOf({ name, args }: TypeText): number | undefined {
  if (name === 'char' || name === 'varchar') return args[0] ?? 1;
  const text = /^(tiny|medium|long|)text$/.exec(name);
  return text === null ? undefined : Math.floor(ROOM[text[1]!]! / CHARACTER_BYTES);
}

function bytesOf({ name, args }: TypeText): number | undefined {
  if (name === 'char' || name === 'varchar') return (args[0] ?? 1) * CHARACTER_BYTES;
  if (name === 'binary' || name === 'varbinary') return args[0] ?? 1;
  const found = /^(tiny|medium|long|)(?:text|blob)$/.exec(name);
  return found === null ? undefined : ROOM[found[1]!];
}

/** Characters of the longest value of an enum; of a set, with all its labels. */
function longestText(name: string, type: string): number {
  const labels = [...type.matchAll(/'((?:[^']|'')*)'/g)].map(([, label]) => label!.length);
  return name === 'enum' ? Math.max(0, ...labels) : labels.reduce((sum, length) => sum + length + 1, 0);
}
