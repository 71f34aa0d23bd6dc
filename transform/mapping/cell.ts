/** Values while a mapping works on them. */

/** A value that cannot be used, and the rule that it breaks. It travels through expressions up to the field. */
export class Fault {
  readonly rule: string;
  /** Class of the value that broke it; never the value. */
  readonly valueClass: string;

  constructor(rule: string, valueClass: string) {
    this.rule = rule;
    this.valueClass = valueClass;
  }
}

/** Canonical text, absent, or a fault. */
export type Cell = string | null | Fault;

export function isFault(cell: Cell): cell is Fault {
  return typeof cell === 'object' && cell !== null;
}
