/** What a target should hold of an entity, worked out independently of what it was sent. */
import type { Position } from '../../../core/position.ts';
import type { KeyTexts } from '../side.ts';

/** A column of records. `type` as frames of records name it: text, numeric, jsonb, … */
export interface RecordColumn {
  readonly name: string;
  readonly type: string;
}

export interface ExpectedRecord {
  /** Values of the key's columns. */
  readonly key: KeyTexts;
  /** By column; undefined: the record is not there. */
  readonly values: readonly (string | null)[] | undefined;
  /** Positions of columns of which nothing can be claimed, ascending. */
  readonly open: readonly number[];
  /** Nor can it be claimed whether the record is there. */
  readonly maybe: boolean;
}

/** Something of which nothing was claimed, and why. */
export interface LeftOut {
  /** A group of fields, or `*` for whole records. */
  readonly what: string;
  readonly why: string;
  readonly records: number;
  /** The share of a record that it is. */
  readonly share: number;
}

export interface ExpectedRecords {
  readonly columns: readonly RecordColumn[];
  /** Positions of the key's columns. */
  readonly key: readonly number[];
  /** Whether a row of the table is one of these records at all. */
  owns(key: KeyTexts): boolean;
  /** Reads the sources; told of the share that is done. Throws classified errors. */
  read(onShare: (share: number) => void): Promise<void>;
  /**
   * Where the target must stand to be compared. Waits until the records are on their way; what waits for a delivery longer
   * than `deliveryMs` is open from then on.
   */
  place(deliveryMs: number): Promise<Position>;
  /** To be called when the target has come to that place: what it says of itself, such as what is held, counts from then on. */
  look(): Promise<void>;
  /** Makes a source that says nothing say something, so that positions move. */
  nudge(): Promise<void>;
  /**
   * Takes what the stream has of the sources' changes; `toLogEnd`, also what they have logged by now and it lacks. Gives the
   * keys of the records that this concerns, as `rowId` writes them.
   */
  follow(options?: { readonly toLogEnd?: boolean }): Promise<ReadonlySet<string>>;
  /** Columns that are open in all records. */
  openInAll(): readonly number[];
  all(): Iterable<ExpectedRecord & { readonly values: readonly (string | null)[] }>;
  get(key: KeyTexts): ExpectedRecord;
  readonly size: number;
  leftOut(): Promise<LeftOut[]>;
}
