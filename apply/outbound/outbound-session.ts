/** What writing to a system's own tables needs of a kind of store; the order in which it is done is outbound-sink.ts. */
import type { OutboundPlan, OutboundWrite } from '../../core/outbound.ts';
import type { Position } from '../../core/position.ts';
import type { Move } from '../batch-store.ts';
import type { ReasonCount, RowFailure } from '../quarantine-entry.ts';
import type { FlowPosition } from '../target-store.ts';
import type { SystemTables } from './outbound-shape.ts';

/** A record that has not gone in: it is tried again, until it does or a newer one of its key takes its place. */
export interface WaitingRecord {
  readonly id: string;
  /** JSON array of the key's values. */
  readonly key: string;
  readonly content: WaitingContent;
  readonly failure: RowFailure;
}

/** What `waybill.quarantine.change` holds of it. */
export interface WaitingContent {
  /** Values by field; null for a record that has gone, of which the key is known. */
  readonly row: Readonly<Record<string, string | null>> | null;
}

/** The content of a record that has gone, as it is written down. */
export const GONE_RECORD = JSON.stringify({ row: null } satisfies WaitingContent);

/** Cells of one row, as an `OutboundWrite` gives them. */
export type Cells = readonly (string | null)[];

/** How rows stand before they are written. */
export interface Looked {
  /** Indexes of rows that would wait for another one, if they were written now. */
  readonly waiting: ReadonlySet<number>;
  /**
   * Of each row what its key is, in the order of the names of the key's columns: texts that are the same for all that the
   * database takes for the same. Undefined where it finds none.
   */
  readonly names: readonly (readonly string[] | undefined)[];
}

/** A record that writes a row which others may want to write too. */
export interface Claim {
  /** Names the row, and the record, in few characters. */
  readonly row: string;
  readonly record: string;
  /** JSON array of the record's key. */
  readonly key: string;
}

export interface OutboundSession {
  /** Where the flow stands. */
  readonly at: FlowPosition;
  /** Holds the plan against the real tables, and gives them. Throws `mapping_invalid` naming file and line. */
  prepare(plan: OutboundPlan): Promise<SystemTables>;
  /** Begins with the position (invariant 5) and the mark by which captures know whose transaction it is. */
  begin(move: Move): Promise<void>;
  look(write: OutboundWrite, rows: readonly Cells[]): Promise<Looked>;
  /** Writes what differs from what is there. Gives the indexes of rows that wait for another one. */
  write(write: OutboundWrite, rows: readonly Cells[]): Promise<ReadonlySet<number>>;
  /** Deletes rows by their keys. */
  remove(write: OutboundWrite, rows: readonly Cells[]): Promise<void>;
  /** Gives rows that are nobody's to records. */
  claim(claims: readonly Claim[]): Promise<void>;
  /** Takes rows from whoever has them. */
  unclaim(rows: readonly string[]): Promise<void>;
  /** Keys of the records whose the rows are, by row. */
  claimed(rows: readonly string[]): Promise<ReadonlyMap<string, string>>;
  /** Takes from records the rows that are not among `kept`. */
  release(records: readonly string[], kept: readonly string[]): Promise<void>;
  /** Each is ended before the next one is set: one inside the other, each would take a lock of its own. */
  savepoint(): Promise<void>;
  /**
   * Ends the savepoint, and keeps what was written since: checked, too, by constraints that would otherwise wait for the
   * commit. Where one of them refuses it, the savepoint is there still.
   */
  settle(): Promise<void>;
  /** Ends the savepoint, and undoes what was written since. */
  rollbackToSavepoint(): Promise<void>;
  commit(): Promise<void>;
  rollback(): Promise<void>;
  /** How many records wait, by reason. Asked while no transaction is open. */
  countKeys(): Promise<ReasonCount[]>;
  /** Keys of the records that wait. */
  waitingKeys(): Promise<Set<string>>;
  /** Records that wait, in the order of their ids, behind `id`. */
  waitingAfter(id: string, limit: number): Promise<WaitingRecord[]>;
  /** Those of given keys. */
  waitingOf(keys: readonly string[]): Promise<WaitingRecord[]>;
  /** Takes the place of what waited under the same keys. */
  keep(records: readonly Omit<WaitingRecord, 'id'>[], position: Position): Promise<void>;
  forget(keys: readonly string[]): Promise<void>;
  /** The failure of a row; undefined for any other. */
  rowFailure(thrown: unknown): RowFailure | undefined;
  error(thrown: unknown, doing: string): Error;
}
