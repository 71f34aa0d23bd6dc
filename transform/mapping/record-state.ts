/** A record that rows of a block make, and what of each row counts for it. */
import type { Violation } from '../canonical/validate.ts';
import type { Cell } from './cell.ts';
import { NOTHING_HELD, type RecordPlace } from './contribution-change.ts';
import type { Cause } from './engine.ts';
import { Members } from './members.ts';

/** A row as far as it counts for a record. */
export interface Member {
  readonly record: RecordState;
  /** One cell for each compiled field, and behind them what `same` asks of the rows; undefined where an aggregate's condition leaves the row out. Changed in place. */
  readonly cells: (Cell | undefined)[];
}

/** A record that rows of the block make, and what it contributed last. */
export interface RecordState extends RecordPlace {
  readonly key: string;
  /** Values of the key fields. */
  readonly keyValues: readonly string[];
  /** The rows that make it. */
  readonly rows: Members<Member>;
  /** By the block's fields; undefined while nothing has been contributed. Changed in place. */
  given: (string | null | undefined)[] | undefined;
  held: ReadonlyMap<string, readonly Violation[]>;
  /** While a flush works it out anew: the last of the changes that touched it. */
  cause: Cause | undefined;
}

export function createRecord(keyValues: readonly string[]): RecordState {
  return {
    key: keyValues.join('\u001f'),
    keyValues,
    rows: new Members(),
    given: undefined,
    held: NOTHING_HELD,
    cause: undefined,
    known: undefined,
  };
}
