/** One line of a preflight check. */
export interface Finding {
  readonly severity: 'ok' | 'warning' | 'error';
  /** What was looked at, e.g. `source wms: wal_level`. */
  readonly subject: string;
  readonly message: string;
  /** SQL or a sentence that mends it. */
  readonly remedy?: string;
}
