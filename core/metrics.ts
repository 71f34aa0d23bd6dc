/** What the stages report, as a port: monitoring/ turns it into Prometheus series; tests may leave it out. */

export type CaptureState =
  'starting' | 'standby' | 'snapshot' | 'streaming' | 'idle' | 'slot_missing' | 'slot_lost' | 'blocked' | 'stopped';

export type FlowState = 'starting' | 'standby' | 'applying' | 'idle' | 'waiting' | 'blocked' | 'stopped';

/** How far a snapshot is. */
export interface SnapshotFacts {
  /** Tables that are read, or are to be read, and how many of them are. */
  readonly tables: number;
  readonly tablesDone: number;
  readonly rows: number;
  /** Rows there are about, by the source's estimates; undefined where it has none. */
  readonly expectedRows: number | undefined;
  readonly rowsPerSecond: number;
  readonly remainingSeconds: number | undefined;
}

/** What a capture says of itself. Called per frame or per second, never per row. */
export interface CaptureReport {
  state(state: CaptureState, detail?: string): void;
  /** A frame was acknowledged. */
  published(frame: { rows: number; transactions: number; bytes: number; seconds: number; commitTimeUs: number }): void;
  rows(schema: string, table: string, op: string, count: number): void;
  /** Position in the stream, and bytes of WAL kept by the slot. */
  position(text: string): void;
  retainedLogBytes(bytes: number): void;
  /** Time until the source drops log that is still needed, at its present rate; undefined: unknown, or never. */
  logBudgetSeconds(seconds: number | undefined): void;
  /** Bytes kept of transactions in progress; undefined where they are received at their commit. */
  spool(bytes: number | undefined): void;
  /** Transactions are received at their commit from now on, for the reason of this error code. */
  spoolGivenUp(reason: string): void;
  /** undefined: unknown; 0: idle, nothing outstanding. */
  lagSeconds(seconds: number | undefined): void;
  /** undefined: no snapshot is under way. */
  snapshot(facts: SnapshotFacts | undefined): void;
  /** All tables that the configuration chooses and that cannot be captured. */
  tables(leftOut: readonly { readonly schema: string; readonly name: string; readonly reason: string }[]): void;
}

/** A table that a flow does not follow, or that the source no longer has. */
export interface TableNotice {
  readonly schema: string;
  readonly name: string;
  readonly state: 'stopped' | 'gone';
  readonly reason: string;
}

/** What an apply says of itself. Called per batch. */
export interface FlowReport {
  state(state: FlowState, detail?: string): void;
  /** Where the target stands when the flow begins. */
  position(text: string): void;
  applied(batch: { rows: number; transactions: number; seconds: number; commitTimeUs: number; position: string }): void;
  rows(schema: string, table: string, op: string, count: number): void;
  pendingFrames(frames: number): void;
  /** The last frame of the stream that the target reflects. */
  reached(seq: number): void;
  lagSeconds(seconds: number | undefined): void;
  /** How many keys wait in quarantine for a reason now. */
  quarantined(reason: string, keys: number): void;
  /** All tables that are not followed; called at the start and whenever that changes. */
  tables(notices: readonly TableNotice[]): void;
}

/** What a transform says of itself. Called per transaction, frame or second. */
export interface TransformReport {
  state(state: FlowState, detail?: string): void;
  /** A frame of records was acknowledged. */
  published(frame: {
    rows: number;
    transactions: number;
    bytes: number;
    seconds: number;
    commitTimeUs: number;
    position: string;
  }): void;
  /** Records that changed, source rows that were left out, and groups of records that came to be held. */
  records(outcome: 'mapped' | 'filtered' | 'rejected', count: number): void;
  invariant(invariant: string, count: number): void;
  /** Groups of records that are held, by reason. */
  held(reason: string, keys: number): void;
  stateBytes(bytes: number): void;
  /** The state was saved, or a saved one brought back: its bytes, and when it was saved (milliseconds since 1970). */
  saved(state: { bytes: number; savedAt: number }): void;
  /** Records of which something waits; since the last call, changes that a later one stood for, and their characters. */
  delayed(delayed: { waiting: number; savedWrites: number; savedBytes: number }): void;
  /** Of positions of stock: units that may be sold before a newer `available` is known. */
  oversell(units: number): void;
  /** Frames of the sources that are stored and not taken. */
  pendingFrames(source: string, frames: number): void;
  /** The last frame of a source's stream that was taken. */
  reached(source: string, seq: number): void;
  /** undefined: unknown; 0: idle, nothing outstanding. */
  lagSeconds(seconds: number | undefined): void;
}

const nothing = (): void => {};

export const NO_CAPTURE_REPORT: CaptureReport = {
  state: nothing,
  published: nothing,
  rows: nothing,
  position: nothing,
  retainedLogBytes: nothing,
  logBudgetSeconds: nothing,
  spool: nothing,
  spoolGivenUp: nothing,
  lagSeconds: nothing,
  snapshot: nothing,
  tables: nothing,
};

export const NO_FLOW_REPORT: FlowReport = {
  state: nothing,
  position: nothing,
  applied: nothing,
  rows: nothing,
  pendingFrames: nothing,
  reached: nothing,
  lagSeconds: nothing,
  quarantined: nothing,
  tables: nothing,
};

export const NO_TRANSFORM_REPORT: TransformReport = {
  state: nothing,
  published: nothing,
  records: nothing,
  invariant: nothing,
  held: nothing,
  stateBytes: nothing,
  saved: nothing,
  delayed: nothing,
  oversell: nothing,
  pendingFrames: nothing,
  reached: nothing,
  lagSeconds: nothing,
};
