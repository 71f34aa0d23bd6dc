/** What random statements about the tables of a Postgres source know of them. */

/** Types by their index: a column only ever moves along one of these. */
export const LADDERS: readonly (readonly string[])[] = [
  ['smallint', 'int', 'bigint', 'numeric'],
  ['varchar(10)', 'varchar(30)', 'text'],
  ['numeric(8,2)', 'numeric(12,2)', 'numeric(16,4)'],
  ['date', 'timestamp'],
];
export const VALUES = [
  'floor(random() * 100)',
  "'v' || floor(random() * 1000)",
  'round((random() * 100)::numeric, 2)',
  "date '2026-01-01' + floor(random() * 300)::int",
];

export interface Column {
  readonly name: string;
  readonly ladder: number;
  step: number;
  notNull: boolean;
  /** A default or a generated value that the target does not have: it goes before both sides are compared. */
  passing?: string | undefined;
  generated?: boolean;
}

export interface Part {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

export interface Table {
  name: string;
  columns: Column[];
  /** The type of `id` is the one of this step of the first ladder, from int on. */
  idStep?: number;
  /** The column that is part of the key, beside the id. */
  key?: string | undefined;
  keyName: string;
  parts?: Part[];
  /** Its replica identity is the whole row. */
  full?: boolean;
  /** Targets have stopped it, until it is read again. */
  stopped?: boolean;
  /** The names that it had. */
  formerly?: string[];
}

/** A second schema, whose tables are not captured. */
export const ELSEWHERE = 'elsewhere';

/** The tables that there are, and the names that come next. */
export interface Model {
  tables: Table[];
  /** Tables that are in the other schema for now. */
  away: Table[];
  /** Names that may be left in targets: a table that leaves the schema is not dropped there. */
  left: string[];
  names: number;
}

/** Partitions have a replica identity of their own: it must be that of their table. */
export function identitySql(table: Table, part = table.name): string {
  return `alter table ${part} replica identity ${table.full === true ? 'full' : 'default'}`;
}
