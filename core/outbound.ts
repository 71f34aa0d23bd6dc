/**
 * What an outbound mapping makes of a record: rows of tables that belong to another system. transform/outbound reads the
 * mapping, apply/outbound writes the rows; they meet in these types alone.
 */

/** What is known of a value before it is there; `unknown` where only the value can tell. */
export type OutboundKind = 'text' | 'decimal' | 'boolean' | 'timestamp' | 'date' | 'json' | 'unknown';

/** What a value has of a record: a field, as it is or but as a number, or what it is for every record. */
export type OutboundOrigin =
  { readonly field: string; readonly asNumber: boolean } | { readonly constant: string | null };

/** A value of a row: the number of the cell that holds its text, and what kind of text it is. */
export interface OutboundInput {
  readonly cell: number;
  readonly kind: OutboundKind;
  /** Of a value of the row's key, where it is known. */
  readonly origin?: OutboundOrigin;
}

/** A value that is looked up in a table of the target: its column, in the row where others equal given values. */
export interface OutboundFind {
  readonly table: string;
  readonly column: string;
  readonly where: readonly (OutboundInput & { readonly column: string })[];
}

export interface OutboundColumn {
  readonly name: string;
  /** key: tells rows apart. set: written whenever it differs. new: only in rows that are made here. */
  readonly role: 'key' | 'set' | 'new';
  readonly value: OutboundInput | OutboundFind;
  /** Line of the mapping. */
  readonly line: number;
}

/** What does not fit a record; never its values. */
export class OutboundFault {
  readonly message: string;
  /** Without it there is no key of a row. */
  readonly inKey: boolean;

  constructor(message: string, inKey: boolean) {
    this.message = message;
    this.inKey = inKey;
  }
}

/** Texts in the canonical form of their kind, by cell; undefined for a record that the mapping leaves out. */
export type OutboundCells = readonly (string | null)[] | OutboundFault | undefined;

export interface OutboundWrite {
  /** With or without its schema. */
  readonly table: string;
  readonly line: number;
  readonly columns: readonly OutboundColumn[];
  /** What becomes of a record whose row is not there: it is made, waited for, or nothing is done. */
  readonly missing: 'insert' | 'wait' | 'ignore';
  /** Pure. `record` has the values of the entity's fields in order. */
  readonly cells: (record: readonly (string | null)[]) => OutboundCells;
}

/** One table that a record goes to. */
export interface OutboundBlock {
  readonly write: OutboundWrite;
  /** What is done when the record goes: nothing, its row is deleted, or columns of it are set. */
  readonly gone: 'ignore' | { readonly remove: boolean; readonly write: OutboundWrite };
  /** Whether a record may be let in, as far as its key tells. Takes the values of the entity's fields in order. */
  readonly mayTake: (record: readonly (string | null)[]) => boolean;
  /** Fields of the record of which `where` lets one value pass, and that value. */
  readonly pinned: ReadonlyMap<string, string | null>;
  /** Line of the row's key. */
  readonly keyLine: number;
}

export interface OutboundPlan {
  readonly entity: string;
  /** Names of the entity's fields, in order. */
  readonly fields: readonly string[];
  /** Positions of the key's fields. */
  readonly key: readonly number[];
  readonly blocks: readonly OutboundBlock[];
  /** The file, for messages. */
  readonly place: string;
  /** The zone in which the system keeps times without one. */
  readonly zone?: string;
}

export function isFind(value: OutboundColumn['value']): value is OutboundFind {
  return 'where' in value;
}
