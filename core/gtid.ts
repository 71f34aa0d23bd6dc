/** One transaction of a MySQL or MariaDB binary log, and how two sets of them relate. */

/** How two sets relate: `subset` means that the first is strictly contained in the second. */
export type SetOrder = 'equal' | 'subset' | 'superset' | 'concurrent';

/** One transaction of a MySQL source; `source` is the lower-case `uuid` or `uuid:tag`. */
export interface MysqlGtid {
  readonly kind: 'mysql';
  readonly source: string;
  readonly gno: number;
}

/** One transaction of a MariaDB source. */
export interface MariadbGtid {
  readonly kind: 'mariadb';
  readonly domain: number;
  readonly server: number;
  readonly seq: number;
}

export type Gtid = MysqlGtid | MariadbGtid;

/** A GTID as its server prints it. */
export function formatGtid(gtid: Gtid): string {
  return gtid.kind === 'mysql' ? `${gtid.source}:${gtid.gno}` : `${gtid.domain}-${gtid.server}-${gtid.seq}`;
}

/** The relation of two sets of which the first lies in the second (`inside`), or the other way about (`around`). */
export function orderOf(inside: boolean, around: boolean): SetOrder {
  if (inside) return around ? 'equal' : 'subset';
  return around ? 'superset' : 'concurrent';
}
