/**
 * The envelope of a canonical record: tenant before the fields, lineage behind them. Lineage says where the values come
 * from, down to the position in the source's log; it is what "explain this value" reads.
 */
import type { ColumnSchema, TableSchema } from '../../core/frame.ts';
import type { Entity } from './entity.ts';

/** Lineage of a contribution: the row that made it, and the change to that row. */
export interface Lineage {
  readonly source: string;
  readonly table: string;
  /** Primary key of the source row as JSON: an object of texts. */
  readonly key: string;
  /** Position in the source's log, in the text form of core/position.ts. */
  readonly position: string;
  /** Commit time, canonical timestamp. */
  readonly time: string;
}

interface EnvelopeColumn {
  readonly name: string;
  readonly sql: string;
  readonly notNull: boolean;
  readonly comment: string;
}

export const TENANT_COLUMN: EnvelopeColumn = {
  name: 'tenant',
  sql: 'text',
  notNull: true,
  comment: 'Whose record it is',
};

/** In the order of `lineageValues`. */
export const LINEAGE_COLUMNS: readonly EnvelopeColumn[] = [
  { name: 'lineage_version', sql: 'integer', notNull: true, comment: 'Version of the entity’s schema' },
  { name: 'lineage_source', sql: 'text', notNull: true, comment: 'Source of the newest change' },
  { name: 'lineage_table', sql: 'text', notNull: true, comment: 'Table in the source' },
  { name: 'lineage_key', sql: 'jsonb', notNull: true, comment: 'Primary key of the source row' },
  { name: 'lineage_position', sql: 'text', notNull: true, comment: 'Position in the source’s log' },
  { name: 'lineage_time', sql: 'timestamp with time zone', notNull: true, comment: 'Commit time in the source' },
  {
    name: 'lineage_groups',
    sql: 'jsonb',
    notNull: false,
    comment: 'Lineage by field group, where the newest change did not make all of them, and the values that lost',
  },
];

/** Lineage as values of `LINEAGE_COLUMNS`. `groups` is the JSON text of lineage by field group, where there is one. */
export function lineageValues(entity: Entity, lineage: Lineage, groups: string | null): (string | null)[] {
  const { source, table, key, position, time } = lineage;
  return [String(entity.version), source, table, key, position, time, groups];
}

/** Schema name of canonical tables in frames. */
export const CANONICAL_SCHEMA = 'canonical';

/** The entity as the table schema that frames of the canonical stream carry. */
export function canonicalTableSchema(entity: Entity): TableSchema {
  const column = (name: string, type: string, notNull: boolean): ColumnSchema => ({
    name,
    type,
    portable: type,
    notNull,
  });
  return {
    schema: CANONICAL_SCHEMA,
    name: entity.name,
    version: `${entity.name}/${entity.version}`,
    identity: 'default',
    key: [TENANT_COLUMN.name, ...entity.key],
    columns: [
      column(TENANT_COLUMN.name, TENANT_COLUMN.sql, true),
      ...entity.fields.map((field) => column(field.name, field.type.sql, !field.nullable)),
      ...LINEAGE_COLUMNS.map((lineage) => column(lineage.name, lineage.sql, lineage.notNull)),
    ],
  };
}
