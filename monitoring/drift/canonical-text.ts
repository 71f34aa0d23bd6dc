/**
 * The canonical text of a row, of which its digest is taken: for each compared column, in the order of the source
 * table, either `<text>;` (types whose text is never empty and holds no semicolon; nothing before it stands for NULL)
 * or `<bytes>:<text>` (all other types; no number stands for NULL), so that two different rows never have one text.
 *
 * Text is compared as it is, code point by code point: it is *not* brought to one Unicode normal form. The path from
 * source to target copies text, so a target that holds another form of it was changed on the way.
 *
 * Version 1 of the format. Both sides of a comparison write the same kind for a column.
 */
export const DIGEST_FORMAT = 1;

/**
 * How a column is written. plain: its own text. decimal: a number without exponent and without trailing zeros.
 * sized: its own text behind its length. padded: the same without trailing spaces. json: as jsonb prints it. moment: a
 * date as the timestamp of its midnight, a timestamp with a zone or without one in UTC. network: as inet prints it.
 *
 * Where one side is MySQL or MariaDB also: integer: digits, of a boolean too. float4, float8: the number, of that
 * precision. hex: bytes. bits: binary digits. date. micros: a time of day or a duration in microseconds. document: JSON
 * in the form of document-text.ts. address: an address as URLs write it.
 */
export type TextKind =
  | 'plain'
  | 'decimal'
  | 'sized'
  | 'padded'
  | 'json'
  | 'moment'
  | 'network'
  | 'integer'
  | 'float4'
  | 'float8'
  | 'hex'
  | 'bits'
  | 'date'
  | 'micros'
  | 'document'
  | 'address';

const SIZED: ReadonlySet<TextKind> = new Set([
  'sized',
  'padded',
  'json',
  'network',
  'hex',
  'bits',
  'document',
  'address',
]);

/** Types whose text is never empty and never holds a semicolon. */
const PLAIN =
  /^(smallint|integer|bigint|oid|boolean|uuid|date|real|double precision|bytea|interval|(time|timestamp)(\(\d\))? with(out)? time zone)$/;
const INTEGER = /^(smallint|integer|bigint|oid)$/;
const NUMBER = /^(smallint|integer|bigint|oid|numeric|real|double precision)/;
const FLOAT = /^(real|double precision)$/;
const FIXED_DECIMAL = /^numeric\(\d+,-?\d+\)$/;
const TEXT = /^(text|citext|name|character varying)/;
const PADDED = /^(character\(|character$|bpchar)/;
const JSON_TYPE = /^jsonb?$/;
const TIMESTAMP = /^timestamp(?!.*\[\])/;
const NETWORK = /^(inet|cidr)$/;

/** The kind in which a column of type `source` is compared with one of type `target`, as `format_type` names them. */
export function textKind(source: string, target: string): TextKind {
  const bare = (type: string): string => type.replace(/\([^)]*\)/, '');
  const same = bare(source) === bare(target);
  if (same && (PLAIN.test(source) || (source === target && FIXED_DECIMAL.test(source)))) return 'plain';
  if (INTEGER.test(source) && INTEGER.test(target)) return 'plain';
  if (FLOAT.test(source) && FLOAT.test(target)) return 'plain';
  if (NUMBER.test(source) && NUMBER.test(target) && !source.endsWith(']')) return 'decimal';
  // What one length pads to is not what another does.
  if (same) return PADDED.test(source) && source !== target ? 'padded' : 'sized';
  if (PADDED.test(target) && (PADDED.test(source) || TEXT.test(source))) return 'padded';
  if (TEXT.test(target)) return 'sized';
  if (JSON_TYPE.test(source) && JSON_TYPE.test(target)) return 'json';
  if ((source === 'date' || TIMESTAMP.test(source)) && TIMESTAMP.test(target)) return 'moment';
  if (NETWORK.test(source) && NETWORK.test(target)) return 'network';
  return 'sized';
}

export function isSized(kind: TextKind): boolean {
  return SIZED.has(kind);
}

/**
 * The canonical text of one value from the text that the source prints; undefined where only a database can work it
 * out.
 */
export function canonicalValue(kind: TextKind, text: string): string | undefined {
  switch (kind) {
    case 'plain':
    case 'sized':
      return text;
    case 'decimal':
      return plainDecimal(text);
    case 'padded':
      return text.replace(/ +$/, '');
    default:
      return undefined;
  }
}

/** A number without exponent and without zeros that say nothing; `NaN` and `Infinity` as they are. */
export function plainDecimal(text: string): string {
  const match = /^(-?)(\d+)(?:\.(\d*))?(?:e([+-]?\d+))?$/i.exec(text);
  if (match === null) return text;
  const [, sign, whole = '', fraction = '', exponent = '0'] = match;
  const digits = whole + fraction;
  const point = whole.length + Number(exponent);
  const padded = point <= 0 ? '0'.repeat(1 - point) + digits : digits.padEnd(point, '0');
  const at = Math.max(1, point);
  const head = padded.slice(0, at).replace(/^0+(?=\d)/, '');
  const tail = padded.slice(at).replace(/0+$/, '');
  const value = tail === '' ? head : `${head}.${tail}`;
  return value === '0' ? '0' : sign + value;
}

/** The canonical text of a row whose values are canonical already. */
export function canonicalRow(kinds: readonly TextKind[], values: readonly (string | null)[]): string {
  let text = '';
  for (let i = 0; i < kinds.length; i++) {
    const value = values[i]!;
    if (!isSized(kinds[i]!)) text += `${value ?? ''};`;
    else text += value === null ? ':' : `${Buffer.byteLength(value)}:${value}`;
  }
  return text;
}
