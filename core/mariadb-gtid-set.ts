/** MariaDB's positions: one for each domain. MariaDB "Global Transaction ID". */
import { ReplicationError } from './errors.ts';
import { formatGtid, orderOf, type MariadbGtid, type SetOrder } from './gtid.ts';

interface DomainPosition {
  readonly server: number;
  readonly seq: number;
}

const MARIADB_GTID = /^(\d{1,10})-(\d{1,10})-(\d{1,16})$/;

/**
 * A MariaDB position: the last transaction of each domain. A domain is one ordered log, so everything up to its number
 * counts as contained, whichever server wrote it; the server id is kept because the primary is asked by it.
 */
export class MariadbGtidSet {
  readonly kind = 'mariadb';
  readonly #domains: ReadonlyMap<number, DomainPosition>;

  static readonly EMPTY: MariadbGtidSet = new MariadbGtidSet(new Map());

  private constructor(domains: ReadonlyMap<number, DomainPosition>) {
    this.#domains = domains;
  }

  /** The position at these transactions; of several of one domain the one with the highest number counts. */
  static of(gtids: Iterable<MariadbGtid>): MariadbGtidSet {
    const domains = new Map<number, DomainPosition>();
    for (const { domain, server, seq } of gtids) {
      const known = domains.get(domain);
      if (known === undefined || known.seq < seq) domains.set(domain, { server, seq });
    }
    return new MariadbGtidSet(domains);
  }

  /**
   * Reads `domain-server-seq,…` (white space allowed); undefined when the text is not that. Of several entries for
   * one domain the one with the highest number counts.
   */
  static parse(text: string): MariadbGtidSet | undefined {
    const gtids: MariadbGtid[] = [];
    for (const part of text.split(',')) {
      if (part.trim() === '') continue;
      const match = MARIADB_GTID.exec(part.trim());
      if (match === null) return undefined;
      const [domain, server, seq] = [Number(match[1]), Number(match[2]), Number(match[3])];
      if (domain > 0xffff_ffff || server > 0xffff_ffff || !Number.isSafeInteger(seq)) return undefined;
      gtids.push({ kind: 'mariadb', domain, server, seq });
    }
    return MariadbGtidSet.of(gtids);
  }

  get empty(): boolean {
    return this.#domains.size === 0;
  }

  get domains(): readonly number[] {
    return [...this.#domains.keys()].sort((a, b) => a - b);
  }

  /** The last transaction taken of a domain. */
  last(domain: number): MariadbGtid | undefined {
    const at = this.#domains.get(domain);
    return at === undefined ? undefined : { kind: 'mariadb', domain, server: at.server, seq: at.seq };
  }

  contains(gtid: MariadbGtid): boolean {
    const at = this.#domains.get(gtid.domain);
    return at !== undefined && gtid.seq <= at.seq;
  }

  /** The position after `gtid`; this one itself when it lies there or beyond. */
  add(gtid: MariadbGtid): MariadbGtidSet {
    if (!Number.isSafeInteger(gtid.seq) || gtid.seq < 0)
      throw new ReplicationError('source_protocol', `GTID ${formatGtid(gtid)} is out of range`);
    if (this.contains(gtid)) return this;
    const domains = new Map(this.#domains);
    domains.set(gtid.domain, { server: gtid.server, seq: gtid.seq });
    return new MariadbGtidSet(domains);
  }

  /** The farther position of every domain. */
  union(other: MariadbGtidSet): MariadbGtidSet {
    const domains = new Map(this.#domains);
    for (const [domain, at] of other.#domains) {
      const mine = domains.get(domain);
      if (mine === undefined || mine.seq < at.seq) domains.set(domain, at);
    }
    return new MariadbGtidSet(domains);
  }

  /** The domains in which this position lies beyond `other`, at their places here. */
  subtract(other: MariadbGtidSet): MariadbGtidSet {
    const domains = new Map<number, DomainPosition>();
    for (const [domain, at] of this.#domains) {
      const theirs = other.#domains.get(domain);
      if (theirs === undefined || theirs.seq < at.seq) domains.set(domain, at);
    }
    return new MariadbGtidSet(domains);
  }

  isSubset(other: MariadbGtidSet): boolean {
    for (const [domain, at] of this.#domains) {
      const theirs = other.#domains.get(domain);
      if (theirs === undefined || theirs.seq < at.seq) return false;
    }
    return true;
  }

  equals(other: MariadbGtidSet): boolean {
    return this.compare(other) === 'equal';
  }

  compare(other: MariadbGtidSet): SetOrder {
    return orderOf(this.isSubset(other), other.isSubset(this));
  }

  /** Canonical text, domains in order: what `@slave_connect_state` takes. */
  toString(): string {
    return this.domains.map((domain) => formatGtid(this.last(domain)!)).join(',');
  }

  toJSON(): string {
    return this.toString();
  }
}
