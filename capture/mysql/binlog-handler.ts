/** What the binlog decoder tells its handler. docs: MySQL "Replication Event Classes", MariaDB "Replication Protocol". */
import type { Gtid } from '../../core/gtid.ts';
import type { RowReader } from './row-reader.ts';
import type { TableMap } from './table-map.ts';

export type Flavour = 'mysql' | 'mariadb';

/** What a GTID event says besides the GTID. */
export interface GroupInfo {
  /** Server that first executed the transaction (`server_id` of the event header). */
  readonly serverId: number;
  /** Commit time on the server that we read from, microseconds since 1970; MariaDB gives whole seconds. */
  readonly commitTimeUs: number;
  /** Bytes of the whole group in the log, where the source says so (MySQL); else undefined. */
  readonly transactionBytes: number | undefined;
  /** MariaDB: whether only transactional tables were changed, so that the group cannot end in a rollback. */
  readonly transactional: boolean;
  /** File and offset at which the GTID event starts. */
  readonly file: string;
  readonly offset: number;
  /** Set once it is known that the group came compressed (MySQL). */
  payload?: { endsInXid(): Promise<boolean> };
}

/** The identity of an XA transaction, as in `XA COMMIT`: equal for equal XIDs (hex of gtrid, hex of bqual, format). */
export type Xid = string;

/**
 * How a group of events ended. With `rollback` the rows of transactional tables were undone, and those of
 * non-transactional tables stay. After `xa-prepare` the rows of the group stay in doubt until an `xa-commit` or
 * `xa-rollback` of the same XID, which comes as a group of its own; prepared and committed at once (`XA COMMIT … ONE
 * PHASE`) is `commit`.
 */
export type GroupEnd =
  | { readonly kind: 'commit' | 'rollback' }
  | { readonly kind: 'xa-prepare' | 'xa-commit' | 'xa-rollback'; readonly xid: Xid };

/** A statement in the log that is neither a mark of a transaction nor DML: DDL, grants, and the like. */
export interface LoggedStatement {
  /** Default database of the session; '' when it had none. */
  readonly schema: string;
  /** Text as sent by its client, decoded by the client's character set. */
  readonly sql: string;
  /** First keyword, upper case: CREATE, ALTER, DROP, RENAME, TRUNCATE, … */
  readonly verb: string;
  /** The table that a TRUNCATE TABLE empties; undefined for all other statements. */
  readonly truncates: { readonly schema: string; readonly name: string } | undefined;
  /** DDL that takes rows away from a name or brings them, and logs none: partitions, tablespaces, tables renamed or made anew. */
  readonly movesRows: boolean;
  /** Whether rows of the same group may follow (CREATE … SELECT). */
  readonly inGroup: boolean;
}

/**
 * One call for each thing found, in log order. A group is `gtid`, then any of `tableMap`, `rows`, `statement`,
 * `savepoint`, `rollbackTo`, then exactly one `end`. Buffers behind `rows` are valid during the call only.
 *
 * Calls are synchronous. A handler that must look something up first (the catalog after a DDL) calls
 * `BinlogStream.holdUntil`: the call in progress is finished, and nothing more is delivered until then.
 */
export interface BinlogHandler {
  gtid(gtid: Gtid, info: GroupInfo): void;
  /** Right after `gtid`, of a group that holds the changes of an XA transaction, prepared or committed at once. */
  xaStart?(xid: Xid): void;
  /** A table map that differs from the last one of its table id. The same `TableMap` object comes back in `rows`. */
  tableMap(map: TableMap): void;
  /** A rows event. A reader that is not iterated is skipped. */
  rows(rows: RowReader): void;
  statement(statement: LoggedStatement): void;
  /** `SAVEPOINT name`: written to the log always. */
  savepoint(name: string): void;
  /**
   * `ROLLBACK TO name`: rows of transactional tables since that savepoint were undone. Servers write it (instead of
   * cutting the rows out of the log) only for transactions that changed non-transactional or temporary tables.
   */
  rollbackTo(name: string): void;
  end(end: GroupEnd): void;
  /** The log goes on in `file` at `offset`. */
  rotate(file: string, offset: number): void;
  /** The source has nothing more at the moment. `file`, `offset`: how far it has read its log. */
  heartbeat(file: string, offset: number): void;
}
