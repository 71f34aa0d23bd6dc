/** Columns of sources as canonical values: by the column's type, decided once for each version of a table. */
import type { Value } from '../../core/frame.ts';
import type { ColumnKind } from '../../core/value-kind.ts';
import { canonicalDecimal } from '../canonical/decimal.ts';
import { valueClass } from '../canonical/field-type.ts';
import { canonicalTimestamp, isCanonicalDate } from '../canonical/timestamp.ts';
import { Fault, type Cell } from './cell.ts';

export interface ReadOptions {
  /** Zone of local timestamps. */
  readonly zone: string | undefined;
  readonly zeroDates: 'refuse' | 'null';
}

/** Reads one column: a value that is there (not null, not unchanged) as a cell. */
export type ColumnReader = (value: string) => Cell;

/** The reader of a column of this kind. `raw` leaves the text as it is, for casts that a mapping makes itself. */
export function columnReader(kind: ColumnKind, raw: boolean, options: ReadOptions): ColumnReader {
  if (raw) return options.zeroDates === 'null' && isTemporal(kind) ? (text) => (isZeroDate(text) ? null : text) : keep;
  switch (kind) {
    case 'decimal':
      return (text) => canonicalDecimal(text) ?? new Fault('must be a decimal number', valueClass(text));
    case 'boolean':
      return (text) => (text === 't' || text === 'true' || text === '1' ? 'true' : 'false');
    case 'timestamp':
      return timestampReader('UTC', options);
    case 'local':
      return timestampReader(options.zone, options);
    case 'date':
      return (text) => {
        if (isCanonicalDate(text)) return text;
        return options.zeroDates === 'null' && isZeroDate(text)
          ? null
          : new Fault('must be a day that exists', valueClass(text));
      };
    default:
      return keep;
  }
}

function timestampReader(zone: string | undefined, options: ReadOptions): ColumnReader {
  return (text) => {
    const result = canonicalTimestamp(text, zone);
    if ('text' in result) return result.text;
    if (result.fault === 'zero date' && options.zeroDates === 'null') return null;
    return new Fault(`must be a timestamp that can be read: ${result.fault}`, valueClass(text));
  };
}

function keep(text: string): Cell {
  return text;
}

function isTemporal(kind: ColumnKind): boolean {
  return kind === 'timestamp' || kind === 'local' || kind === 'date';
}

function isZeroDate(text: string): boolean {
  return /^\d{4}-(?:00-\d\d|\d\d-00)/.test(text);
}

/** What a frame gives for a column when nothing is known of its old value. */
export function unknownUnchanged(): Fault {
  return new Fault('was not sent by the source, and its value is not known', 'unchanged');
}

/** True for a value that is present as text. */
export function isText(value: Value | undefined): value is string {
  return typeof value === 'string';
}
