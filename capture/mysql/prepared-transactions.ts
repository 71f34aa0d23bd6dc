/** XA transactions that are prepared and neither committed nor rolled back: their rows, and where the log has them. */
import type { GtidSet } from '../../core/gtid-set.ts';
import type { Gtid } from '../../core/gtid.ts';
import { MariadbGtidSet } from '../../core/mariadb-gtid-set.ts';
import { MysqlGtidSet } from '../../core/mysql-gtid-set.ts';
import type { Xid } from './binlog-handler.ts';
import type { HeldRows } from './held-rows.ts';

interface Prepared {
  readonly gtid: Gtid;
  readonly held: HeldRows;
  /** MariaDB: the position of its domain before it. */
  readonly before: Gtid | undefined;
}

export class PreparedTransactions {
  readonly #prepared = new Map<Xid, Prepared>();
  /** MariaDB: the last group of each domain that came. */
  readonly #logged = new Map<number, Gtid>();

  /** `start`: where the log is read from. */
  constructor(start: GtidSet) {
    if (start.kind === 'mariadb') for (const domain of start.domains) this.#logged.set(domain, start.last(domain)!);
  }

  /** A group has ended, of whatever kind. */
  ended(gtid: Gtid): void {
    if (gtid.kind === 'mariadb') this.#logged.set(gtid.domain, gtid);
  }

  /** Call before `ended` of the same group. */
  add(xid: Xid, gtid: Gtid, held: HeldRows): void {
    const before = gtid.kind === 'mariadb' ? this.#logged.get(gtid.domain) : undefined;
    this.#prepared.set(xid, { gtid, held, before });
  }

  rowsOf(xid: Xid): HeldRows | undefined {
    return this.#prepared.get(xid)?.held;
  }

  forget(xid: Xid): void {
    this.#prepared.delete(xid);
  }

  /** From where the log must be read again: what is taken, without what is prepared. */
  replayFrom(taken: () => GtidSet): GtidSet | undefined {
    if (this.#prepared.size === 0) return undefined;
    const set = taken();
    const prepared = [...this.#prepared.values()];
    if (set.kind === 'mysql')
      return set.subtract(
        prepared.reduce((all, { gtid }) => (gtid.kind === 'mysql' ? all.add(gtid) : all), MysqlGtidSet.EMPTY),
      );
    const last = new Map(set.domains.map((domain) => [domain, set.last(domain)]));
    // In the order in which they were prepared: the first of a domain counts.
    for (const { gtid, before } of prepared.toReversed())
      if (gtid.kind === 'mariadb') last.set(gtid.domain, before?.kind === 'mariadb' ? before : undefined);
    return MariadbGtidSet.of([...last.values()].filter((gtid) => gtid !== undefined));
  }
}
