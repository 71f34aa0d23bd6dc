/**
 * Which type a column has in a target of another kind, which existing types are accepted there, and how its values are
 * written. docs/type-mapping.md is the same in prose. Postgres to Postgres needs none of this.
 */
import { isBinaryColumn, parseTypeText, type TypeText } from '../core/column-kind.ts';
import type { FlowConfig } from '../core/config.ts';
import type { ColumnSchema, Dialect } from '../core/frame.ts';
import {
  bitsAsNumber,
  boolText,
  dateText,
  datetimeText,
  exactJson,
  finiteText,
  unpaddedText,
  utcText,
} from './mysql-values.ts';
import type { Convert } from './value-misfit.ts';
import { zeroDates } from './zero-dates.ts';

/** How a value stands in a statement: as text, as base64 that the target decodes, or as a number without quotes. */
export type Carrier = 'text' | 'base64' | 'number';

/** The type in the target. Characters and bytes get their final form when the whole table is known (keys, row size). */
export type MappedType =
  | { readonly kind: 'plain'; readonly sql: string }
  | { readonly kind: 'characters' | 'bytes'; readonly length: number | undefined }
  | { readonly kind: 'none'; readonly reason: string };

export interface ColumnMapping {
  readonly type: MappedType;
  /** Names of existing types that take the values too. */
  readonly accepts: ReadonlySet<string>;
  readonly carrier: Carrier;
  /** Absent where the target reads the source's text as it is. */
  readonly convert?: Convert;
  /** Fractional digits (of decimals, times) that the target must have room for. */
  readonly scale?: number;
}

const set = (text: string): ReadonlySet<string> => new Set(text.split(/,\s*/));

const INTEGERS = set('tinyint, smallint, mediumint, int, bigint, decimal');
const FLOATS = set('double, float');
const CHARACTERS = set('char, varchar, tinytext, text, mediumtext, longtext');
const LABELS = set('char, varchar, tinytext, text, mediumtext, longtext, enum, set');
const BYTES = set('binary, varbinary, tinyblob, blob, mediumblob, longblob');
const JSONS = set('json, text, mediumtext, longtext');
const GEOMETRIES = set(
  'geometry, point, linestring, polygon, multipoint, multilinestring, multipolygon, geometrycollection, geomcollection',
);

const plain = (sql: string): MappedType => ({ kind: 'plain', sql });
const characters = (length?: number): MappedType => ({ kind: 'characters', length });
const bytes = (length?: number): MappedType => ({ kind: 'bytes', length });

/** Most fractional digits and digits of a MySQL decimal. */
const MAX_SCALE = 30;
const MAX_PRECISION = 65;

type Rule = (type: TypeText, target: Dialect) => ColumnMapping;

function rule(type: MappedType, accepts: ReadonlySet<string>, convert?: Convert): ColumnMapping {
  return { type, accepts, carrier: 'text', ...(convert === undefined ? {} : { convert }) };
}

function integer(sql: string): Rule {
  return () => rule(plain(sql), INTEGERS);
}

function numeric({ args }: TypeText): ColumnMapping {
  const [precision, scale = 0] = args;
  const base = { accepts: set('decimal'), carrier: 'text' as const, convert: finiteText };
  if (precision === undefined) return { ...base, type: plain(`decimal(${MAX_PRECISION},${MAX_SCALE})`) };
  if (precision > MAX_PRECISION || scale > MAX_SCALE)
    return {
      ...base,
      type: {
        kind: 'none',
        reason: `decimals have at most ${MAX_PRECISION} digits, ${MAX_SCALE} of them behind the point`,
      },
      accepts: new Set(),
    };
  // numeric(3,-2) has zeros in front of the point, numeric(2,4) behind it.
  return {
    ...base,
    type: plain(`decimal(${Math.max(precision + Math.max(0, -scale), scale)},${Math.max(0, scale)})`),
    scale,
  };
}

/** A time type with as many fractional digits as the source's, which are six where it names none. */
function fractional(name: string, accepts: string, convert?: Convert): Rule {
  return ({ args }) => ({ ...rule(plain(`${name}(${args[0] ?? 6})`), set(accepts), convert), scale: args[0] ?? 6 });
}

