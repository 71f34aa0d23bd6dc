/**
 * GTID sets: how much of a MySQL or MariaDB binary log has been taken. MySQL's is a set of transaction numbers for each
 * source (`uuid[:tag]`), MariaDB's one position for each domain. Both are immutable values with the same algebra, so
 * that positions can be compared without knowing the flavour; two of them may also be *concurrent*.
 *
 * Notation and encodings: MySQL 9 manual "GTID Sets", mysql-server `Gtid_set::encode` (libs/mysql/gtid), MariaDB
 * "Global Transaction ID". Sequence numbers are JS numbers: beyond 2^53 - 1 parsing and adding refuse.
 */
import { ReplicationError } from './errors.ts';
import { formatGtid, type Gtid, type MariadbGtid, type SetOrder } from './gtid.ts';
import { MariadbGtidSet } from './mariadb-gtid-set.ts';
import { MysqlGtidSet } from './mysql-gtid-set.ts';

export type GtidSet = MysqlGtidSet | MariadbGtidSet;

/** Relation of two sets of one flavour. Throws `source_identity_mismatch` for sets of different flavours. */
export function compareGtidSets(a: GtidSet, b: GtidSet): SetOrder {
  if (a.kind === 'mysql' && b.kind === 'mysql') return a.compare(b);
  if (a.kind === 'mariadb' && b.kind === 'mariadb') return a.compare(b);
  throw new ReplicationError(
    'source_identity_mismatch',
    `a ${a.kind} position cannot be compared with a ${b.kind} one`,
  );
}

/**
 * A set that grows along a log: `add` of the next transaction of a source or domain changes one number and allocates
 * nothing; `toSet` gives the immutable value, once for each change.
 */
export class GtidCursor {
  #set: GtidSet;
  #stale = false;
  #intervals: Map<string, number[]> | undefined;
  #source = '';
  #list: number[] = [];
  #domains: Map<number, MariadbGtid> | undefined;

  constructor(start: GtidSet) {
    this.#set = start;
    if (start.kind === 'mysql') this.#intervals = start.intervals();
    else this.#domains = new Map(start.domains.map((domain) => [domain, start.last(domain)!]));
  }

  /** Adds one transaction. Throws `source_protocol` for a number out of range, or of the other flavour. */
  add(gtid: Gtid): void {
    this.#stale = true;
    if (gtid.kind === 'mysql' && this.#intervals !== undefined) {
      const { source, gno } = gtid;
      if (source !== this.#source) {
        const known = this.#intervals.get(source);
        if (known === undefined) return this.#replace(MysqlGtidSet.of(this.#intervals).add(gtid));
        this.#source = source;
        this.#list = known;
      }
      const list = this.#list;
      if (list[list.length - 1]! + 1 === gno) list[list.length - 1] = gno;
      else this.#replace(MysqlGtidSet.of(this.#intervals).add(gtid));
    } else if (gtid.kind === 'mariadb' && this.#domains !== undefined) {
      const at = this.#domains.get(gtid.domain);
      if (at === undefined || at.seq < gtid.seq) this.#domains.set(gtid.domain, gtid);
    } else {
      throw new ReplicationError('source_protocol', `GTID ${formatGtid(gtid)} came in a log of ${this.#set.kind}`);
    }
  }

  #replace(set: MysqlGtidSet): void {
    this.#intervals = set.intervals();
    this.#source = '';
  }

  toSet(): GtidSet {
    if (!this.#stale) return this.#set;
    this.#stale = false;
    this.#set =
      this.#intervals === undefined ? MariadbGtidSet.of(this.#domains!.values()) : MysqlGtidSet.of(this.#intervals);
    return this.#set;
  }
}
