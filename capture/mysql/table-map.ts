/** TABLE_MAP events: what the log says of a table's shape. */

/** What `information_schema` knows and the log of MariaDB does not say. */
export type ColumnHint = 'uuid' | 'inet4' | 'inet6';

export interface BinlogColumn {
  /** '' when the log carries no names (`binlog_row_metadata` is not FULL). */
  readonly name: string;
  /** Type code of the log, the real one of STRING columns (enum 247, set 248, char 254) resolved. */
  readonly type: number;
  /** Type-specific metadata: length in bytes, precision << 8 | scale, fractional digits, bits, … */
  readonly meta: number;
  readonly unsigned: boolean;
  readonly nullable: boolean;
  /** Collation id of character columns, enums and sets; 63 is binary; undefined where the log gives none. */
  readonly collation: number | undefined;
  /** Labels of an enum or set. */
  readonly labels: readonly string[] | undefined;
  /** False for invisible columns (MySQL). */
  readonly visible: boolean;
}

export interface TableMap {
  readonly id: number;
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly BinlogColumn[];
  /** Positions of the primary key's columns, in key order; empty where there is none or the log does not say. */
  readonly primaryKey: readonly number[];
  /** Whether names, character sets and labels are given: `binlog_row_metadata=FULL`. Rows of others cannot be written. */
  readonly fullMetadata: boolean;
  /** Says what a column really is; call before its rows are written. */
  hint(index: number, hint: ColumnHint): void;
}
