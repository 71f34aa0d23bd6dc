/** Canonical texts of single values, worked out here: of what a database printed, and of what frames carry. */
import { isBinaryColumn } from '../../core/column-kind.ts';
import type { ColumnSchema, Dialect } from '../../core/frame.ts';
import { canonicalValue, type TextKind } from './canonical-text.ts';
import { canonicalDocument } from './document-text.ts';
import type { ZeroDates } from './side.ts';

const WORKED_OUT: ReadonlySet<TextKind> = new Set(['float4', 'float8', 'document', 'address']);

/** Kinds that no database can print by itself in the same way as another. */
export function isWorkedOutHere(kind: TextKind): boolean {
  return WORKED_OUT.has(kind);
}

/** The canonical text of a value of such a kind from the text that a database prints. */
export function workedOut(kind: TextKind, text: string): string {
  switch (kind) {
    case 'float4':
      return floatText(Math.fround(Number(named(text))));
    case 'float8':
      return floatText(Number(named(text)));
    case 'document':
      return canonicalDocument(text);
    case 'address':
      return addressText(text);
    default:
      return text;
  }
}

/** Servers shorten runs of zeros in their own ways; RFC 5952 has one. */
function addressText(text: string): string {
  return text.includes(':') && URL.canParse(`http://[${text}]`) ? new URL(`http://[${text}]`).hostname : text;
}

/** Of the two zeros of a float no database of the MySQL kind keeps the sign in every way of writing. */
function floatText(value: number): string {
  return value === 0 ? '0' : String(value);
}

function named(text: string): string {
  return text === 'infinity' ? 'Infinity' : text === '-infinity' ? '-Infinity' : text;
}

/**
 * The canonical text of a value as a frame of `dialect` carries it; null for NULL; undefined where only a database can
 * work it out.
 */
export function frameValue(
  column: Pick<ColumnSchema, 'type' | 'portable'>,
  dialect: Dialect,
  kind: TextKind,
  zeroDates: ZeroDates | undefined,
  value: string,
): string | null | undefined {
  switch (kind) {
    case 'integer':
      return value === 't' ? '1' : value === 'f' ? '0' : String(BigInt(value));
    case 'hex':
      return Buffer.from(value, 'base64').toString('hex');
    case 'bits':
      return value;
    case 'date':
    case 'moment': {
      if (zeroDates !== undefined && /^0000|-00/.test(value))
        return zeroDates === 'null' ? null : kind === 'date' ? '1970-01-01' : '1970-01-01 00:00:00';
      return kind === 'date' ? value : momentText(value);
    }
    case 'micros':
      return microsText(value);
    case 'float4':
    case 'float8':
    case 'document':
    case 'address':
      return workedOut(kind, value);
    default: {
      const text =
        kind === 'plain' && isBinaryColumn(dialect, column)
          ? String.raw`\x${Buffer.from(value, 'base64').toString('hex')}`
          : value;
      return canonicalValue(kind, text);
    }
  }
}

/** `2024-02-29 23:59:59.120000+00` as `2024-02-29 23:59:59.12`; a date as its midnight. */
function momentText(value: string): string {
  const text = value.replace(/\+00$/, '');
  if (!text.includes(' ')) return `${text} 00:00:00`;
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

/** Microseconds of `[-]hh:mm:ss[.f]`; undefined for an interval of Postgres in ISO 8601. */
function microsText(value: string): string | undefined {
  const match = /^(-?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?$/.exec(value);
  if (match === null) return undefined;
  const [, sign, hours, minutes, seconds, fraction = ''] = match;
  const micros =
    (Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)) * 1e6 + Number(fraction.padEnd(6, '0'));
  return micros === 0 ? '0' : `${sign}${micros}`;
}

/** `[-]hh:mm:ss.ffffff` of microseconds: a time of MySQL, and a time or an interval of Postgres. */
export function timeText(micros: number): string {
  const seconds = Math.floor(Math.abs(micros) / 1e6);
  const two = (value: number): string => String(value).padStart(2, '0');
  const fraction = String(Math.abs(micros) % 1e6).padStart(6, '0');
  return `${micros < 0 ? '-' : ''}${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}.${fraction}`;
}
