/** The numbers of MariaDB's transactions: each domain is one ordered log. */
import { ReplicationError } from '../../core/errors.ts';
import type { GtidSet } from '../../core/gtid-set.ts';
import { formatGtid, type Gtid, type MariadbGtid } from '../../core/gtid.ts';

/** The last number of each domain that the log brought. */
export class DomainNumbers {
  readonly #last = new Map<number, number>();

  constructor(start: GtidSet) {
    if (start.kind !== 'mariadb') return;
    for (const domain of start.domains) this.#last.set(domain, start.last(domain)!.seq);
  }

  /**
   * Takes the next one. Positions count on it that numbers rise: a transaction with a lower number than one before it
   * would be taken for one that is known. Throws `source_binlog_settings`.
   */
  next(gtid: MariadbGtid): void {
    const last = this.#last.get(gtid.domain);
    if (last !== undefined && gtid.seq <= last)
      throw new ReplicationError(
        'source_binlog_settings',
        `transaction ${formatGtid(gtid)} comes behind number ${last} of its domain; only with gtid_strict_mode=ON do numbers rise`,
      );
    this.#last.set(gtid.domain, gtid.seq);
  }
}

/** What comes before an unfinished transaction in its domain must have been taken. Throws `source_diverged`. */
export function requireOtherDomain(unfinished: Gtid, gtid: Gtid): void {
  if (unfinished.kind === 'mariadb' && gtid.kind === 'mariadb' && unfinished.domain === gtid.domain)
    throw new ReplicationError(
      'source_diverged',
      `the stream ends inside of ${formatGtid(unfinished)}, and the source goes on with ${formatGtid(gtid)}`,
    );
}
