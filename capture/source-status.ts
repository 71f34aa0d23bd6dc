/** What a source and its log say of a capture, of whatever kind the source is: for `waybill status`. */
import type { StreamTail } from '../core/cdc-stream.ts';

export interface SourceReading {
  /**
   * Whether the log can be followed from where the stream ends. `new`: nothing was captured yet; `slot_missing`,
   * `slot_lost`: the log is gone; `blocked`: it is another one, see `detail`.
   */
  readonly state: 'new' | 'ready' | 'slot_missing' | 'slot_lost' | 'blocked';
  readonly detail?: string;
  /** Somebody reads the slot. */
  readonly slotActive?: boolean;
  /** Whether the log ends where the stream does. */
  readonly caughtUp?: boolean;
  /** Bytes of the source's log behind the end of the stream. */
  readonly behindBytes?: number;
  /** Transactions that the stream lacks (MySQL). */
  readonly behindTransactions?: number;
  /** Bytes of log that the source keeps. */
  readonly retainedLogBytes?: number;
  /** Bytes that may be written before it drops log that is needed; absent without a limit. */
  readonly spareLogBytes?: number;
  /** Seconds until it drops log that is needed, at its present rate; absent while unknown and without a limit. */
  readonly logBudgetSeconds?: number;
  /** For how long a log is kept after it was written, in seconds; absent without a limit (MySQL, MariaDB). */
  readonly keepsLogSeconds?: number;
}

/** A session of a source that can be asked again and again. */
export interface SourceProbe {
  /** `tail` is the end of the source's stream; undefined while there is no stream, or it could not be read. */
  read(tail: StreamTail | undefined): Promise<SourceReading>;
  close(): Promise<void>;
}
