import { asReplicationError } from './errors.ts';

/** One line of a preflight check. */
export interface Finding {
  readonly severity: 'ok' | 'warning' | 'error';
  /** What was looked at, e.g. `source wms: wal_level`. */
  readonly subject: string;
  readonly message: string;
  /** SQL or a sentence that mends it. */
  readonly remedy?: string;
}

/** What was thrown, as findings: one for each problem that it tells of. */
export function errorFindings(subject: string, thrown: unknown): Finding[] {
  const { message, problems, remedy } = asReplicationError(thrown);
  const messages = problems.length === 0 ? [message] : problems;
  return messages.map((each) => ({ severity: 'error', subject, message: each, remedy }));
}