function bits({ args }: TypeText): ColumnMapping {
  const length = args[0] ?? 1;
  if (length > 64) return rule(characters(), CHARACTERS);
  return { type: plain(`bit(${length})`), accepts: set('bit'), carrier: 'number', convert: bitsAsNumber };
}

const asText: Rule = () => rule(characters(), LABELS);
const shortText =
  (length: number): Rule =>
  () =>
    rule(characters(length), CHARACTERS);

/** Source types of Postgres; every other one is carried as the text that Postgres prints. */
const FROM_POSTGRES: Readonly<Record<string, Rule>> = {
  smallint: integer('smallint'),
  integer: integer('int'),
  bigint: integer('bigint'),
  oid: integer('bigint'),
  numeric,
  real: () => rule(plain('double'), FLOATS, finiteText),
  'double precision': () => rule(plain('double'), FLOATS, finiteText),
  boolean: () => rule(plain('tinyint(1)'), INTEGERS, boolText),
  bytea: () => ({ type: bytes(), accepts: BYTES, carrier: 'base64' }),
  character: ({ args }) => rule(characters(args[0] ?? 1), LABELS, unpaddedText),
  'character varying': ({ args }) => rule(characters(args[0]), LABELS),
  text: asText,
  date: () => rule(plain('date'), set('date, datetime'), dateText),
  'timestamp without time zone': fractional('datetime', 'datetime', datetimeText),
  'timestamp with time zone': fractional('datetime', 'datetime, timestamp', utcText),
  'time without time zone': fractional('time', 'time'),
  'time with time zone': shortText(32),
  json: (_, target) => rule(plain('json'), JSONS, target === 'mysql' ? exactJson : undefined),
  jsonb: (_, target) => rule(plain('json'), JSONS, target === 'mysql' ? exactJson : undefined),
  uuid: (_, target) =>
    target === 'mariadb' ? rule(plain('uuid'), set('uuid, char, varchar')) : rule(characters(36), CHARACTERS),
  inet: shortText(64),
  cidr: shortText(64),
  macaddr: shortText(32),
  macaddr8: shortText(32),
  bit: bits,
};

function fromPostgres(column: ColumnSchema, target: Dialect): ColumnMapping {
  const own = parseTypeText(column.type);
  const portable = parseTypeText(column.portable);
  const found = FROM_POSTGRES[own.name];
  if (found !== undefined) return found(own, target);
  if (own.name.startsWith('interval')) return shortText(64)(own, target);
  return (FROM_POSTGRES[portable.name] ?? asText)(portable, target);
}

/** Between MySQL and MariaDB: the type is the same, apart from those that only one of them has. */
function betweenMysqls(column: ColumnSchema, source: Dialect, target: Dialect): ColumnMapping {
  const type = parseTypeText(column.type);
  const { name, args } = type;
  if (isBinaryColumn(source, column)) {
    if (GEOMETRIES.has(name)) {
      const sql = name === 'geomcollection' ? 'geometrycollection' : name;
      return { type: plain(sql), accepts: new Set([...GEOMETRIES, ...BYTES]), carrier: 'base64' };
    }
    const mapped = name === 'vector' ? bytes() : plain(column.type);
    return {
      type: name === 'vector' && source === target ? plain(column.type) : mapped,
      accepts: new Set([...BYTES, name]),
      carrier: 'base64',
    };
  }
  if (name === 'bit') return { ...bits(type), type: plain(column.type) };
  if (CHARACTERS.has(name))
    return rule({ kind: 'characters', length: name.endsWith('char') ? (args[0] ?? 1) : undefined }, LABELS);
  if (name === 'enum' || name === 'set') return rule(plain(column.type), LABELS);
  if (name === 'uuid' || name === 'inet6' || name === 'inet4')
    return source === target ? rule(plain(name), new Set([name, ...CHARACTERS])) : rule(characters(45), CHARACTERS);
  if (name === 'json') return rule(plain('json'), JSONS);
  if (name === 'decimal') return { ...rule(plain(column.type), set('decimal')), scale: args[1] ?? 0 };
  if (name === 'date') return rule(plain('date'), set('date, datetime'));
  if (name === 'datetime' || name === 'timestamp')
    return { ...rule(plain(column.type), set('datetime, timestamp')), scale: args[0] ?? 0 };
  if (name === 'time') return { ...rule(plain(column.type), set('time')), scale: args[0] ?? 0 };
  if (name === 'year') return rule(plain('year'), new Set(['year', ...INTEGERS]));
  if (name === 'float' || name === 'double') return rule(plain(column.type), name === 'float' ? FLOATS : set('double'));
  if (INTEGERS.has(name)) return rule(plain(column.type), INTEGERS);
  return { ...rule({ kind: 'none', reason: `type ${name} is not known` }, new Set()) };
}

