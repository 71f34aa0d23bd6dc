/** What a resolver says of records: what they are now, what changed, what is held, and whose values count. */
import type { Entity, RecordValues } from '../canonical/entity.ts';
import type { Lineage } from '../canonical/envelope.ts';
import type { Violation } from '../canonical/validate.ts';

/** A group of a record: whose values it has, why, and whose values lost. */
export interface GroupOrigin {
  readonly group: string;
  readonly winner: Lineage | undefined;
  /** Number of the block, in the mapping of its source, that supplies the winner's values. */
  readonly block: number | undefined;
  readonly rule: string;
  /** What others said that is part of the value as well: members of a union, figures whose changes are in a sum. */
  readonly merged: readonly GroupSaying[];
  /** Values that were not applied. */
  readonly advisory: readonly GroupSaying[];
}

/** What is said of a group, by the names of its fields; those of which nothing is said are left out. */
export interface GroupSaying {
  readonly lineage: Lineage;
  readonly values: Readonly<Record<string, string | null>>;
}

/** A record that changed. */
export interface ResolvedChange {
  readonly entity: Entity;
  readonly key: string;
  readonly before: RecordValues | undefined;
  readonly after: RecordValues | undefined;
  /** Of the newest change among the values that count; of a record that goes, the change that ended it. */
  readonly lineage: Lineage;
  /** One change made all values of the record, so that its lineage says of each where it is from. */
  readonly isOfOneChange: boolean;
}

/** A record as it is. The values are those of now until it changes: whoever keeps them copies them. */
export interface CurrentRecord {
  readonly key: string;
  readonly values: RecordValues;
  readonly lineage: Lineage;
}

/** A record, or a group of it, that keeps its last good state, and why. */
export interface HeldGroup {
  readonly key: string;
  readonly group: string;
  readonly source: string;
  readonly violations: readonly Violation[];
  readonly lineage: Lineage;
  /** The source row, or the record, that broke the rules, as JSON; absent where it was not kept. */
  readonly content?: string | undefined;
  /** Nothing is wrong: what a source has yet to bring is missing. */
  readonly incomplete?: boolean;
}

/** What is held, or no longer held, under an id. */
export interface HeldChange {
  readonly id: string;
  readonly held: HeldGroup | undefined;
}
