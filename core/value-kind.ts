/** What the type of a column, as any of the databases writes it, holds: as far as mappings care. */

import type { ColumnSchema } from './frame.ts';

/** What a column holds, as far as mappings care. `local` is a timestamp without a zone. */
export type ColumnKind = 'text' | 'decimal' | 'boolean' | 'timestamp' | 'local' | 'date' | 'json' | 'binary';

const KINDS: readonly (readonly [RegExp, ColumnKind])[] = [
  [/^(?:tinyint|smallint|mediumint|int|integer|bigint|numeric|decimal|dec|real|float|double|oid)\b/, 'decimal'],
  [/^int[248]$|^float[48]$/, 'decimal'],
  [/^bool/, 'boolean'],
  // How Hibernate and others keep yes and no in MySQL.
  [/^bit(?:\(1\))?$/, 'boolean'],
  [/^timestamptz|^timestamp.* with time zone/, 'timestamp'],
  [/^timestamp.* without time zone/, 'local'],
  // A bare `timestamp` is MySQL's, which the session zone +00:00 gives in UTC.
  [/^timestamp/, 'timestamp'],
  [/^datetime/, 'local'],
  [/^date$/, 'date'],
  [/^jsonb?$/, 'json'],
  [/^(?:bytea|binary|varbinary|tinyblob|blob|mediumblob|longblob|geometry|bit)\b/, 'binary'],
];

/** The kind of a type as a frame's table schema names it. Arrays and unknown types are text. */
export function columnKind(type: string): ColumnKind {
  const lower = type.toLowerCase();
  if (lower.endsWith('[]')) return 'text';
  return KINDS.find(([pattern]) => pattern.test(lower))?.[1] ?? 'text';
}

/** The kind of a column; of a type that a database has by itself (a domain), that of what it is made of. */
export function kindOfColumn({ type, portable }: Pick<ColumnSchema, 'type' | 'portable'>): ColumnKind {
  const own = columnKind(type);
  return own === 'text' ? columnKind(portable) : own;
}