/** What a column becomes in a target of kind mysql or mariadb. */
export function mapToMysql(column: ColumnSchema, source: Dialect, target: Dialect): ColumnMapping {
  return source === 'postgres' ? fromPostgres(column, target) : betweenMysqls(column, source, target);
}

/** A type in Postgres for one of MySQL or MariaDB. */
export interface PostgresMapping {
  readonly type: string;
  /** Further types of Postgres that read the text. */
  readonly accepts: ReadonlySet<string>;
  readonly convert?: Convert;
}

const NOTHING: ReadonlySet<string> = new Set();

/** Signed and unsigned. */
const INTEGER_TYPES: Readonly<Record<string, readonly [string, string]>> = {
  tinyint: ['smallint', 'smallint'],
  smallint: ['smallint', 'integer'],
  mediumint: ['integer', 'integer'],
  int: ['integer', 'bigint'],
  bigint: ['bigint', 'numeric(20,0)'],
};

const BETWEEN: Readonly<Record<string, string>> = {
  float: 'real',
  double: 'double precision',
  tinytext: 'text',
  text: 'text',
  mediumtext: 'text',
  longtext: 'text',
  enum: 'text',
  set: 'text',
  year: 'smallint',
  json: 'jsonb',
  uuid: 'uuid',
  inet4: 'inet',
  inet6: 'inet',
};

/** What a column of MySQL or MariaDB becomes in Postgres; undefined for a type that is not known. */
export function mapToPostgres(
  column: ColumnSchema,
  source: Dialect,
  settings: Pick<FlowConfig, 'zero_dates'>,
): PostgresMapping | undefined {
  const { name, args, unsigned } = parseTypeText(column.type);
  const length = args.length === 0 ? '' : `(${args.join()})`;
  if (isBinaryColumn(source, column)) return { type: 'bytea', accepts: NOTHING };
  const integers = INTEGER_TYPES[name];
  if (integers !== undefined)
    return { type: integers[unsigned ? 1 : 0], accepts: name === 'tinyint' ? set('boolean') : NOTHING };
  const dates = (type: string, epoch: string, accepts: string): PostgresMapping => ({
    type,
    accepts: set(accepts),
    convert: zeroDates(settings.zero_dates, epoch),
  });
  switch (name) {
    case 'decimal':
      return { type: `numeric${length}`, accepts: NOTHING };
    case 'char':
    case 'varchar':
      // No varchar(0) in Postgres.
      return { type: args[0] === 0 ? 'text' : `character varying${length === '' ? '(1)' : length}`, accepts: NOTHING };
    case 'bit':
      return { type: `bit(${args[0] ?? 1})`, accepts: set('bit varying, text') };
    case 'date':
      return dates('date', '1970-01-01', 'timestamp without time zone, timestamp with time zone');
    case 'datetime':
      return dates(`timestamp(${args[0] ?? 0}) without time zone`, '1970-01-01 00:00:00', 'timestamp with time zone');
    case 'timestamp':
      return dates(`timestamp(${args[0] ?? 0}) with time zone`, '1970-01-01 00:00:00', 'timestamp without time zone');
    case 'time':
      // Up to 838 hours, and negative.
      return { type: 'interval', accepts: set('time without time zone') };
    case 'json':
      return { type: 'jsonb', accepts: set('json') };
    default: {
      const type = BETWEEN[name];
      return type === undefined ? undefined : { type, accepts: NOTHING };
    }
  }
}
