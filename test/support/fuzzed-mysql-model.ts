/** What random statements about the tables of a MySQL or MariaDB source know of them. */
import type { Random } from '../../sandbox/demo/random.ts';

/** Types by their index: a column only ever moves along one of these. */
export const LADDERS: readonly (readonly string[])[] = [
  ['smallint', 'int', 'bigint'],
  ['varchar(10)', 'varchar(30)', 'text'],
  ['decimal(8,2)', 'decimal(12,2)', 'decimal(16,4)'],
  ['date', 'datetime'],
];
export const CONSTANTS = ['7', "'new'", '1.25', "'2026-05-05'"];

export interface Column {
  readonly name: string;
  readonly ladder: number;
  step: number;
  notNull: boolean;
  /** Targets do not have it: it becomes a plain one before both sides are compared. */
  generated?: boolean;
}

export interface Part {
  readonly name: string;
  readonly from: number;
  /** The last one has no end. */
  readonly to: number | undefined;
}

export interface Table {
  name: string;
  columns: Column[];
  /** The column that is part of the key, beside the id. */
  key?: string | undefined;
  /** The type of `id` is bigint by now. */
  wide?: boolean;
  parts?: Part[] | undefined;
  /** Targets may have stopped it, until it is read again. */
  stopped?: boolean;
  /** Why it was stopped when somebody asked that it be read again. */
  asked?: string;
}

/** The tables that there are, and the names that come next. */
export interface Model {
  tables: Table[];
  /** Tables that are in the other database for now. */
  away: Table[];
  /** Names that may be left in targets: what is renamed is not dropped there. */
  left: string[];
  readonly elsewhere: string;
  readonly flavour: 'mysql' | 'mariadb';
  names: number;
}

/** A value of a column, which may be NULL. */
export function valueOf({ ladder, notNull }: Column, random: Random): string {
  const n = random.between(0, 99);
  if (!notNull && n % 5 === 0) return 'null';
  return [`${n}`, `'v${n}'`, `${n}.${n % 10}5`, `date '2026-01-01' + interval ${n} day`][ladder]!;
}

/** The type of a column as statements have it, with what they say of NULL. */
export function typeOf({ ladder, step, notNull }: Column): string {
  return `${LADDERS[ladder]![step]}${notNull ? ' not null' : ''}`;
}

/** What is there when it begins. */
export function firstModel(flavour: Model['flavour'], elsewhere: string): Model {
  const tables: Table[] = [{ name: 't0', columns: [{ name: 'a', ladder: 1, step: 1, notNull: false }] }];
  return { tables, away: [], left: [], elsewhere, flavour, names: 1 };
}
