/**
 * In which form a column is compared when at least one side is MySQL or MariaDB: a form that both servers can print of
 * the same value, whatever way apply stores it (docs/type-mapping.md). Between Postgres databases see `textKind`.
 */
import { parseTypeText } from '../../core/column-kind.ts';
import type { Dialect } from '../../core/frame.ts';
import type { TextKind } from './canonical-text.ts';

/** A type of one side. `type` as the catalog prints it; domains as what they are made of. */
export interface SideType {
  readonly dialect: Dialect;
  readonly type: string;
}

type Class =
  | 'integer'
  | 'decimal'
  | 'float4'
  | 'float8'
  | 'bytes'
  | 'bits'
  | 'date'
  | 'moment'
  | 'time'
  | 'document'
  | 'address'
  | 'padded'
  | 'text';

const POSTGRES: Readonly<Record<string, Class>> = {
  smallint: 'integer',
  integer: 'integer',
  bigint: 'integer',
  oid: 'integer',
  boolean: 'integer',
  numeric: 'decimal',
  real: 'float4',
  'double precision': 'float8',
  bytea: 'bytes',
  bit: 'bits',
  date: 'date',
  'timestamp without time zone': 'moment',
  'timestamp with time zone': 'moment',
  'time without time zone': 'time',
  interval: 'time',
  json: 'document',
  jsonb: 'document',
  inet: 'address',
  character: 'padded',
  bpchar: 'padded',
};

const MYSQL: Readonly<Record<string, Class>> = {
  tinyint: 'integer',
  smallint: 'integer',
  mediumint: 'integer',
  int: 'integer',
  bigint: 'integer',
  year: 'integer',
  decimal: 'decimal',
  float: 'float4',
  double: 'float8',
  bit: 'bits',
  date: 'date',
  datetime: 'moment',
  timestamp: 'moment',
  time: 'time',
  json: 'document',
  inet4: 'address',
  inet6: 'address',
  char: 'padded',
};
const MYSQL_BYTES =
  /^(?:(?:var)?binary|\w*blob|vector|geometry|(?:multi)?(?:point|linestring|polygon)|geom(?:etry)?collection)$/;

function classOf({ dialect, type }: SideType): Class {
  if (type.endsWith(']')) return 'text';
  const { name } = parseTypeText(type);
  if (dialect === 'postgres') return POSTGRES[name] ?? 'text';
  return MYSQL_BYTES.test(name) ? 'bytes' : (MYSQL[name] ?? 'text');
}

const NUMBERS: ReadonlySet<Class> = new Set(['integer', 'decimal', 'float4', 'float8']);

/** The kind in which a column of two such types is compared. */
export function crossKind(source: SideType, target: SideType): TextKind {
  const a = classOf(source);
  const b = classOf(target);
  const either = (wanted: Class): boolean => a === wanted || b === wanted;
  if (NUMBERS.has(a) && NUMBERS.has(b)) {
    if (either('float4')) return 'float4';
    if (either('float8')) return 'float8';
    return either('decimal') ? 'decimal' : 'integer';
  }
  if (a === 'bytes' && b === 'bytes') return 'hex';
  if (a === 'bits' && b === 'bits') return 'bits';
  if (a === 'date' && b === 'date') return 'date';
  if ((a === 'date' || a === 'moment') && (b === 'date' || b === 'moment')) return 'moment';
  if (a === 'time' && b === 'time') return 'micros';
  // Documents of one engine print alike wherever they are.
  if (a === 'document' && b === 'document') return source.dialect === target.dialect ? 'sized' : 'document';
  if (a === 'address' && b === 'address') return source.dialect === target.dialect ? 'sized' : 'address';
  if (either('padded')) return 'padded';
  return 'sized';
}

/** Kinds whose values sort the same in every engine. Text only does where `order` says so of both columns. */
export function sortsAlike(kind: TextKind): boolean {
  return /^(?:integer|decimal|hex|date|moment|micros)$/.test(kind);
}
