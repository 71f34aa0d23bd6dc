/** What a kind of target does its own way when batches are written; the order in which it is done is batch-writer.ts. */
import type { Position } from '../core/position.ts';
import type { Batch } from './batch.ts';
import type { Plans, Segment, SourceRow } from './compact.ts';
import type { FollowedTables, SchemaStep } from './followed-tables.ts';
import type { HeldKeys } from './held-keys.ts';
import type { ReasonCount, RowFailure } from './quarantine-entry.ts';
import type { PlanShape } from './table-changes.ts';

/** One transaction of a target: statements are gathered and sent together. */
export interface StoreTransaction {
  add(sql: string): void;
  /** `add`, and sends what has gathered when that is much. */
  addAndFlushIfLarge(sql: string): Promise<void>;
  /** Sends what has gathered. */
  flush(): Promise<void>;
  /** Forgets what has not been sent and returns to a savepoint. */
  rollbackTo(savepoint: string): Promise<void>;
  commit(): Promise<void>;
  rollback(): Promise<void>;
}

/** A step of a flow's position. */
export interface Move {
  readonly flow: string;
  readonly source: string;
  readonly expected: Position;
  readonly next: Position;
  readonly stream: string;
  readonly seq: number;
  readonly commitTimeUs: number;
  readonly quarantineVersion: number;
}

/** A change that did not go in, and why. */
export interface Left<P extends PlanShape> {
  readonly item: SourceRow<P>;
  readonly failure: RowFailure;
}

/** A change in quarantine, as the version of its table has it that the flow follows now. */
export interface QuarantinedRow<P extends PlanShape> {
  readonly id: string;
  readonly failure: RowFailure;
  readonly item: SourceRow<P>;
}

/** Tries rows, without those that are known to be `refused`; gives these and what else did not go in. */
export type Passes<P extends PlanShape> = (refused?: ReadonlyMap<SourceRow<P>, RowFailure>) => Promise<Left<P>[]>;

export interface BatchStore<P extends PlanShape, T extends StoreTransaction> {
  readonly followed: FollowedTables;
  /** Whether tables can be changed in the transaction that brings rows, or only before it. */
  readonly changesInside: boolean;
  /** Looks at the target tables that a batch is about to be written to, and notes in `followed` which of them are lost. */
  look(batch: Batch): Promise<void>;
  /**
   * Makes target tables fit the versions that follow, in `transaction` where they can be changed inside; otherwise
   * `transaction` is the one under way, if any. A table that cannot be made to fit is stopped, alone.
   */
  follow(steps: readonly SchemaStep[], transaction: T | undefined): Promise<void>;
  /** The plans for the tables of a batch's frames that are current; undefined for all others. */
  plansFor(batch: Batch): Promise<Plans<P>>;
  /** Makes what segments need that cannot be made in a transaction. `open` is the one under way, if any. */
  prepare?(segments: readonly Segment<P>[], open: T | undefined): Promise<void>;
  /** Begins with the position. Invariant 5: it comes first, so that a writer that was overtaken touches no data. */
  begin(move: Move): Promise<T>;
  /** Moves the position once more, at the end of a transaction that came in several batches. */
  advance(transaction: T, move: Move): Promise<void>;
  /** Checks what constraints have put off until now, and lets them do so again; empty where none of the target's can. */
  readonly checkSql: string;
  writeSegment(transaction: T, segment: Segment<P>): Promise<void>;
  /** Does a snapshot mark, or truncates that follow each other. */
  barrier(transaction: T, rows: readonly SourceRow<P>[]): Promise<void>;
  /** Loads, again, what the target knows of tables and of snapshots under way. */
  load(): Promise<void>;
  /** The keys in quarantine, without what the transaction `except` brought there. */
  heldKeys(except?: string): Promise<HeldKeys>;
  /** What the transaction at `position` has in quarantine of tables that the flow follows, in order, so much at a time as memory has room for. */
  quarantinedAt(position: string): AsyncIterable<readonly QuarantinedRow<P>[]>;
  /** Removes changes that went in from the quarantine. */
  releaseSql(ids: readonly string[]): readonly string[];
  /** Notes why a change in quarantine does not go in by now. */
  failureSql(id: string, failure: RowFailure): string;
  /** How many keys wait in quarantine, by reason. Asked while no transaction is open. */
  countKeys(): Promise<ReasonCount[]>;
  /** Does what had to wait until no transaction is open; called after each commit. */
  committed?(): Promise<void>;
  /** Statements that store a change which cannot be applied; none of them is larger than the target takes. */
  quarantineSql(item: SourceRow<P>, failure: RowFailure): readonly string[];
  /** Applies one change by itself; gives the failure when it failed because of its row, and then nothing is left of it. */
  tryRow(item: SourceRow<P>): Promise<RowFailure | undefined>;
  /**
   * Runs `passes`, which try `rows` of one source transaction, so that what they leave is all that is wrong. Throws a row
   * error where a constraint is broken by what was written before.
   */
  settleTransaction(rows: readonly SourceRow<P>[], passes: Passes<P>): Promise<Left<P>[]>;
  /** The row exists at the source: the end of a snapshot under way must not delete what the target has of it. */
  recordSeen(transaction: T, item: SourceRow<P>): Promise<void>;
  /** True when the failure belongs to a row, so that replaying row by row finds which. */
  isRowError(thrown: unknown): boolean;
  /** Classifies what was thrown while `doing` something. */
  error(thrown: unknown, doing: string): Error;
}
