/** A value that the target's type cannot hold: it belongs to its row, which goes to quarantine. Invariant 7. */
export class ValueMisfit extends Error {
  override readonly name = 'ValueMisfit';
  /** data_exception (SQL:2016, class 22): what a database itself says of such a value. */
  readonly sqlState = '22000';
}

/** Gives the text that the target reads, or null for NULL. Throws `ValueMisfit`; its message never holds the value. */
export type Convert = (text: string) => string | null;
