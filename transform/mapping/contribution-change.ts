/** What a block of a mapping says of records: what passes from the mapping to whoever decides which source counts. */
import { keyText } from '../canonical/entity.ts';
import type { Lineage } from '../canonical/envelope.ts';
import type { Violation } from '../canonical/validate.ts';
import type { CompiledBlock } from './block-plan.ts';

/** What a block contributes to a record: values by the entity's fields; undefined where it supplies none. */
export type ContributedValues = readonly (string | null | undefined)[];

/** Where whoever takes contributions notes what it knows of their record, so that it need not look for it again. */
export interface RecordPlace {
  known: object | undefined;
}

/** A change of what a block contributes to a record. */
export interface ContributionChange {
  readonly block: CompiledBlock;
  /** Number of the block in its mapping. */
  readonly index: number;
  /** Key of the record as one text. */
  readonly key: string;
  /** One for each record and block; absent of rows that give no record. */
  readonly place?: RecordPlace | undefined;
  /** New values; undefined when the block no longer has anything to say of this record. */
  readonly values: ContributedValues | undefined;
  readonly lineage: Lineage;
  /** Fields whose newest value broke a rule: the whole group keeps its last good values. Empty when all is well. */
  readonly held: ReadonlyMap<string, readonly Violation[]>;
  /** The row whose change made this, as JSON by column, where something is held and the row was kept. */
  readonly content?: string | undefined;
}

/** Shared, and never written. */
export const NOTHING_HELD = new Map<string, Violation[]>();
/** Name under which a row is held that gives no record at all. */
export const WHOLE_RECORD = '*';

export function sameValues(a: ContributedValues, b: ContributedValues): boolean {
  for (let i = 0; i < b.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** The record key of positional values, in the form that contributions use. */
export const recordKey = keyText;
