/** What a flow needs of a target: one folder per kind of store implements it. */
import type { FlowConfig } from '../core/config.ts';
import type { TransactionEntry } from '../core/frame.ts';
import type { FlowReport } from '../core/metrics.ts';
import type { Position } from '../core/position.ts';
import type { Batch } from './batch.ts';

/** Opens sessions of one target. */
export interface TargetStore {
  /**
   * Connects. `applicationName` names flow and installation: the target shows it for the session where it can.
   * Throws `target_unreachable`, `target_auth` or another classified error.
   */
  open(applicationName: string): Promise<StoreSession>;
}

export interface StoreSession {
  /** Aborts when the connection breaks, also while nothing is being asked. */
  readonly lost: AbortSignal;
  /**
   * Ends the sessions that a process which lost the lease of this flow left open (it may hang with locks held), makes
   * what Waybill keeps in the target where it is missing, reads where the flow stands, and gives its writer.
   */
  openSink(flow: SinkOptions): Promise<BatchSink>;
  close(): Promise<void>;
}

export interface SinkOptions {
  readonly flow: string;
  readonly settings: FlowConfig;
  readonly stream: string;
  /** Id of this installation. */
  readonly installation: string;
  readonly report: FlowReport;
  readonly checks: PartChecks;
}

/**
 * A transaction in several parts of which an earlier one broke a constraint that the target checks at the end: it is rolled
 * back and written again, and each part is checked by itself. One of a flow, for all its runs.
 */
export interface PartChecks {
  /** Transactions up to this one are written so. */
  upTo: TransactionEntry | undefined;
}

/** Writes batches, each together with the position it brings. Invariant 4. */
export interface BatchSink {
  /** Where the target stands. */
  readonly position: Position;
  /** Sequence of the stream up to which it reflects it, as far as the stream is still the same. */
  readonly seq: number;
  /** A source transaction has been written in part; nobody else sees it yet. */
  readonly open: boolean;
  /** Writes and, at a transaction's end, commits. Errors are classified; after one the session must be closed. */
  write(batch: Batch): Promise<void>;
  /** Milliseconds after which `idle` is to be called while nothing is written; left out: no call is needed. */
  readonly idleMs?: number;
  idle?(): Promise<void>;
}

export interface FlowPosition {
  readonly position: Position;
  readonly seq: number;
  readonly quarantineVersion: number;
}

/** One row of `waybill.position`, for `waybill status`. */
export interface PositionRow {
  readonly flow: string;
  readonly source: string;
  readonly position: string;
  readonly stream: string;
  readonly streamSeq: number;
  readonly commitTime: Date | null;
  readonly quarantineVersion: number;
  readonly updatedAt: Date;
}
